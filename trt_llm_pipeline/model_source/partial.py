"""A file that is being downloaded: its bytes so far, and a record of which ranges of it are there.

The record lies beside the partial file and gains a line for each piece when the piece has been written: JSON
`[start, end, CRC-32]`. It is believed only as far as the bytes on the disk still have those checksums, so
that neither a crash of the machine nor a damaged disk brings a wrong byte into a file.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from bisect import bisect_right
from pathlib import Path

from trt_llm_pipeline.files import read_regular, write_all

# What is no larger arrives in one go; a record would cost more than it saves.
LEAST_RECORDED = 1 << 20
_SUFFIX = ".ranges"
_LARGEST_RECORD = 256 << 20
_FORMAT = "trt-llm-pipeline ranges 1"

Piece = tuple[int, int, int]


class PartialFile:
    """Opens, or goes on with, a partial file.

    Args:
        path: of the partial file.
        size: that it will have, in bytes.

    Attributes:
        pieces: what an earlier download left, as start, end and CRC-32, in order and without overlaps. Not
            checked yet.
        validator: the ETag that goes with them.
        users: how many connections write to it just now.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.users = 0
        self.pieces: list[Piece] = []
        self.validator: str | None = None
        self._recorded = size > LEAST_RECORDED
        if self._recorded:
            self.validator, self.pieces = read_pieces(path, size)
        _make_way(path, keep=bool(self.pieces))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)
        self._record: int | None = None
        self._retired = False
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        try:
            # Not where it is empty: a file that was cut to nothing ext4 writes out before it is closed.
            if os.fstat(self._file).st_size > size:
                os.ftruncate(self._file, size)
            if self.pieces:
                flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                self._record = os.open(record_of(path), flags)
                os.write(self._record, b"\n")  # ends a line that was cut off
        except BaseException:
            os.close(self._file)
            raise

    def write(self, data: memoryview, start: int) -> None:
        """Writes a piece, and records it."""
        from isal import isal_zlib

        # The system lets one thread write to a file at a time, and the others burn a core while they wait.
        with self._writing:
            write_all(self._file, data, start)
        if self._recorded:
            line = json.dumps([start, start + len(data), isal_zlib.crc32(data)])
            os.write(self._open_record(), f"{line}\n".encode())

    def read(self, into: memoryview, start: int) -> int:
        """Reads what lies there; returns how many bytes, 0 beyond its end."""
        return os.preadv(self._file, [into], start)

    def retire(self) -> None:
        """Closes it, now or when its last user is done."""
        self._retired = True
        if not self.users and self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._record is not None:
                os.close(self._record)
                self._record = None

    def release(self) -> None:
        """One user less."""
        self.users -= 1
        if self._retired:
            self.retire()

    def discard(self) -> None:
        """Removes it with its record; what still writes to it writes into the void."""
        for place in (self.path, record_of(self.path)):
            _make_way(place, keep=False)
        self.retire()

    def move_to(self, target: Path) -> None:
        """Puts the finished file in its place."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)
        if self._recorded:
            _make_way(record_of(self.path), keep=False)
        self.retire()

    def _open_record(self) -> int:
        with self._lock:
            if self._record is None:
                place = record_of(self.path)
                _make_way(place, keep=False)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                record = os.open(place, flags, 0o644)
                os.write(record, f"{json.dumps([_FORMAT, self.validator])}\n".encode())
                self._record = record
            return self._record


def _make_way(path: Path, *, keep: bool) -> None:
    """Removes whatever lies there; a regular file only where it is not to be kept."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    elif not (keep and stat.S_ISREG(mode)):
        path.unlink()


def record_of(path: Path) -> Path:
    """Where the record of a partial file's ranges is kept."""
    return path.with_name(path.name + _SUFFIX)


def recorded_bytes(path: Path, size: int) -> int:
    """How many bytes of a partial file need not be fetched again, as far as its record says."""
    return sum(end - start for start, end, _ in read_pieces(path, size)[1])


def read_pieces(path: Path, size: int) -> tuple[str | None, list[Piece]]:
    """The validator and the pieces that a partial file's record lists; nothing where it is not sound.

    Of pieces that overlap, the later one counts: what was fetched again replaces what was wrong.
    """
    try:
        lines = read_regular(record_of(path), _LARGEST_RECORD).split(b"\n")
        written = path.lstat().st_size
    except OSError:
        return None, []
    try:
        head = json.loads(lines[0])
        if not isinstance(head, list) or head[0] != _FORMAT or not isinstance(head[1], str | None):
            return None, []
    except (ValueError, IndexError):
        return None, []
    pieces: list[Piece] = []
    for line in lines[1:-1]:  # a last line without its end was cut off in writing
        piece = _parse(line)
        if piece is not None and piece[1] <= min(size, written):
            _insert(pieces, piece)
    return head[1], pieces


def _parse(line: bytes) -> Piece | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, list) or len(value) != 3 or not all(type(number) is int for number in value):
        return None
    start, end, checksum = value
    return (start, end, checksum) if 0 <= start < end <= start + (1 << 26) else None


def _insert(pieces: list[Piece], piece: Piece) -> None:
    start, end, _ = piece
    if not pieces or pieces[-1][1] <= start:
        pieces.append(piece)
        return
    first = bisect_right(pieces, start, key=lambda other: other[1])
    last = first
    while last < len(pieces) and pieces[last][0] < end:
        last += 1
    pieces[first:last] = [piece]
