"""One line of a readiness table, and what a whole table says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "warning", "problem", "unknown"]
Verdict = Literal["ready", "not ready", "unverified"]


@dataclass(frozen=True)
class Check:
    """One line of the readiness table.

    Attributes:
        name: what was looked at.
        status: `ok`; `warning`: it can be served, with what the message says; `problem`: it cannot;
            `unknown`: it could not be told.
        message: what was found and, unless all is well, what to do next.
        settings: environment variables to give cog-triton, by name.
    """

    name: str
    status: Status
    message: str
    settings: Mapping[str, str] = field(default_factory=dict)


def verdict(checks: Sequence[Check]) -> Verdict:
    """`not ready` with a problem, `unverified` where something could not be told, else `ready`."""
    found = {check.status for check in checks}
    return "not ready" if "problem" in found else "unverified" if "unknown" in found else "ready"


def settings(checks: Sequence[Check]) -> dict[str, str]:
    """The environment variables that cog-triton needs for the archive."""
    return {name: value for check in checks for name, value in check.settings.items()}


def table(checks: Sequence[Check]) -> list[str]:
    """One line a check."""
    wide = max((len(check.name) for check in checks), default=0)
    return [f"  {check.status:7}  {check.name:{wide}}  {check.message}" for check in checks]


def log_lines(checks: Iterable[Check]) -> list[str]:
    """One line a check, for a build's log."""
    return [
        f"not ready for cog-triton: {check.name}: {check.message}"
        if check.status == "problem"
        else f"cog-triton: {check.status}: {check.name}: {check.message}"
        for check in checks
    ]


def verdict_lines(checks: Sequence[Check]) -> list[str]:
    """The table in a line or two: how it stands and why, and what to set."""
    told = verdict(checks)
    text: str = told
    if told == "not ready":
        first, *more = [check for check in checks if check.status == "problem"]
        text += f": {first.name}: {first.message.partition(';')[0]}"
        text += f", and {len(more)} more problem{'s' * (len(more) != 1)}" if more else ""
    elif told == "unverified":
        names = [check.name for check in checks if check.status == "unknown"]
        text += f": nothing stands against it, but {len(names)} of {len(checks)} checks could not be made"
        text += f" ({', '.join(dict.fromkeys(names))})"
    wanted = " ".join(f"{name}={value}" for name, value in settings(checks).items())
    return [text, f"set for cog-triton: {wanted}"] if wanted else [text]
