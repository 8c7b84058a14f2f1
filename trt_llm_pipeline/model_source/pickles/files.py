"""Whether a file makes an unpickler run anything: told by its content, whatever its name is.

What torch reads as weights may hold what `torch.load(weights_only=True)` allows and nothing else, in both of
its forms: a zip archive (since 1.6), and before that five pickles in a row with the tensors' bytes behind
them. Any other file may hold plain data in a pickle, or be none. Scripts find weights by names that a
repository chooses (`pytorch_model.bin.index.json` says which), so every file counts.
"""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trt_llm_pipeline.model_source.pickles import zip_layout
from trt_llm_pipeline.model_source.pickles.machine import Machine
from trt_llm_pipeline.model_source.pickles.sections import Reader, Section
from trt_llm_pipeline.model_source.pickles.stack import (
    MOST_BYTES,
    BeyondTheList,
    BreaksOff,
    CannotGoOn,
    Value,
)
from trt_llm_pipeline.model_source.pickles.zip_layout import BadZip, Entry

#: First of the five pickles, and how many there are: torch/serialization.py.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5
#: In an archive that torch wrote, beside `data.pkl` and what is in `data/`: all of it is read as text.
_TORCH_NOTES = frozenset(
    {"version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment"}
)
_MOST_NOTE_BYTES = 1 << 16
_DEEPEST = 3  # archives within archives
_LONGEST_HEADER = 1 << 16
_HEAD_BYTES = 1 << 20  # of what is compressed
_GZIP = b"\x1f\x8b"
_NUMPY = b"\x93NUMPY"
#: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, as numpy itself writes it.
_NUMBERS = re.compile(
    rb"\{'descr': '[<>|=][?biufcSU]\d*', 'fortran_order': (True|False), 'shape': \([\d, ]*\), \}\s*"
)
_TORCHSCRIPT = "constants.pkl"


@dataclass
class Budget:
    """How much may be read and unpacked in all, so that no repository keeps the check busy for long.

    Attributes:
        left: bytes of pickles and of what is unpacked.
    """

    left: int = 128 << 20

    def spend(self, count: int) -> None:
        """Raises `BeyondTheList` where it is used up."""
        self.left -= count
        if self.left < 0:
            raise BeyondTheList("has more pickles than can be checked")


def problem_of(path: Path, budget: Budget | None = None) -> str | None:
    """What the file would make an unpickler do that no file of weights needs; None where there is nothing.

    Reads the pickles in it, a few kilobytes of most files, and no tensor.

    Args:
        path: the file.
        budget: shared by the files of a model.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return problem_in(stream, path.stat().st_size, budget)


def problem_in(stream: BinaryIO, size: int, budget: Budget | None = None) -> str | None:
    """The same for what a stream has, from its beginning on."""
    try:
        _examine(Section(stream, 0, size), budget or Budget(), 0)
    except (BeyondTheList, BadZip) as found:
        return str(found)
    return None


def _examine(section: Section, budget: Budget, depth: int, *, whole: bool = True) -> None:
    head = section.at(0, tarfile.BLOCKSIZE)
    if depth > _DEEPEST:
        raise BadZip("has archives within archives, too deep to be looked into")
    if _is_tar(head):  # before all else: torch tries it first
        raise BeyondTheList("is a tar archive, which torch before 0.1.10 and NeMo put pickles into")
    if head.startswith(zip_layout.LOCAL_MAGIC):
        _examine_zip(section, budget, depth)
    elif zip_layout.hides_zip(section):
        raise BadZip("is a zip archive with something before it")
    elif head.startswith(_GZIP):
        _examine_gzip(section, budget, depth)
    elif head.startswith(_NUMPY):
        _examine_array(section)
    else:
        _examine_pickles(section, budget, whole=whole)


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _examine_zip(section: Section, budget: Budget, depth: int) -> None:
    found = zip_layout.entries(section)
    if any(entry.name.casefold().endswith(("data.pkl", _TORCHSCRIPT)) for entry in found):
        _examine_torch_archive(section, found, budget)
        return
    for entry in found:
        if entry.deflated:
            budget.spend(entry.size)
            content = zip_layout.content(section, entry, MOST_BYTES)
            _examine(_section(content), budget, depth + 1)
        else:
            _examine(section.part(entry.place, entry.stored), budget, depth + 1)


def _section(content: bytes) -> Section:
    return Section(io.BytesIO(content), 0, len(content))


def _examine_torch_archive(section: Section, found: list[Entry], budget: Budget) -> None:
    root = found[0].name.partition("/")[0]  # as torch's reader finds it
    program: Entry | None = None
    lengths: dict[str, int] = {}
    for entry in found:
        top, _, name = entry.name.partition("/")
        if top != root:
            raise BadZip(f"is a torch archive with {entry.name[:80]!r} outside of its folder")
        if name.startswith("data/") and name.count("/") == 1:
            lengths[name.removeprefix("data/")] = entry.size
        elif name == "data.pkl":
            program = entry
        elif name == _TORCHSCRIPT or name.startswith("code/"):
            raise BeyondTheList("is a TorchScript program, and no weights")
        elif name not in _TORCH_NOTES or entry.size > _MOST_NOTE_BYTES:
            raise BadZip(f"is a torch archive with {entry.name[:80]!r}, which torch does not write")
    if program is None:
        raise BadZip("is a torch archive without a data.pkl")
    budget.spend(program.size)
    reader = Reader(_section(zip_layout.content(section, program, MOST_BYTES)))
    machine = Machine(reader, weights=True)
    _run(machine)
    if reader.left:
        raise BeyondTheList("has something behind its pickle")
    for key, length in machine.storages.items():
        if lengths.get(key) != length:
            raise BeyondTheList(f"has another length of storage {key[:20]} than its pickle says")


def _run(machine: Machine) -> None:
    """Reads a pickle of weights, which must not be damaged either."""
    try:
        machine.run()
    except CannotGoOn as damage:
        raise BeyondTheList(f"is damaged: {damage}") from None


def _examine_pickles(section: Section, budget: Budget, *, whole: bool) -> None:
    """One pickle after another, as a script might read them."""
    reader = Reader(section)
    while reader.left:
        start = reader.place
        machine = Machine(reader, weights=False)
        try:
            machine.run()
        except CannotGoOn as end:
            if whole or (reader.left and not isinstance(end, BreaksOff)):
                return
            raise BeyondTheList("is a compressed pickle that is too large to be looked into") from None
        budget.spend(reader.place - start)
        if machine.result == Value("int", _LEGACY_MAGIC):
            for _ in range(_LEGACY_PICKLES - 1):
                _run(Machine(reader, weights=True))
            budget.spend(reader.place - start)
            return


def _examine_gzip(section: Section, budget: Budget, depth: int) -> None:
    """What comes first of what is compressed; a pickle that does not end within that is refused."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(section.at(0, _HEAD_BYTES), _HEAD_BYTES)
    except zlib.error:
        return
    budget.spend(len(content))
    more = unpacker.unused_data or section.size > _HEAD_BYTES or len(content) == _HEAD_BYTES
    _examine(_section(content), budget, depth + 1, whole=not more)


def _examine_array(section: Section) -> None:
    """A numpy array of numbers or texts; one of Python's objects is a pickle behind this header."""
    wide = section.at(6, 1) != b"\x01"
    length = int.from_bytes(section.at(8, 4 if wide else 2), "little")
    header = section.at(12 if wide else 10, min(length, _LONGEST_HEADER))
    if not _NUMBERS.fullmatch(header):
        raise BeyondTheList("is a numpy array of something other than numbers, which may be a pickle")
