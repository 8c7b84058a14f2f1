"""The directory of a zip archive that every reader reads alike; any other archive is refused.

Python's `zipfile` and the reader inside torch disagree about archives with bytes before the first entry, two
entries of one name, headers that contradict each other, or a comment that looks like a directory. A check
that used one of the two would not see what the other reads. So the layout must be the plain one: entries one
after another from byte 0, the directory behind them, its end record at the end of the file.

The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from trt_llm_pipeline.model_source.pickles.sections import Exhausted, Section

LOCAL_MAGIC = b"PK\x03\x04"
_CENTRAL_MAGIC = b"PK\x01\x02"
_END_MAGIC = b"PK\x05\x06"
_END64_MAGIC = b"PK\x06\x06"
_LOCATOR_MAGIC = b"PK\x06\x07"
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MOST_ENTRIES = 1_000_000
_MOST_DIRECTORY_BYTES = 128 << 20
_ALL = 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR = 0x2041, 0x0008
_STORED, _DEFLATED = 0, 8
_ZIP64, _OTHER_NAME = 0x0001, 0x7075
_LONGEST_COMMENT = 0xFFFF


class BadZip(Exception):
    """The archive is damaged, or is not laid out as every reader expects; the text says how."""


@dataclass(frozen=True)
class Entry:
    """A file in the archive: its content is `stored` bytes at `place`, which unpack to `size`."""

    name: str
    place: int
    stored: int
    size: int
    deflated: bool


def entries(archive: Section) -> list[Entry]:
    """Every entry, in the order in which they lie.

    Raises:
        BadZip: see the module's description.
    """
    try:
        return _entries(archive)
    except (Exhausted, struct.error):
        raise BadZip("is a zip archive that is damaged or cut off") from None


def hides_zip(section: Section) -> bool:
    """Whether Python's `zipfile` would find an archive at the end of what does not begin as one."""
    tail_size = min(section.size, _END.size + _LONGEST_COMMENT)
    tail = section.at(section.size - tail_size, tail_size)
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END.size:
        return False
    end = section.size - tail_size + at
    size = _END.unpack_from(tail, at)[5]
    places = [end - size]
    locator = section.at(end - _LOCATOR.size, _LOCATOR.size)
    if locator[:4] == _LOCATOR_MAGIC:
        place64 = end - _LOCATOR.size - _END64.size
        record = section.at(place64, _END64.size)
        if record[:4] == _END64_MAGIC:
            places.append(place64 - _END64.unpack(record)[8])
    return any(section.at(place, 4) == _CENTRAL_MAGIC for place in places if place >= 0)


def content(archive: Section, entry: Entry, most: int) -> bytes:
    """An entry's bytes.

    Raises:
        BadZip: they are more than `most`, damaged, or not as many as the directory says.
    """
    if entry.size > most:
        raise BadZip(f"has {entry.name[:80]!r} of {entry.size:,} bytes")
    raw = archive.at(entry.place, entry.stored)
    if not entry.deflated:
        return raw
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(raw, entry.size + 1)
    except zlib.error:
        found = b""
    if len(found) != entry.size or not unpacker.eof or unpacker.unused_data:
        raise BadZip(f"has a damaged {entry.name[:80]!r}")
    return found


def _entries(archive: Section) -> list[Entry]:
    place, size, count = _directory(archive)
    if count > _MOST_ENTRIES or size > _MOST_DIRECTORY_BYTES:
        raise BadZip(f"is a zip archive of {count:,} entries")
    directory = archive.at(place, size)
    if len(directory) != size:
        raise Exhausted
    found: list[Entry] = []
    names: set[str] = set()
    at = next_place = 0
    for _ in range(count):
        name, entry_place, stored, unpacked, method, flags, at = _central(directory, at)
        if name.casefold() in names:
            raise BadZip(f"is a zip archive with two entries {name[:80]!r}")
        names.add(name.casefold())
        start = _local(archive, name, entry_place, stored, unpacked, method, flags)
        if entry_place < next_place:
            raise BadZip("is a zip archive whose entries overlap or are out of order")
        if entry_place > next_place + 24 * bool(found):  # 24: the longest data descriptor
            raise BadZip("is a zip archive with bytes between its entries")
        next_place = start + stored
        found.append(Entry(name, start, stored, unpacked, method == _DEFLATED))
    if at != size or not next_place <= place <= next_place + 24:
        raise BadZip("is a zip archive with bytes that belong to no entry")
    return found


