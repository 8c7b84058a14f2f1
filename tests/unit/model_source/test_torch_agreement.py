"""torch's own reader of weights and the check agree, on what torch saves and on what it refuses."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections import Counter, OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import _weights_only_unpickler

from trt_llm_pipeline.model_source.pickles import names, problem_in

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64]
DTYPES += [torch.float8_e4m3fn, torch.uint16]
FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older form"])


class Tagged(torch.Tensor):
    """A subclass of somebody's own."""


class Reduces:
    """What every attack begins with."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def saved(value: object, zipped: bool) -> bytes:
    output = io.BytesIO()
    torch.save(value, output, _use_new_zipfile_serialization=zipped)
    return output.getvalue()


def problem(content: bytes) -> str | None:
    return problem_in(io.BytesIO(content), len(content))


def torch_reads(content: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # noqa: BLE001  torch raises what it pleases for what is damaged
        return False
    return True


def with_attribute() -> torch.Tensor:
    tensor = torch.ones(2)
    tensor.note = "kept"  # type: ignore[attr-defined]
    return tensor


def views() -> dict[str, torch.Tensor]:
    whole = torch.arange(12.0)
    return {"whole": whole, "part": whole[2:8:2], "turned": whole.reshape(3, 4).t()}


OF_TORCH = {
    "state of a layer": lambda: torch.nn.Linear(2, 3).state_dict(),
    "parameters": lambda: [torch.nn.Parameter(torch.ones(2), flag) for flag in (True, False)],
    "every dtype": lambda: {str(dtype): torch.ones(3).to(dtype) for dtype in DTYPES},
    "views": views,
    "empty and scalar": lambda: [torch.empty(0), torch.tensor(1.5), torch.empty(2, 0, 3)],
    "sparse": lambda: torch.eye(3).to_sparse(),
    "on no device": lambda: torch.ones(2, device="meta"),
    "attributes": with_attribute,
    "a storage": lambda: torch.ones(3).untyped_storage(),
    "plain data": lambda: [None, 10**30, 1.5, ("a", b"b"), {"l": True}, bytearray(b"x")],
    "facts": lambda: [torch.Size([1, 2]), torch.device("cpu"), torch.float16, torch.strided, 1 + 2j, {1, 2}],
    "mappings": lambda: [OrderedDict(a=1), Counter("aab")],
    "a thousand tensors": lambda: {str(at): torch.ones(1) for at in range(1000)},
}
#: Of newer kinds, the older form is written and cannot be read.
TORCH_CANNOT_READ = {("every dtype", False), ("a storage", False)}
BEYOND = {
    "a whole module": lambda: torch.nn.Linear(2, 2),
    "a subclass of one's own": lambda: torch.ones(2).as_subclass(Tagged),
    "a call": Reduces,
    "a call deep inside": lambda: {"a": [OrderedDict(b=(Reduces(),))]},
    "empty bytes": lambda: b"",
    "a function": lambda: os.system,
    "a slice": lambda: slice(1, 2),
}


def test_the_list_is_torchs() -> None:
    assert {".".join(name) for name in names.ALLOWED} == set(_weights_only_unpickler._get_allowed_globals())


def test_elements_have_torchs_sizes() -> None:
    for (module, name), size in names.STORAGES.items():
        if name != "UntypedStorage":
            kind = _weights_only_unpickler._get_allowed_globals()[f"{module}.{name}"]
            assert (
                size == torch.empty(0, dtype=kind.dtype).element_size() if "Q" not in name else size in (1, 4)
            )


@FORMS
@pytest.mark.parametrize("what", OF_TORCH)
def test_of_what_torch_saves_nothing_is_refused(what: str, zipped: bool) -> None:
    content = saved(OF_TORCH[what](), zipped)
    assert torch_reads(content) or (what, zipped) in TORCH_CANNOT_READ
    assert problem(content) is None


@FORMS
@pytest.mark.parametrize("what", BEYOND)
def test_what_torch_refuses_is_refused(what: str, zipped: bool) -> None:
    content = saved(BEYOND[what](), zipped)
    assert not torch_reads(content)
    assert problem(content) is not None


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_protocols_are_refused_as_torch_does(protocol: int) -> None:
    output = io.BytesIO()
    torch.save({"a": "b" * 300, "c": ("d",) * 4}, output, pickle_protocol=protocol)
    assert torch_reads(output.getvalue()) is (problem(output.getvalue()) is None)


def test_torchscript_is_refused() -> None:
    output = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), output)
    assert "TorchScript" in str(problem(output.getvalue()))


#: What a program of weights consists of, with arguments that are right, wrong, and elsewhere right.
PARTS = [
    *(
        b"(",
        b")",
        b"]",
        b"}",
        b"N",
        b"\x88",
        b"\x89",
        b"K\x01",
        b"M\x01\x00",
        b"J\x01\0\0\0",
        b"G" + bytes(8),
    ),
    *(b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"q\x00", b"h\x00", b"q\x01", b"h\x01"),
    *(
        b"R",
        b"b",
        b"\x81",
        b"Q",
        b"\x8f",
        b"X\x01\0\0\0a",
        b"U\x01a",
        b"\x8a\x01\x01",
        b"I1\n",
        b"0",
        b"\x93",
    ),
    *(b"ccollections\nOrderedDict\n", b"c__builtin__\nset\n", b"cbuiltins\neval\n", b"ctorch\nSize\n"),
    *(b"ctorch\nFloatStorage\n", b"ctorch\nfloat32\n", b"ctorch._utils\n_rebuild_tensor_v2\n"),
    *(b"ctorch.nn.parameter\nParameter\n", b"cos\nsystem\n", b"c_codecs\nencode\n"),
    b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ",
]


@given(st.lists(st.sampled_from(PARTS), max_size=12))
def test_nothing_passes_that_torch_calls_unsafe(parts: list[bytes]) -> None:
    """Random programs in an archive: where torch's reader says no to an opcode or a name, the check does."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02" + b"".join(parts) + b".")
        archive.writestr("m/version", b"3\n")
        archive.writestr("m/data/0", bytes(8))
    content = output.getvalue()
    found = problem(content)
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError:
        assert found is not None
    except Exception:  # noqa: BLE001  damaged in a way that says nothing of safety
        pass
