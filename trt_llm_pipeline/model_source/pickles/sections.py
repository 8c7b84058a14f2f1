"""A part of a file, read in pieces: a whole file, an entry of an archive, or bytes that are at hand."""

from __future__ import annotations

from typing import BinaryIO

_PIECE = 1 << 16


class Exhausted(Exception):
    """There are fewer bytes than were asked for."""


class Section:
    """So many bytes of a file from a place on.

    Attributes:
        size: bytes.
    """

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        self._stream, self._start, self.size = stream, start, size

    def at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` on; fewer only at the end of the section or of the file."""
        offset, end = max(offset, 0), min(offset + count, self.size)
        if offset >= end:
            return b""
        self._stream.seek(self._start + offset)
        return self._stream.read(end - offset)

    def part(self, offset: int, size: int) -> Section:
        """A section of this section. Raises `Exhausted` where it would not lie within."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise Exhausted
        return Section(self._stream, self._start + offset, size)


class Reader:
    """Reads a section from its beginning, once.

    Attributes:
        place: bytes that have been read.
    """

    def __init__(self, section: Section) -> None:
        self._section = section
        self._piece, self._at, self._next = b"", 0, 0
        self.place = 0

    def byte(self) -> int:
        """The next byte. Raises `Exhausted` at the end."""
        if self._at == len(self._piece):
            self._fill()
        value = self._piece[self._at]
        self._at += 1
        self.place += 1
        return value

    def take(self, count: int) -> bytes:
        """The next bytes. Raises `Exhausted` where there are fewer."""
        if self._at + count <= len(self._piece):
            found = self._piece[self._at : self._at + count]
            self._at += count
            self.place += count
            return found
        if count > self.left:
            raise Exhausted
        pieces = []
        while count:
            if self._at == len(self._piece):
                self._fill()
            pieces.append(self._piece[self._at : self._at + count])
            count -= len(pieces[-1])
            self._at += len(pieces[-1])
            self.place += len(pieces[-1])
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        """Passes over bytes without reading them. Raises `Exhausted` where there are fewer."""
        if count > self.left:
            raise Exhausted
        at_hand = min(count, len(self._piece) - self._at)
        self._at += at_hand
        if count > at_hand:
            self._next += count - at_hand
            self._piece, self._at = b"", 0
        self.place += count

    def line(self, most: int) -> bytes:
        """The next line without its end, or all that is left; of one longer than `most`, one byte more."""
        pieces: list[bytes] = []
        length = 0
        while True:
            end = self._piece.find(b"\n", self._at)
            piece = self._piece[self._at : len(self._piece) if end < 0 else end]
            length += len(piece)
            if length - len(piece) <= most:
                pieces.append(piece[: most + 1])
            self._at += len(piece) + (end >= 0)
            self.place += len(piece) + (end >= 0)
            if end >= 0:
                break
            try:
                self._fill()
            except Exhausted:
                break
        return b"".join(pieces)[: most + 1]

    @property
    def left(self) -> int:
        """How many bytes there still are."""
        return self._section.size - self.place

    def _fill(self) -> None:
        piece = self._section.at(self._next, _PIECE)
        if not piece:
            raise Exhausted
        self._piece, self._at = piece, 0
        self._next += len(piece)
