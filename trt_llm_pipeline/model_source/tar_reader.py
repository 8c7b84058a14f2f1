"""The tar inside what comes from the network: told apart by its first bytes, and gunzipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trt_llm_pipeline.errors import ModelSourceError

Chunk = bytes | memoryview

CHUNK = 1 << 20
_PIECE = 4 * CHUNK
# Of what follows the end of a gzip member, zlib returns a copy. A new member is therefore given a little at
# first, then twice as much each time: the copies stay in proportion to what the members hold.
_FIRST_STEP = 512
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
        left, step = memoryview(chunk), len(chunk)
        piece = b""
        # A full piece may leave some that is held back although all input is used up.
        while left or len(piece) == _PIECE:
            if decompressor.eof:
                left = _without_padding(left)
                if not left:
                    break
                decompressor, step = isal_zlib.decompressobj(31), _FIRST_STEP
            given = left[:step]
            try:
                piece = decompressor.decompress(given, _PIECE)
            except damaged as error:
                raise ModelSourceError(f"{shown} is damaged: its gzip data cannot be read") from error
            out += len(piece)
            if out > _RATIO_COUNTS_FROM and out > MOST_RATIO * into:
                raise ModelSourceError(
                    f"{shown} expands to more than {MOST_RATIO} times its size, which no model does; refused"
                )
            if piece:
                yield piece
            unused = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            left = left[len(given) - len(unused) :]
            step *= 2
    if not decompressor.eof:
        raise ModelSourceError(f"{shown} is cut short: its gzip data has no end")


def _without_padding(data: memoryview) -> memoryview:
    """What follows the zeros that may stand between or after gzip members."""
    place = 0
    while place < len(data):
        window = bytes(data[place : place + _FIRST_STEP])
        rest = len(window.lstrip(b"\0"))
        place += len(window) - rest
        if rest:
            break
    return data[place:]
