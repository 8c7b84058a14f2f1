"""A config's text from wherever the user keeps it: a file, an http(s) address, a data: URI."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from trt_llm_pipeline.config.yaml_reader import MAX_BYTES, decode, read_text
from trt_llm_pipeline.errors import ConfigError, Mistake

_TIMEOUT_S = 30.0


def read(source: str) -> tuple[str, str]:
    """Reads a config.

    Args:
        source: a path, an http:// or https:// address, or a data: URI.

    Returns:
        Its text, and what to call it in messages.

    Raises:
        ConfigError: it cannot be read.
    """
    scheme = source.partition(":")[0].lower() if ":" in source else ""
    if scheme in ("http", "https"):
        return _fetch(source)
    if scheme == "data":
        return decode(_open(source, "config"), "config"), "config"
    path = Path(source)
    return read_text(path), path.name or source


def _fetch(address: str) -> tuple[str, str]:
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise ConfigError([Mistake(f"is not a valid address: {error}; check it")], "the config") from None
    shown = f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
    name = unquote(PurePosixPath(parts.path).name) or shown
    return decode(_open(address, shown), name), name


def _open(address: str, shown: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310  scheme is checked
            data: bytes = answer.read(MAX_BYTES + 1)
            announced = answer.headers.get("Content-Length")
            if announced and len(data) < min(int(announced), MAX_BYTES):
                raise OSError(f"only {len(data)} of {announced} bytes came")
            return data
    except urllib.error.HTTPError as error:
        error.close()
        message = f"cannot be fetched: the server answered {error.code} {error.reason}; check the address"
        raise ConfigError([Mistake(message)], shown) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        message = f"cannot be fetched: {reason}; check the address and that the server runs"
        raise ConfigError([Mistake(message)], shown) from None
