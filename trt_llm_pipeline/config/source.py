"""A config's text from wherever the user keeps it: a file, an http(s) address, a data: URI."""

from __future__ import annotations

import http.client
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from trt_llm_pipeline.config.yaml_reader import MAX_BYTES, decode, read_text
from trt_llm_pipeline.errors import ConfigError, Mistake
from trt_llm_pipeline.net.addresses import Reach, shown
from trt_llm_pipeline.net.client import fetch_bytes
from trt_llm_pipeline.net.failures import BadAddress, EndedEarly, HttpStatusError
from trt_llm_pipeline.net.spelling import checked
from trt_llm_pipeline.printable import printable

_SILENCE_S = 30.0


def read(source: str, reach: Reach, *, typed: bool = False) -> tuple[str, str]:
    """Reads a config.

    Args:
        source: a path, an http:// or https:// address, or a data: URI.
        reach: which addresses may be connected to.
        typed: a person has typed it, and knows a path by nothing less than that.

    Returns:
        Its text, and what to call it in messages.

    Raises:
        ConfigError: it cannot be read.
    """
    scheme = source.partition(":")[0].lower() if ":" in source else ""
    if scheme in ("http", "https"):
        return _fetch(source, reach)
    if scheme == "data":
        return decode(_open(source), "config"), "config"
    if "://" in source:
        raise ConfigError(
            [Mistake(f"{scheme}:// is not read; name a file, or an http:// or https:// address")], source
        )
    path = Path(source)
    name = source if typed else path.name or source
    return read_text(path, name), name


def _fetch(address: str, reach: Reach) -> tuple[str, str]:
    try:
        path = checked(address).target.partition("?")[0]
    except BadAddress as error:
        raise ConfigError([Mistake(str(error))], "the config") from None
    place = shown(address)
    name = printable(unquote(PurePosixPath(path).name)) or place
    return decode(_download(address, place, reach), name), name


def _download(address: str, place: str, reach: Reach) -> bytes:
    try:
        # One byte more than a config may have, so that a longer one is seen as such.
        return fetch_bytes(address, most_bytes=MAX_BYTES + 1, silence=_SILENCE_S, reach=reach)
    except HttpStatusError as error:
        phrase = http.client.responses.get(error.status, "")
        answer = f"{error.status} {phrase}".strip()
        message = f"cannot be fetched: the server answered {answer}; check the address"
    except BadAddress as error:
        message = f"cannot be fetched: {error}"
    except (OSError, http.client.HTTPException, EndedEarly) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        message = f"cannot be fetched: {reason}; check the address and that the server runs"
    raise ConfigError([Mistake(message)], place)


def _open(source: str) -> bytes:
    """What a data: URI holds."""
    try:
        with urllib.request.urlopen(source) as answer:  # noqa: S310  the scheme is checked
            data: bytes = answer.read(MAX_BYTES + 1)
            return data
    except (OSError, ValueError) as error:
        raise ConfigError([Mistake(f"is not a valid data: URI: {error}; check it")], "config") from None