def _directory(archive: Section) -> tuple[int, int, int]:
    """Place and size of the directory, and how many entries it has."""
    end = archive.size - _END.size
    magic, disk, first, here, count, size, place, comment = _END.unpack(archive.at(end, _END.size))
    if magic != _END_MAGIC or comment:
        raise BadZip("is a zip archive that is damaged or cut off, or has a comment")
    locator = archive.at(end - _LOCATOR.size, _LOCATOR.size)
    if locator[:4] == _LOCATOR_MAGIC:
        place64 = end - _LOCATOR.size - _END64.size
        _, _, where, _ = _LOCATOR.unpack(locator)
        record = _END64.unpack(archive.at(place64, _END64.size))
        old = (here, count, size, place)
        here, count, size, place = record[6:]
        if record[0] != _END64_MAGIC or where != place64 or record[1] != _END64.size - 12:
            raise BadZip("is a zip archive with two ends")
        for small, large, all_ones in zip(old, record[6:], (0xFFFF, 0xFFFF, _ALL, _ALL), strict=True):
            if small not in (large, all_ones):
                raise BadZip("is a zip archive whose two ends differ")
        disk, first, end = record[4], record[5], place64
    if disk or first or here != count or place + size != end:
        raise BadZip("is a zip archive with bytes that belong to no entry")
    return place, size, count


def _central(directory: bytes, at: int) -> tuple[str, int, int, int, int, int, int]:
    fields = _CENTRAL.unpack_from(directory, at)
    magic, _, _, flags, method, _, _, _, stored, size, named, extended, comment, disk, _, _, place = fields
    at += _CENTRAL.size
    name, extra = directory[at : at + named], directory[at + named : at + named + extended]
    at += named + extended + comment
    if magic != _CENTRAL_MAGIC or at > len(directory):
        raise Exhausted
    if disk or flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        raise BadZip("is a zip archive that is encrypted, split or compressed in an unusual way")
    stored, size, place = _wide(extra, stored, size, place)
    if method == _STORED and stored != size:
        raise BadZip("is a zip archive whose sizes contradict each other")
    return _name(name), place, stored, size, method, flags, at


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise BadZip("is a zip archive with a name that is not UTF-8") from None
    if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in name.split("/"):
        raise BadZip(f"is a zip archive with the name {name[:80]!r}")
    return name


def _wide(extra: bytes, stored: int, size: int, place: int) -> tuple[int, int, int]:
    """The three values, those that say all ones replaced by what the extra field of zip64 says."""
    wanted = [value == _ALL for value in (size, stored, place)]
    found: list[int] | None = None
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        content, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _OTHER_NAME or len(content) != length or (kind == _ZIP64 and found is not None):
            raise BadZip("is a zip archive with two names or sizes for an entry")
        if kind == _ZIP64:
            found = [value for (value,) in struct.iter_unpack("<Q", content[: length - length % 8])]
    if not any(wanted):
        return stored, size, place
    if found is None or len(found) < sum(wanted):
        raise Exhausted
    values = iter(found)
    size, stored, place = (
        next(values) if wide else value for wide, value in zip(wanted, (size, stored, place), strict=True)
    )
    return stored, size, place


def _local(archive: Section, name: str, place: int, stored: int, size: int, method: int, flags: int) -> int:
    """Where the entry's content begins; its own header must say what the directory says."""
    fields = _LOCAL.unpack(archive.at(place, _LOCAL.size))
    magic, _, its_flags, its_method, _, _, _, its_stored, its_size, named, extended = fields
    start: int = place + _LOCAL.size + named + extended
    its_name = archive.at(place + _LOCAL.size, named)
    late = bool(flags & _DESCRIPTOR)  # then sizes come behind the content
    sizes = {(its_stored, stored), (its_size, size)}
    if magic != LOCAL_MAGIC or its_name != name.encode() or its_method != method or its_flags != flags:
        raise BadZip(f"is a zip archive with two headers that differ, of {name[:80]!r}")
    if any(one not in (other, _ALL) and not (late and one == 0) for one, other in sizes):
        raise BadZip(f"is a zip archive with two sizes of {name[:80]!r}")
    archive.part(start, stored)
    return start
