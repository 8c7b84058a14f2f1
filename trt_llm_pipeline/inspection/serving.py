"""What an engine was built with and for, against what will serve it.

An engine runs on the TensorRT-LLM release and the compute capability that it was built with, and on no other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

from trt_llm_pipeline.inspection.checks import Check

_CAPABILITY = re.compile(r"(?:sm_?|compute_?)?(\d{1,2})\.?(\d)a?", re.IGNORECASE)


def compute_capability(text: str) -> str:
    """`9.0` from `sm90`, `sm_90`, `9.0` or `90`.

    Raises:
        ValueError: it is none of these.
    """
    match = _CAPABILITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no compute capability; write it like sm90, sm_90, 90 or 9.0")
    return f"{match[1]}.{match[2]}"


def release(text: str) -> str:
    """A TensorRT-LLM release as it is usually written.

    Raises:
        ValueError: it is none.
    """
    try:
        return str(Version(text))
    except InvalidVersion:
        raise ValueError(f"{text!r} is no TensorRT-LLM release; write it like 0.9.0") from None


def check_release(manifest: Mapping[str, Any], config: Mapping[str, Any], wanted: str | None) -> Check:
    name = "TensorRT-LLM"
    tools = manifest.get("toolchain")
    tools = tools if isinstance(tools, dict) else {}
    if tools.get("name") == "cpu":
        text = (
            "demo engine: not for serving; it was built by the CPU toolchain, whose engines its own "
            f"examples/run.py runs and TensorRT-LLM does not: build with TensorRT-LLM {wanted or ''}".rstrip()
        )
        return Check(name, "problem", f"{text} on a GPU")
    releases = map(_release_or_none, (tools.get("version"), config.get("version")))
    said = {release for release in releases if release is not None}
    if len(said) > 1:
        both = " and ".join(sorted(said))
        return Check(
            name, "problem", f"manifest.json and config.json name different releases: {both}; build again"
        )
    if not said:
        advice = f"make sure that it was {wanted}" if wanted else "serve it with the release that built it"
        return Check(name, "unknown", f"nothing says which release built the engine; {advice}")
    (built,) = said
    if wanted is None:
        return Check(
            name,
            "unknown",
            f"built with {built}, and runs on that release alone; say which one will serve it to have them "
            "compared",
        )
    if Version(built) != Version(wanted):  # 0.9 is 0.9.0
        return Check(
            name,
            "problem",
            f"built with {built}, but {wanted} will serve it; an engine runs only on the release that "
            "built it: "
            f"build with {wanted}, or serve with {built}",
        )
    return Check(name, "ok", f"built with {built}, which will serve it")


def check_gpu(manifest: Mapping[str, Any], wanted: str | None) -> Check:
    name = "GPU"
    gpus = manifest.get("gpus")
    if gpus == "cpu":
        if wanted is None:
            return Check(name, "unknown", "built on a machine without a GPU, so no GPU is known to run it")
        return Check(
            name,
            "problem",
            f"built on a machine without a GPU; to serve on compute capability {wanted}, build on such a GPU",
        )
    found = _capabilities(gpus)
    if not found:
        advice = (
            f"make sure that it was one of compute capability {wanted}"
            if wanted
            else "serve it on the same kind"
        )
        return Check(name, "unknown", f"nothing says which GPU it was built on; {advice}")
    built = " and ".join(found)
    if wanted is None:
        return Check(
            name,
            "unknown",
            f"built for compute capability {built}, and runs on that alone; say which GPU will serve it to "
            "have "
            "them compared",
        )
    if wanted not in found:
        return Check(
            name,
            "problem",
            f"built for compute capability {built}, but {wanted} will serve it; build on a GPU of "
            f"{wanted}, or "
            f"serve on {built}",
        )
    if len(found) > 1:
        return Check(
            name,
            "warning",
            f"the machine that built it has GPUs of {built}; make sure that {wanted} was used",
        )
    return Check(name, "ok", f"built for compute capability {built}, which will serve it")


def _capabilities(gpus: object) -> list[str]:
    found = set()
    for gpu in gpus if isinstance(gpus, list) else []:
        text = gpu.get("compute_capability") if isinstance(gpu, dict) else None
        match = _CAPABILITY.fullmatch(text) if isinstance(text, str) else None
        if match is not None:
            found.add(f"{match[1]}.{match[2]}")
    return sorted(found)


def _release_or_none(text: object) -> str | None:
    try:
        return str(Version(text)) if isinstance(text, str) else None
    except InvalidVersion:
        return None
