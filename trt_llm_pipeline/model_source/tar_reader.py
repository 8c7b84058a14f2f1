"""The tar inside what comes from the network: told apart by its first bytes, and gunzipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trt_llm_pipeline.errors import ModelSourceError

Chunk = bytes | memoryview

CHUNK = 1 << 20
_PIECE = 4 * CHUNK
_GZIP = b"\x1f\x8b"
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}
# Deflate cannot do better than about 1030; weights hardly compress at all.
MOST_RATIO = 200
_RATIO_COUNTS_FROM = 64 << 20


def uncompressed(chunks: Iterator[Chunk], shown: str) -> Iterator[Chunk]:
    """The tar itself, from a tar or a tar.gz; told apart by their first bytes.

    Raises:
        ModelSourceError: it is neither, is damaged or cut short, or expands beyond MOST_RATIO.
    """
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= 512:
            break
    if first.startswith(_GZIP):
        yield from _gunzip(_chain(first, chunks), shown)
        return
    for magic, name in _OTHERS.items():
        if first.startswith(magic):
            raise ModelSourceError(f"{shown} is {name}; model_tar_url takes a .tar or a .tar.gz")
    yield first
    yield from chunks


def _chain(first: bytes, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest


def _gunzip(chunks: Iterator[Chunk], shown: str) -> Iterator[bytes]:
    from isal import isal_zlib

    damaged: Any = isal_zlib.error  # its stub has an instance where the class is
    into, out = 0, 0
    decompressor: Any = isal_zlib.decompressobj(31)
    for chunk in chunks:
        into += len(chunk)
        data: Chunk = chunk
        more = True
        while more:
            if decompressor.eof:
                data = bytes(data).lstrip(b"\0")  # padding between or after members
                if not data:
                    break
                decompressor = isal_zlib.decompressobj(31)
            try:
                piece = decompressor.decompress(data, _PIECE)
            except damaged as error:
                raise ModelSourceError(f"{shown} is damaged: its gzip data cannot be read") from error
            out += len(piece)
            if out > _RATIO_COUNTS_FROM and out > MOST_RATIO * into:
                raise ModelSourceError(
                    f"{shown} expands to more than {MOST_RATIO} times its size, which no model does; refused"
                )
            if piece:
                yield piece
            data = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            # A full piece may leave some that is held back although all input is used up.
            more = bool(data) or len(piece) == _PIECE
    if not decompressor.eof:
        raise ModelSourceError(f"{shown} is cut short: its gzip data has no end")
