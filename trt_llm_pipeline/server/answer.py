"""Whether a prediction may return the archive itself, or only the record that says where it lies.

Cog returns a file in one of two ways. A server started with `--upload-url` PUTs it there. Any other inlines
it as base64 in the response, which takes eight times the file in memory: a large archive would end the
server, and with it the build. The worker that runs a prediction is not told which, so the server's command
line is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.units import in_words, parse_size

DELIVERY_VARIABLE = "TRT_LLM_DELIVERY"
LIMIT_VARIABLE = "TRT_LLM_INLINE_LIMIT"
DEFAULT_INLINE_LIMIT = 256 * 1000**2


@dataclass(frozen=True)
class DeliveryDecision:
    """What a prediction without a destination returns.

    Attributes:
        returns: `archive`, or `record` for `build.json`.
        reason: why, one sentence for the log.
    """

    returns: Literal["archive", "record"]
    reason: str


def decide_delivery(
    archive_size: int, parent_argv: Sequence[str], env: Mapping[str, str]
) -> DeliveryDecision:
    """Decide from the archive's size in bytes, the server process's command line, and the environment.

    Never fails: by now an archive has been made, and a mistyped variable must not lose it. `check_variables`
    refuses one beforehand.
    """
    try:
        limit = inline_limit(env)
        note = ""
    except DeliveryError:
        limit = DEFAULT_INLINE_LIMIT
        note = f" ({LIMIT_VARIABLE} is not a size, so the default counts)"
    wanted = env.get(DELIVERY_VARIABLE, "").strip().lower()
    if wanted in ("inline", "upload"):
        uploads, why = wanted == "upload", f"{DELIVERY_VARIABLE}={wanted}"
    elif upload_url(parent_argv):
        uploads, why = True, "the server was started with --upload-url"
    else:
        uploads, why = False, "the server was started without --upload-url"
    size = in_words(archive_size)
    if uploads:
        return DeliveryDecision("archive", f"returning the archive ({size}): it is uploaded, as {why}")
    if archive_size <= limit:
        return DeliveryDecision(
            "archive",
            f"returning the archive ({size}): it is inlined in the response, as {why}, and is within the "
            f"limit of {in_words(limit)}{note}",
        )
    return DeliveryDecision(
        "record",
        f"returning build.json, which says where the archive is: the response would inline {size}, as "
        f"{why}, and the limit is {in_words(limit)}{note}; give a destination, start the server with "
        f"--upload-url, or raise {LIMIT_VARIABLE}",
    )


def check_variables(env: Mapping[str, str]) -> None:
    """Refuse mistyped variables while nothing has been spent yet.

    Raises:
        DeliveryError: `TRT_LLM_DELIVERY` or `TRT_LLM_INLINE_LIMIT` has a value that means nothing.
    """
    inline_limit(env)
    wanted = env.get(DELIVERY_VARIABLE, "").strip()
    if wanted and wanted.lower() not in ("inline", "upload"):
        raise DeliveryError(
            f"{DELIVERY_VARIABLE}={wanted!r} means nothing; set it to inline or upload, or unset it"
        )


def inline_limit(env: Mapping[str, str]) -> int:
    """The largest archive in bytes that may be inlined.

    Raises:
        DeliveryError: `TRT_LLM_INLINE_LIMIT` is not a size.
    """
    text = env.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_INLINE_LIMIT
    size = parse_size(text)
    if size is None:
        raise DeliveryError(
            f"{LIMIT_VARIABLE}={text!r} is not a size; write bytes, or a number with a unit: 256MB, 1GiB"
        )
    return size


def upload_url(argv: Sequence[str]) -> str | None:
    """The value of a server's `--upload-url`, as argparse reads it; None when there is none."""
    found = None
    for index, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if len(name) > len("--") and "--upload-url".startswith(name):
            found = value if equals else (argv[index + 1] if index + 1 < len(argv) else None)
    return found or None


def server_argv() -> list[str]:
    """The command line of the Cog server above this process; empty when there is none."""
    import psutil

    try:
        for process in psutil.Process().parents():
            argv = process.cmdline()
            if any("cog" in argument for argument in argv):
                return list(argv)
    except psutil.Error:
        return []
    return []
