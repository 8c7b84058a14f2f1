"""What the checks of an archive come to, in a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def verdict(checks: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Whether cog-triton can serve the archive.

    Args:
        checks: `readiness` of `build.json`.

    Returns:
        The words, and `ok`, `problem` or `unknown`; empty words without any checks.
    """
    if not checks:
        return "", "unknown"
    problems = [check["message"].partition(";")[0] for check in checks if check["status"] == "problem"]
    unknown = sum(check["status"] == "unknown" for check in checks)
    if problems:
        others = len(problems) - 1
        more = f", and {others} more problem{'s' * (others != 1)}" if others else ""
        return f"not ready for cog-triton: {problems[0]}{more}", "problem"
    if unknown:
        return f"unverified for cog-triton: {unknown} of {len(checks)} checks could not be made", "unknown"
    return "ready for cog-triton", "ok"


def serving_settings(checks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The variables that cog-triton has to be given for the archive."""
    return {name: value for check in checks for name, value in check.get("settings", {}).items()}
