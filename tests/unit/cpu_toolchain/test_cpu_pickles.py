"""A `.bin` file can hold tensors and nothing else: no pickle runs code, in either form."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from toolchain_support import GPT_CONVERT, run_script, write_golden_config
from trt_llm_cpu.console import BadInputError
from trt_llm_cpu.torch_pickle import open_torch_file

LEGACY_HEAD = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


class Runs:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def write_zip(path: Path, structure: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", structure)
        archive.writestr("archive/version", "3")


def write_legacy(path: Path, structure: bytes) -> None:
    head = b"".join(pickle.dumps(value, protocol=2) for value in LEGACY_HEAD)
    path.write_bytes(head + structure + pickle.dumps([], protocol=2))


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_something_runs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], write: Callable[[Path, bytes], None], protocol: int
) -> None:
    marker = tmp_path / "it-ran"
    model = tmp_path / "model"
    write_golden_config(model)
    write(model / "pytorch_model.bin", pickle.dumps({"x": Runs(os.mkdir, str(marker))}, protocol=protocol))
    assert run_script(GPT_CONVERT, "-i", model, "-o", tmp_path / "out") == 1
    assert not marker.exists()
    errors = capfd.readouterr().err
    assert "pytorch_model.bin is refused" in errors
    assert "mkdir" in errors
    assert errors.count("\n") == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "opcodes",
    [
        pytest.param(b"cbuiltins\neval\n(V1\ntR.", id="GLOBAL and REDUCE"),
        pytest.param(b"(V1\nibuiltins\neval\n.", id="INST"),
        pytest.param(b"(cbuiltins\neval\nV1\no.", id="OBJ"),
        pytest.param(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", id="STACK_GLOBAL"),
        pytest.param(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", id="dotted name"),
        pytest.param(
            b"\x80\x04\x8c\x0ctorch._utils\x8c\x1a_rebuild_tensor.__globals__\x93.", id="dotted, protocol 4"
        ),
        pytest.param(b"\x80\x02\x82\x01.", id="extension registry"),
        pytest.param(b"ccollections\nnamedtuple\n.", id="another name of an allowed module"),
    ],
)
def test_no_opcode_reaches_a_name_that_is_not_a_tensors(tmp_path: Path, opcodes: bytes) -> None:
    write_zip(tmp_path / "x.bin", opcodes)
    with pytest.raises(BadInputError):
        open_torch_file(tmp_path / "x.bin")


def tensor_pickle(*, offset: int, size: tuple[int, ...], stride: tuple[int, ...], elements: int) -> bytes:
    """A table of one float32 tensor `x`, written opcode by opcode, as torch's own pickles are."""

    def number(value: int) -> bytes:
        return b"I%d\n" % value

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n" + number(elements) + b"tQ"
    call = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(size) + numbers(stride)
    )
    return b"(dVx\n" + call + b"I00\nNtRs."


def open_tensor(path: Path, data: bytes, **tensor: object) -> list[float]:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(**tensor))
        archive.writestr("archive/data/0", data)
    return open_torch_file(path).get("x").ravel().tolist()


FOUR_FLOATS = struct.pack("<4f", 0, 1, 2, 3)


def test_a_view_with_strides_and_an_offset_is_rebuilt(tmp_path: Path) -> None:
    found = open_tensor(tmp_path / "x.bin", FOUR_FLOATS, offset=1, size=(2, 1), stride=(2, 1), elements=4)
    assert found == [1.0, 3.0]


@pytest.mark.parametrize(
    ("offset", "size", "stride", "elements"),
    [
        pytest.param(0, (5,), (1,), 4, id="longer than its storage"),
        pytest.param(3, (2,), (1,), 4, id="offset beyond the end"),
        pytest.param(0, (2, 2), (4, 1), 4, id="stride beyond the end"),
        pytest.param(-1, (1,), (1,), 4, id="negative offset"),
        pytest.param(0, (2,), (-1,), 4, id="negative stride"),
        pytest.param(0, (4,), (1,), 8, id="storage longer than its data"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...], elements: int
) -> None:
    with pytest.raises(BadInputError):
        open_tensor(
            tmp_path / "x.bin", FOUR_FLOATS, offset=offset, size=size, stride=stride, elements=elements
        )


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(BadInputError, match=r"x\.bin"):
        open_torch_file(tmp_path / "x.bin")
