"""Pickles are told apart by what they do: plain data and weights pass, whatever calls something does not."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import random
import re
import struct
import tarfile
import zipfile
from collections import Counter, OrderedDict
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.model_source.pickles import Budget, names, problem_in, problem_of, stack
from trt_llm_pipeline.model_source.pickles.machine import _RUN, Machine
from trt_llm_pipeline.model_source.pickles.sections import Reader, Section
from trt_llm_pipeline.model_source.pickles.stack import BeyondTheList, CannotGoOn
from trt_llm_pipeline.testing import weight_files

MAGIC = 0x1950A86A20F9469CFC6C
CALL = b"cbuiltins\nexec\nX\x01\x00\x00\x001\x85R."
ORDERED = b"ccollections\nOrderedDict\n)R"


def problem(content: bytes) -> str | None:
    return problem_in(io.BytesIO(content), len(content))


def weights(content: bytes) -> str | None:
    """What is wrong with a pickle, read as one of weights; damage counts."""
    machine = Machine(Reader(Section(io.BytesIO(content), 0, len(content))), weights=True)
    try:
        machine.run()
    except (BeyondTheList, CannotGoOn) as error:
        return str(error)
    return None


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return output.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def storage(key: str = "0", count: int = 4, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + b"K" + bytes([count]) + b"tQ"


def torch_file(program: bytes, **more: bytes) -> bytes:
    return zipped({"m/data.pkl": program, "m/version": b"3\n", **{f"m/{k}": v for k, v in more.items()}})


class TestWeightsPass:
    """What torch itself writes, put together without torch; see also the agreement with torch."""

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_an_archive(self, tmp_path: Path, dtype: str) -> None:
        path = tmp_path / "pytorch_model.bin"
        weight_files.write_torch_zip(path, {"a": np.ones((2, 3), dtype), "b": np.zeros(0, dtype)})
        assert problem_of(path) is None

    def test_the_older_form(self) -> None:
        program = b"\x80\x02" + ORDERED + b"(" + text("a") + storage() + b"u."
        content = pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + program
        content += pickle.dumps(["0"], 2) + b"\x04\0\0\0\0\0\0\0" + CALL  # the tensors' bytes are anything
        assert problem(content) is None

    def test_a_compressed_archive(self) -> None:
        entries = {"m/data.pkl": b"\x80\x02}.", "m/version": b"3\n"}
        assert problem(zipped(entries, zipfile.ZIP_DEFLATED)) is None

    def test_bytes_are_texts_that_are_encoded(self) -> None:
        assert weights(b"\x80\x02c_codecs\nencode\n" + text("abc") + text("latin1") + b"\x86R.") is None
        assert "_codecs.encode" in str(
            weights(b"\x80\x02c_codecs\nencode\n" + text("abc") + text("hex") + b"\x86R.")
        )

    def test_tensors_are_not_read(self, tmp_path: Path) -> None:
        """A gigabyte of them takes as long as none: the file has a hole there."""
        path = tmp_path / "m.bin"
        path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) * 2)
        with path.open("ab") as stream:
            stream.write(pickle.dumps([], 2))
            stream.truncate(1 << 30)
        budget = Budget()
        assert problem_of(path, budget) is None
        assert budget.left > (128 << 20) - 1000


class TestOtherFilesPass:
    """Files that are no weights, or plain data."""

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{}",
            b"copyright (c) 2023 somebody\nall rights reserved\n",
            b"Copyright\n",
            b"NVIDIA Open Model License\n\nI am a text.\n",
            b"c\nos\n",
            b"IQ== 0\nIg== 1\n",
            b"\x80\x02\x00\x00\x00\x00\x00\x00{}",
            b"PK\x05\x06" + bytes(18),
            gzip.compress(b"words\n" * 1000),
            gzip.compress(bytes(5 << 20)),
            gzip.compress(b"x")[:-9],
            zipped({"a.txt": b"hello", "b/c.txt": b"{}"}),
            pickle.dumps({"a": [1, 2.5, None, True, b"x", ("y", {1})]}),
            pickle.dumps([10**100, "é" * 100], 0),
        ],
        ids=map(str, count()),
    )
    def test_pass(self, content: bytes) -> None:
        assert problem(content) is None

    def test_arrays_of_numbers_do_and_of_objects_do_not(self) -> None:
        for array, good in ((np.arange(6).reshape(2, 3), True), (np.array([{}], object), False)):
            output = io.BytesIO()
            np.save(output, array, allow_pickle=True)
            assert (problem(output.getvalue()) is None) is good
            packed = io.BytesIO()
            np.savez_compressed(packed, a=array, allow_pickle=True)
            assert (problem(packed.getvalue()) is None) is good or not good

    def test_an_array_that_is_described_in_another_way(self) -> None:
        header = b"{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + CALL
        assert "numpy array" in str(problem(content))


class TestCallsAreRefused:
    """Whatever the way in which a function is asked for."""

    @pytest.mark.parametrize("head", [b"", b"\x80\x02", b"\x80\x04\x95\x20\0\0\0\0\0\0\0", b"}0", b"I010\n0"])
    def test_by_name(self, head: bytes) -> None:
        assert problem(head + CALL) == "asks for builtins.exec"

    @pytest.mark.parametrize(
        "program",
        [
            b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",
            b"\x80\x04\x8c\x04exec\x94\x8c\x08builtins\x9400h\x01h\x00\x93.",
            b"(S'1'\nibuiltins\nexec\n.",
            b"ibuiltins\nexec\n.",
            b"\x80\x02\x82\x01.",
            b"\x80\x02\x83\x01\x00.",
            b"\x80\x02\x84\x01\x00\x00\x00.",
            b"(ccollections\nOrderedDict\no.",
            b"clib-dynload._posixsubprocess\nfork_exec\n.",
            b"cos.path\nos.system\n.",
            b"C\x01x\x98" + CALL,
            b"Psomething\n0" + CALL,
            b"g0\x00x\n." + CALL,
            b"I1\n" + b"2" * 50 + CALL,
            b"I\x00?\n0" + CALL,
            b"F\x00?\n0" + CALL,
            pickle.dumps({}) + CALL,
            pickle.dumps([1], 0) * 100 + CALL,
            zipped({"a.txt": CALL}),
            zipped({"a.zip": zipped({"b.bin": CALL})}),
            zipped({"a.zip": zipped({"b.bin": CALL}, zipfile.ZIP_DEFLATED)}, zipfile.ZIP_DEFLATED),
            gzip.compress(CALL),
            gzip.compress(b"c") + gzip.compress(CALL[1:]),
            gzip.compress(CALL[:5]) + gzip.compress(CALL[5:]),
            gzip.compress(b"B\x00\x00\x10\x00" + bytes(1 << 20) + CALL),
            gzip.compress(b"B\xf6\xff\x0f\x00" + bytes((1 << 20) - 10) + CALL),
        ],
        ids=map(str, count()),
    )
    def test_in_other_ways(self, program: bytes) -> None:
        if program.startswith(b"g0"):  # a reference to nothing: no unpickler goes on
            program = b"K\x01p0\x00y\n0" + program.replace(b".", b"0", 1)
        assert problem(program) is not None

    def test_a_name_that_is_put_together_differently(self) -> None:
        """`torch` + `_utils._rebuild_tensor` reads like a name of the list, and is another one."""
        assert weights(b"\x80\x02ctorch\n_utils._rebuild_tensor\n.") is not None

    @pytest.mark.parametrize(
        ("program", "what"),
        [
            (ORDERED + b"}R", "no function of the list"),
            (b"ctorch\nfloat32\n)R", "no function of the list"),
            (b"ctorch\nFloatStorage\n)R", "no function of the list"),
            (b"ccollections\nOrderedDict\n}R", "no arguments"),
            (b"ccollections\nOrderedDict\n}b", "sets attributes"),
            (b"ctorch._utils\n_rebuild_tensor\n}b", "sets attributes"),
            (b"]}b", "sets attributes"),
            (b"ctorch._utils\n_rebuild_tensor\n)\x81", "no class of the list"),
            (b"ctorch\nTensor\n)RK\x01K\x02s", "puts items"),
            (b"]K\x01K\x02s", "puts items"),
            (b"}K\x01a", "puts items"),
            (text("module") + b"\x85Q", "no storage"),
            (b"K\x01Q", "no storage"),
            (storage(kind=b"ctorch\nfloat32\n"), "describes a storage"),
            (storage(count=1) + storage(count=2), "in two ways"),
            (b"I1\n", "opcode 0x49"),
            (b"\x8c\x01a", "opcode 0x8c"),
            (b"\x95\0\0\0\0\0\0\0\0", "opcode 0x95"),
        ],
    )
    def test_what_weights_do_not_do(self, program: bytes, what: str) -> None:
        assert what in str(weights(b"\x80\x02" + program + b"."))


class TestArchivesThatCanBeReadInTwoWays:
    """Each is a way around a scanner that has been published."""

    GOOD = torch_file(b"\x80\x02" + storage() + b".", **{"data/0": bytes(16)})

    def test_this_one_can_not(self) -> None:
        assert problem(self.GOOD) is None

    @pytest.mark.parametrize(
        "content",
        [
            b"\x80\x02}." + GOOD,
            GOOD + b"x",
            GOOD[:-1],
            GOOD[:-22],
            GOOD.replace(b"m/data.pkl", b"m/DATA.pkl", 1),
            GOOD.replace(b"m/version", b"m/data.pkl"),
            GOOD[:-2] + b"\x05\x00hello",
            torch_file(b"\x80\x02}.") + GOOD,
            torch_file(b"\x80\x02}.", **{"DATA.PKL": CALL}),
            torch_file(b"\x80\x02}.", **{"constants.pkl": b""}),
            torch_file(b"\x80\x02}.", **{"code/m.py": b""}),
            torch_file(b"\x80\x02}.", **{"extra": CALL}),
            torch_file(b"\x80\x02}." + CALL),
            torch_file(b"\x80\x02" + storage() + b".", **{"data/0": bytes(15)}),
            torch_file(b"\x80\x02" + storage() + b"."),
            zipped({"m/data.pkl": b"\x80\x02}.", "n/data.pkl": CALL}),
            zipped({"n/version": b"3", "m/data.pkl": CALL}),
            zipped({"../m/data.pkl": b"\x80\x02}."}),
        ],
        ids=map(str, count()),
    )
    def test_is_refused(self, content: bytes) -> None:
        assert problem(content) is not None

    def test_flags_and_methods_that_only_one_reader_minds(self) -> None:
        for place, value in ((6, 1), (8, 99), (8, 8)):  # encrypted, unknown, deflated
            content = bytearray(self.GOOD)
            content[place] = value
            assert problem(bytes(content)) is not None
            central = content.index(b"PK\x01\x02")
            content[central + place + 2] = value
            assert problem(bytes(content)) is not None

    def test_a_tar_comes_first(self) -> None:
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("pickle"))
        assert "tar archive" in str(problem(output.getvalue()))

    def test_deeper_than_anybody_packs(self) -> None:
        content = b"hello"
        for _ in range(6):
            content = zipped({"a": content})
        assert "too deep" in str(problem(content))


class TestLongLines:
    """A text that begins like a pickle of protocol 0 is none where no unpickler could get further."""

    HEX = "5eed" * 5000

    @pytest.mark.parametrize("head", ["", "c", "(c", "Nc", "Np", "Ng", "]p", "(i", "cos\n", "c" * 10])
    @pytest.mark.parametrize("tail", ["", "\n", "\n.", "\nsystem\n."])
    def test_a_text_of_hexadecimal_digits_is_none(self, head: str, tail: str) -> None:
        content = f"{head}{self.HEX}{tail}".encode()
        if head == "cos\n":
            assert problem(content) == "asks for a name of more than 1,024 characters"
            return
        assert problem(content) is None
        with pytest.raises(Exception, match=r"."):
            pickle.loads(content)

    def test_any_such_text_is_none(self) -> None:
        rng = random.Random(1)
        for _ in range(300):
            assert problem(rng.randbytes(2000).hex().encode()) is None

    def test_what_an_unpickler_might_take_is_refused(self) -> None:
        zeros = b"0" * 2000
        for content in (b"Np" + zeros + b"1\n" + CALL, b"Np1" + b"\0" + b"x" * 2000 + b"\n" + CALL):
            assert problem(content) is not None
        for module in ("a." * 1000 + "b", "x" * 255 + "." + "y" * 900):
            found = problem(b"c" + module.encode() + b"\nrun\n.")
            assert (found is not None) == all(len(part) < 256 for part in module.split("."))
        assert problem(b"c" + b"a." * 1000 + b"b\nrun\n.") is not None


class TestBounds:
    """No file keeps the check busy, or fills the memory."""

    def test_many_values(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stack, "MOST_VALUES", 1000)
        assert problem(b"N" * 1000 + b"0" * 1000) is None
        for content in (b"N" * 1001, b"(" * 1001, b"Nq\x00" + b"h\x00" * 1000):
            assert "more than 1,000 values" in str(problem(content))
        numbered = b"".join(b"r" + struct.pack("<I", at) for at in range(1001))
        assert "remembers more than" in str(problem(b"N" + numbered))

    def test_many_pickles(self) -> None:
        content = pickle.dumps(1) * 1000
        assert problem_in(io.BytesIO(content), len(content), Budget(left=len(content))) is None
        assert problem_in(io.BytesIO(content), len(content), Budget(left=len(content) - 1)) is not None

    def test_a_bomb(self) -> None:
        content = zipped({f"{at}.bin": bytes(1 << 20) for at in range(8)}, zipfile.ZIP_DEFLATED)
        assert len(content) < 20_000
        assert problem_in(io.BytesIO(content), len(content), Budget(left=8 << 20)) is None
        assert problem_in(io.BytesIO(content), len(content), Budget(left=7 << 20)) is not None


def test_every_opcode_is_known() -> None:
    assert {ord(opcode.code) for opcode in pickletools.opcodes} == set(_RUN)


def test_no_name_of_the_list_is_another_one_to_python() -> None:
    """For old protocols, Python replaces some names before it looks them up."""
    from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

    assert not [name for name in names.ALLOWED if name in NAME_MAPPING or name[0] in IMPORT_MAPPING]
    assert IMPORT_MAPPING["__builtin__"] == "builtins"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)
#: Opcodes with arguments that they can use, so that many random programs get somewhere.
GOOD = [
    *(
        b"(",
        b"N",
        b"]",
        b"}",
        b")",
        b"0",
        b"1",
        b"2",
        b".",
        b"\x88",
        b"K\x01",
        b"G" + bytes(8),
        b"\x8a\x01\x01",
    ),
    *(
        b"q\x00",
        b"h\x00",
        b"\x94",
        b"p0\n",
        b"g0\n",
        b"g0\x00\n",
        b"\x80\x02",
        b"\x80\x04",
        b"\x95" + bytes(8),
    ),
    *(b"\x8c\x02os", b"\x8c\x06system", b"Vos\n", b"Vsystem\n", b"X\x02\0\0\0os", b"U\x02os", b"C\x01x"),
    *(b"I1\n", b"I010\n", b"I\x0b1\n", b"I\x00?\n", b"L1L\n", b"F1\n", b"Fnan\n", b"S'a'\n", b"Q", b"P\n"),
    *(b"cbuiltins\nset\n", b"ccollections\nOrderedDict\n", b"ctorch\nTensor\n"),
    *(b"\x85", b"\x86", b"\x87", b"t", b"l", b"d", b"a", b"e", b"s", b"u", b"\x8f", b"\x90", b"\x91"),
    *(b"b", b"R", b"o", b"\x81", b"\x92", b"\x97", b"\x98"),
]
BAD = [b"cos\nsystem\n", b"\x93", b"ios\nsystem\n", b"(ios\nsystem\n", b"\x82\x01"]
ANY = [bytes([ord(opcode.code)]) for opcode in pickletools.opcodes]
PARTS = st.lists(st.sampled_from(GOOD) | st.sampled_from(ANY) | st.binary(max_size=3), max_size=15)
PROGRAMS = st.tuples(PARTS.map(b"".join), st.sampled_from(BAD), st.sampled_from(GOOD)).map(b"".join)


@given(PLAIN, st.integers(0, 5))
def test_plain_data_passes_in_every_protocol(value: Any, protocol: int) -> None:
    # bytes and sets of old protocols are made by calling something
    assert problem(pickle.dumps(value, protocol)) is None or protocol < 3


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.floats() | st.none()))
def test_what_torch_would_pickle_of_plain_data_is_of_weights(value: dict[str, Any]) -> None:
    for kind in (dict, OrderedDict):
        assert weights(pickle.dumps(kind(value), 2)) is None or any(
            isinstance(each, int) and each.bit_length() > 2000 for each in value.values()
        )


MOST_BYTES = 1 << 20
#: With these C's takes as much memory as a program asks for: a place in its memo, a byte array.
GREEDY = re.compile(rb"r|\x96|p[^\n]{6}")
HARMLESS = {
    ("builtins", "set"): set,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
}


class PythonsOwn(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Python's own, but for a byte array longer than what follows: that it would make first, of any size."""

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > MOST_BYTES:
            raise pickle.UnpicklingError("pickle data was truncated")
        self.append(bytearray(self.read(size)))

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


