"""A prediction's output as a file: decoded or fetched, read back and compared with its manifest."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from trt_llm_pipeline.artifact import read_archive
from trt_llm_pipeline.delivery import collect
from trt_llm_pipeline.errors import ArtifactError, ServerError
from trt_llm_pipeline.files import appearing
from trt_llm_pipeline.net.addresses import Reach

_CHUNK = 1 << 20
_LARGEST_RECORD = 64 << 20


@dataclass(frozen=True)
class Saved:
    """What a prediction has given.

    Attributes:
        path: the archive; None where the server kept it, or sent it elsewhere.
        size, sha256: the archive's.
        record: the build's `build.json`, where that is what was given.
    """

    path: Path | None
    size: int = 0
    sha256: str = ""
    record: Mapping[str, Any] | None = None


def save(output: object, target: Path, reach: Reach) -> Saved:
    """Puts the archive that a prediction has given at `target`, whole and checked, or not at all.

    Args:
        output: the prediction's: a data: URI, or an address.
        target: what is there is replaced.
        reach: which addresses may be connected to.

    Raises:
        ServerError: the output is neither an archive nor a record.
        ArtifactError: it cannot be fetched or written, or is not what its manifest says.
    """
    if not isinstance(output, str):
        raise ServerError("the prediction has succeeded without an output")
    if output.startswith("data:"):
        stream: BinaryIO = BytesIO(_decoded(output))
        with closing(stream):
            return _saved(stream, target)
    with collect.opened(output, reach) as found:
        return _saved(found, target)


def _saved(stream: BinaryIO, target: Path) -> Saved:
    first = stream.read(_CHUNK)
    if first[:1] == b"{":
        return Saved(None, record=_record(first + _rest(stream)))
    unchecked = target.with_name(f".{target.name}.unchecked")
    try:
        with appearing(unchecked) as sink:
            data = first
            while data:
                sink.write(data)
                data = stream.read(_CHUNK)
        contents = read_archive(str(unchecked))
        if contents.problems:
            raise ArtifactError(f"the archive is not what its manifest says: {'; '.join(contents.problems)}")
        unchecked.replace(target)
    finally:
        unchecked.unlink(missing_ok=True)
    return Saved(target, contents.size, contents.sha256)


def _decoded(uri: str) -> bytes:
    head, comma, data = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ServerError("the prediction's output is a data: URI that is not base64")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as problem:
        raise ServerError(f"the prediction's output is not base64: {problem}") from None


def _rest(stream: BinaryIO) -> bytes:
    parts, size = [], 0
    while size <= _LARGEST_RECORD and (data := stream.read(_CHUNK)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def _record(data: bytes) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(data))
    except (ValueError, RecursionError):
        raise ServerError("the prediction's output is neither an archive nor build.json") from None
