"""The FT checkpoint is byte for byte NVIDIA's, whatever file the weights came in."""

from __future__ import annotations

import configparser
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from toolchain_support import GOLDEN, GPT_CONVERT, golden_tensors, ok, run_script, write_golden_config

CASES = [(dtype, ranks) for dtype, by_rank in GOLDEN["sha256"].items() for ranks in by_rank]


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.bin")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("golden")
    write_golden_config(directory)
    save_file(golden_tensors(), directory / "model.safetensors")
    return directory


@pytest.mark.parametrize(("dtype", "ranks"), CASES)
def test_every_file_has_the_golden_sha256(model: Path, tmp_path: Path, dtype: str, ranks: str) -> None:
    degree = ranks.removesuffix("-gpu")
    ok(GPT_CONVERT, "-i", model, "-o", tmp_path, "-tp", degree, "-t", dtype)
    assert digests(tmp_path / ranks) == GOLDEN["sha256"][dtype][ranks]


def test_the_default_is_float32_for_one_rank(model: Path, tmp_path: Path) -> None:
    ok(GPT_CONVERT, "--in-file", model, "--out-dir", tmp_path)
    assert digests(tmp_path / "1-gpu") == GOLDEN["sha256"]["float32"]["1-gpu"]


def test_names_without_a_prefix_and_buffers_give_the_same_files(tmp_path: Path) -> None:
    write_golden_config(tmp_path / "m")
    buffers = {f"h.{n}.attn.bias": np.tril(np.ones((1, 1, 32, 32), np.uint8)) for n in range(2)}
    buffers |= {f"h.{n}.attn.masked_bias": np.array(-1e4, np.float32) for n in range(2)}
    save_file(golden_tensors(prefix="") | buffers, tmp_path / "m/model.safetensors")
    ok(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c")
    assert digests(tmp_path / "c/1-gpu") == GOLDEN["sha256"]["float32"]["1-gpu"]


def test_shards_with_an_index_give_the_same_files(tmp_path: Path) -> None:
    write_golden_config(tmp_path / "m")
    tensors = golden_tensors()
    weight_map = {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        part = {name: value for place, (name, value) in enumerate(tensors.items()) if place % 3 == number}
        save_file(part, tmp_path / "m" / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "m/model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), "utf-8")
    ok(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c", "-tp", 2, "-t", "bfloat16")
    assert digests(tmp_path / "c/2-gpu") == GOLDEN["sha256"]["bfloat16"]["2-gpu"]


def test_an_untied_head_is_written_whole(tmp_path: Path) -> None:
    write_golden_config(tmp_path / "m", tie_word_embeddings=False)
    head = np.arange(96 * 48, dtype=np.float32).reshape(96, 48)
    save_file(golden_tensors() | {"lm_head.weight": head}, tmp_path / "m/model.safetensors")
    ok(GPT_CONVERT, "-i", tmp_path / "m", "-o", tmp_path / "c", "-tp", 2)
    assert (tmp_path / "c/2-gpu/model.lm_head.weight.bin").read_bytes() == head.tobytes()


def test_config_ini_holds_the_arguments_the_model_and_the_storage_type(model: Path, tmp_path: Path) -> None:
    ok(GPT_CONVERT, "-i", model, "-o", tmp_path, "-tp", 2, "-t", "float16")
    parser = configparser.ConfigParser()
    parser.read(tmp_path / "2-gpu/config.ini")
    assert parser.sections() == ["gpt"]
    section = parser["gpt"]
    assert section["in_file"] == str(model)
    assert section["tensor_parallelism"] == "2"
    assert section["storage_type"] == section["storage_dtype"] == "float16"
    assert section["multi_query_mode"] == "False"
    assert section["smoothquant"] == "None"
    for key in ("n_embd", "n_head", "n_layer", "n_positions", "vocab_size", "activation_function"):
        assert section[key] == str(GOLDEN["config"][key])


def test_a_failed_conversion_leaves_no_config_ini(model: Path, tmp_path: Path) -> None:
    ok(GPT_CONVERT, "-i", model, "-o", tmp_path)
    assert (tmp_path / "1-gpu/config.ini").exists()
    blocked = tmp_path / "1-gpu/model.layers.1.mlp.dense_4h_to_h.bias.bin"
    blocked.unlink()
    blocked.mkdir()
    assert run_script(GPT_CONVERT, "-i", model, "-o", tmp_path) == 1
    assert not (tmp_path / "1-gpu/config.ini").exists()