def reached(unpickler: type, content: bytes) -> list[str]:
    """What a real unpickler asks for beyond the list, until it fails or ends."""
    asked: list[str] = []

    class Trap(unpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in HARMLESS:
                return HARMLESS[module, name]
            if names.modern(module, name) in names.ALLOWED:
                return lambda *_: None
            if not module or not module.isprintable() or " " in module or "/" in module:
                raise ModuleNotFoundError(module)
            asked.append(f"{module}.{name}")
            raise pickle.UnpicklingError(name)

    with suppress(Exception):  # most random programs fail somehow
        Trap(io.BytesIO(content)).load()
    return asked


@pytest.mark.parametrize("unpickler", [PythonsOwn, pickle.Unpickler])
def test_the_trap_is_one(unpickler: type) -> None:
    assert reached(unpickler, CALL) == ["builtins.exec"]
    assert reached(unpickler, ORDERED + b".") == []


@given(PROGRAMS)
def test_whatever_a_real_unpickler_reaches_is_refused(content: bytes) -> None:
    """Random programs of opcodes: the check raises nothing, and misses nothing that Python's own finds."""
    found = problem(content)
    asked = reached(PythonsOwn, content)
    if not GREEDY.search(content):
        asked += reached(pickle.Unpickler, content)
    assert not asked or found is not None, asked


@given(st.binary(max_size=200), st.integers(0, 150), st.binary(max_size=4))
def test_a_damaged_archive_is_refused_or_harmless(tail: bytes, at: int, change: bytes) -> None:
    content = bytearray(torch_file(b"\x80\x02" + storage() + b".", **{"data/0": bytes(16)}))
    content[at : at + len(change)] = change
    found = problem(bytes(content) + tail)
    assert found is None or isinstance(found, str)
