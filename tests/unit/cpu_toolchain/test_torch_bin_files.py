"""`pytorch_model.bin` as torch itself writes it, in both forms, converts to the golden files."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from toolchain_support import GOLDEN, GPT_CONVERT, golden_tensors, ok, run_script, write_golden_config
from trt_llm_cpu.torch_pickle import open_torch_file

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def golden_state(prefix: str = "transformer.") -> OrderedDict[str, torch.Tensor]:
    return OrderedDict(
        (name, torch.from_numpy(value)) for name, value in golden_tensors(prefix=prefix).items()
    )


def assert_golden(directory: Path, dtype: str, ranks: str) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.bin")}
    assert found == GOLDEN["sha256"][dtype][ranks]


@FORMS
@pytest.mark.parametrize(("dtype", "degree"), [("float32", 1), ("float16", 2), ("bfloat16", 4)])
def test_a_bin_file_gives_the_golden_files(tmp_path: Path, zipped: bool, dtype: str, degree: int) -> None:
    write_golden_config(tmp_path / "m")
    torch.save(golden_state(), tmp_path / "m/pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    ok(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c", "-t", dtype, "-tp", degree)
    assert_golden(tmp_path / f"c/{degree}-gpu", dtype, f"{degree}-gpu")


@FORMS
def test_a_module_saved_with_buffers_parameters_and_a_tied_head_gives_them(
    tmp_path: Path, zipped: bool
) -> None:
    write_golden_config(tmp_path / "m")
    state = golden_state()
    for layer in range(2):
        state[f"transformer.h.{layer}.attn.bias"] = torch.tril(torch.ones(1, 1, 32, 32, dtype=torch.uint8))
        state[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    state["transformer.ln_f.weight"] = torch.nn.Parameter(state["transformer.ln_f.weight"])
    state["lm_head.weight"] = state["transformer.wte.weight"]
    state._metadata = OrderedDict({"": {"version": 1}})
    torch.save(state, tmp_path / "m/pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    ok(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c")
    assert_golden(tmp_path / "c/1-gpu", "float32", "1-gpu")


@FORMS
def test_shards_with_an_index_give_the_golden_files(tmp_path: Path, zipped: bool) -> None:
    write_golden_config(tmp_path / "m")
    weight_map = {}
    state = golden_state(prefix="")
    for number in range(2):
        file = f"pytorch_model-{number + 1:05}-of-00002.bin"
        part = OrderedDict(
            (name, value) for place, (name, value) in enumerate(state.items()) if place % 2 == number
        )
        torch.save(part, tmp_path / "m" / file, _use_new_zipfile_serialization=zipped)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "m/pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), "utf-8")
    ok(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c", "-t", "float16")
    assert_golden(tmp_path / "c/1-gpu", "float16", "1-gpu")


@FORMS
def test_every_type_and_layout_of_tensor_is_read_as_torch_reads_it(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "shared": base,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "half": base.half(),
        "double": base.double(),
        "bfloat16": base.bfloat16(),
        "long": base.long(),
        "bool": base > 3,
    }
    path = tmp_path / "x.bin"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    opened = open_torch_file(path)
    assert list(opened) == list(state)
    for name, expected in state.items():
        found = opened.get(name)
        assert found.shape == tuple(expected.shape) == opened.shape(name)
        if name == "bfloat16":
            assert found.dtype.name == "bfloat16"
            np.testing.assert_array_equal(found.astype(np.float32), expected.float().numpy())
        else:
            assert found.dtype == expected.numpy().dtype
            np.testing.assert_array_equal(found, expected.numpy())


@FORMS
def test_a_file_cut_short_is_refused_in_one_sentence(
    tmp_path: Path, zipped: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    write_golden_config(tmp_path / "m")
    path = tmp_path / "m/pytorch_model.bin"
    torch.save(golden_state(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-1000])
    assert run_script(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c") == 1
    errors = capfd.readouterr().err
    assert str(path) in errors
    assert errors.count("\n") == 1


def test_a_whole_pickled_module_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_golden_config(tmp_path / "m")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m/pytorch_model.bin")
    assert run_script(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c") == 1
    assert "only files that hold nothing but tensors are read" in capfd.readouterr().err
