"""What is not supported exits 2 and says what is; what is missing or damaged exits 1 and is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from toolchain_support import (
    GPT_BUILD,
    GPT_CONVERT,
    GPT_CONVERT_UNIFIED,
    LLAMA_BUILD,
    LLAMA_CONVERT,
    RUN,
    TRTLLM_BUILD,
    ok,
    run_script,
)

from trt_llm_pipeline.testing import models

QUANTIZE = "examples/quantization/quantize.py"
LLAMA_CONVERT_071 = "examples/llama/hf_llama_convert.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 and a Llama, and checkpoints of one and of two ranks of each."""
    root = tmp_path_factory.mktemp("refusals")
    models.make_gpt2(root / "gpt", vocab_size=300, positions=32)
    models.make_llama(root / "llama", vocab_size=300)
    for ranks in (1, 2):
        ok(GPT_CONVERT, "-i", root / "gpt", "-o", root / "ft", "-tp", ranks)
        for script, family in ((GPT_CONVERT_UNIFIED, "gpt"), (LLAMA_CONVERT, "llama")):
            out = root / f"{family}-{ranks}"
            ok(script, "--model_dir", root / family, "--output_dir", out, "--tp_size", ranks)
    return root


def error_of(capfd: pytest.CaptureFixture[str], script: str, *arguments: object, code: int) -> str:
    """The one sentence that a script ends with; asserts its exit code and that there is nothing else."""
    capfd.readouterr()
    assert run_script(script, *arguments) == code
    errors = capfd.readouterr().err
    assert errors.startswith(f"{Path(script).name}: error: "), errors
    assert errors.count("\n") == 1, errors
    return errors


GPT = ("-i", "{work}/gpt", "-o", "{tmp}")
FT = ("--model_dir", "{work}/ft/1-gpu", "--output_dir", "{tmp}")
LLAMA = ("--model_dir", "{work}/llama", "--output_dir", "{tmp}")
CHECKPOINT = ("--checkpoint_dir", "{work}/llama-1", "--output_dir", "{tmp}")


@pytest.mark.parametrize(
    ("script", "arguments", "parts"),
    [
        (GPT_CONVERT, (*GPT, "--smoothquant", "0.5"), ("--smoothquant", "float32, float16")),
        (GPT_CONVERT, (*GPT, "--calibrate-kv-cache"), ("--calibrate-kv-cache", "float32")),
        (GPT_CONVERT, (*GPT, "--model", "starcoder"), ("starcoder", "gpt2 is")),
        (GPT_CONVERT, (*GPT, "-tp", "3"), ("3 does not divide 2 attention heads", "supported here: 1, 2")),
        (GPT_CONVERT, (*GPT, "-tp", "0"), ("0 does not divide", "supported here: 1, 2")),
        (GPT_CONVERT, ("-i", "{work}/llama", "-o", "{tmp}"), ("llama model", "gpt2")),
        (GPT_BUILD, (*FT, "--world_size", "2"), ("--world_size: 2", "a CPU engine has one rank")),
        (GPT_BUILD, ("--model_dir", "{work}/ft/2-gpu"), ("tensor parallelism 2", "one rank")),
        (GPT_BUILD, (*FT, "--use_smooth_quant"), ("SmoothQuant", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--int8_kv_cache"), ("int8 KV cache", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--enable_fp8"), ("FP8", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--fp8_kv_cache"), ("FP8 KV cache", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--use_lora_plugin"), ("LoRA", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--per_channel"), ("--use_smooth_quant", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--per_token"), ("--use_smooth_quant", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--weight_only_precision", "int8"), ("--use_weight_only",)),
        (GPT_BUILD, (*FT, "--use_weight_only", "--weight_only_precision", "int4"), ("int4", "int8")),
        (GPT_BUILD, (*FT, "--max_beam_width", "4"), ("--max_beam_width: 4", "1 is supported")),
        (GPT_BUILD, (*FT, "--max_batch_size", "0"), ("--max_batch_size: must be at least 1",)),
        (GPT_BUILD, (*FT, "--multi_query_mode"), ("--multi_query_mode", "GPT-2")),
        (GPT_BUILD, (*FT, "--rotary_pct", "0.5"), ("--rotary_pct", "GPT-2")),
        (GPT_BUILD, (*FT, "--max_draft_len", "5"), ("draft tokens", "leave their options at 0")),
        (GPT_BUILD, (*FT, "--lora_target_modules", "attn_qkv"), ("LoRA", "int8 weight-only")),
        (GPT_BUILD, (*FT, "--moe_num_experts", "8"), ("experts", "plain GPT-2")),
        (LLAMA_BUILD, (*LLAMA, "--moe_top_k", "2"), ("experts", "Llama")),
        (GPT_BUILD, (), ("--model_dir: is needed",)),
        (GPT_CONVERT_UNIFIED, ("--nemo_ckpt_path", "x"), ("--nemo_ckpt_path", "--model_dir")),
        (GPT_CONVERT_UNIFIED, ("--model_dir", "{work}/gpt", "--tp_size", "4"), ("2 attention heads", "1, 2")),
        (GPT_CONVERT_UNIFIED, ("--model_dir", "{work}/gpt", "--gpt_variant", "starcoder2"), ("gpt2 is",)),
        (LLAMA_CONVERT, (*LLAMA, "--tp_size", "4"), ("2 key/value heads", "supported here: 1, 2")),
        (LLAMA_CONVERT, (*LLAMA, "--pp_size", "2"), ("--pp_size: 2", "--tp_size is")),
        (LLAMA_CONVERT, (*LLAMA, "--smoothquant", "0.8"), ("--smoothquant", "int8 weight-only")),
        (LLAMA_CONVERT, (*LLAMA, "--per_token", "--per_channel"), ("--smoothquant", "int8 weight-only")),
        (LLAMA_CONVERT, (*LLAMA, "--int8_kv_cache"), ("--int8_kv_cache", "int8 weight-only")),
        (LLAMA_CONVERT, (*LLAMA, "--weight_only_precision", "int8"), ("--use_weight_only",)),
        (LLAMA_CONVERT, (*LLAMA, "--use_weight_only", "--weight_only_precision", "int4_gptq"), ("int8",)),
        (LLAMA_CONVERT, (*LLAMA, "--save_config_only"), ("--save_config_only", "--model_dir")),
        (LLAMA_CONVERT, (*LLAMA, "--ammo_quant_ckpt_path", "x"), ("--ammo_quant_ckpt_path", "--model_dir")),
        (LLAMA_CONVERT, (*LLAMA, "--meta_ckpt_dir", "x"), ("--meta_ckpt_dir", "--model_dir")),
        (LLAMA_CONVERT, (*LLAMA, "--moe_num_experts", "8"), ("experts", "plain Llama")),
        (LLAMA_CONVERT, (), ("--model_dir: is needed",)),
        (LLAMA_CONVERT, ("--model_dir", "{work}/gpt"), ("gpt2 model", "supports llama")),
        (LLAMA_CONVERT_071, ("-i", "x", "-o", "y", "-sq", "0.8"), ("--smoothquant", "build.py")),
        (LLAMA_CONVERT_071, ("-i", "x", "-o", "y", "-kv"), ("--calibrate-kv-cache", "build.py")),
        (LLAMA_BUILD, (*LLAMA, "--world_size", "2", "--tp_size", "2"), ("--tp_size: 2", "one rank")),
        (LLAMA_BUILD, (*LLAMA, "--world_size", "2", "--pp_size", "2"), ("--pp_size: 2", "one rank")),
        (LLAMA_BUILD, (*LLAMA, "--use_weight_only", "--weight_only_precision", "int4"), ("int4", "int8")),
        (LLAMA_BUILD, (*LLAMA, "--use_smooth_quant", "--per_token"), ("SmoothQuant", "int8 weight-only")),
        (LLAMA_BUILD, (*LLAMA, "--ft_model_dir", "x"), ("--ft_model_dir", "--model_dir")),
        (LLAMA_BUILD, (*LLAMA, "--per_group"), ("int4", "int8")),
        (LLAMA_BUILD, (*LLAMA, "--rotary_scaling", "dynamic", "2"), ("dynamic 2", "linear with a factor")),
        (LLAMA_BUILD, (*LLAMA, "--rotary_scaling", "linear", "x"), ("linear x", "linear with a factor")),
        (TRTLLM_BUILD, (*CHECKPOINT, "--tp_size", "2"), ("--tp_size: 2", "one rank")),
        (TRTLLM_BUILD, (*CHECKPOINT, "--weight_only_precision", "int8"), ("--use_weight_only",)),
        (TRTLLM_BUILD, (*CHECKPOINT, "--weight_only_precision", "int4"), ("int4", "int8")),
        (TRTLLM_BUILD, (*CHECKPOINT, "--lora_plugin", "float16"), ("LoRA", "int8 weight-only")),
        (TRTLLM_BUILD, (*CHECKPOINT, "--model_config", "x"), ("--model_config", "--checkpoint_dir")),
        (TRTLLM_BUILD, (*CHECKPOINT, "--max_beam_width", "2"), ("greedily", "1 is supported")),
        (TRTLLM_BUILD, ("--checkpoint_dir", "{work}/llama-2"), ("2 ranks", "one rank")),
        (TRTLLM_BUILD, ("--checkpoint_dir", "{work}/gpt-2"), ("2 ranks", "one rank")),
        (TRTLLM_BUILD, (*CHECKPOINT, "--streamingllm", "enable"), ("--streamingllm", "disable it")),
        (TRTLLM_BUILD, (*CHECKPOINT, "--use_fp8_context_fmha", "enable"), ("fp8", "disable it")),
        (TRTLLM_BUILD, (), ("--checkpoint_dir: is needed",)),
        (QUANTIZE, ("--model_dir", "x", "--qformat", "fp8"), ("calibrates on a GPU", "--use_weight_only")),
        (RUN, ("--max_output_len", "4", "--num_beams", "2"), ("greedily", "--num_beams 1")),
        (RUN, ("--max_output_len", "0"), ("at least 1",)),
    ],
    ids=lambda value: None if isinstance(value, tuple) else Path(str(value)).name,
)
def test_what_is_not_supported_exits_2_and_says_what_is(
    work: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    script: str,
    arguments: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    filled = [argument.format(work=work, tmp=tmp_path / "out") for argument in arguments]
    errors = error_of(capfd, script, *filled, code=2)
    for part in parts:
        assert part in errors
    assert not (tmp_path / "out").exists(), "nothing is written by a refused run"


def test_float8_is_no_dtype_by_argparse_itself(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_script(LLAMA_CONVERT, "--model_dir", "x", "--dtype", "float8") == 2
    assert "invalid choice: 'float8'" in capfd.readouterr().err


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"architecture": "FalconForCausalLM"}, ("FalconForCausalLM", "GPTForCausalLM and LlamaForCausalLM")),
        ({"architecture": None}, ("GPTForCausalLM and LlamaForCausalLM",)),
        ({"dtype": "float8"}, ("float8", "float32, float16, bfloat16")),
        ({"quantization": {"quant_algo": "FP8"}}, ("FP8", "W8A16")),
        ({"quantization": {"quant_algo": None, "kv_cache_quant_algo": "INT8"}}, ("INT8", "W8A16")),
        ({"hidden_act": "mish"}, ("mish", "gelu_new")),
        ({"rotary_scaling": {"type": "yarn", "factor": 2.0}}, ("yarn", "llama3")),
    ],
)
def test_a_unified_checkpoint_of_another_kind_exits_2(
    work: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, object],
    parts: tuple[str, ...],
) -> None:
    for name in ("config.json", "rank0.safetensors"):
        (tmp_path / name).write_bytes((work / "llama-1" / name).read_bytes())
    change_json(tmp_path / "config.json", **changes)
    out = ("--output_dir", tmp_path / "e")
    errors = error_of(capfd, TRTLLM_BUILD, "--checkpoint_dir", tmp_path, *out, code=2)
    assert all(part in errors for part in parts), errors


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"quantization_config": {"quant_method": "gptq"}},
        {"model_type": "mistral"},
    ],
)
def test_a_hugging_face_llama_of_another_kind_exits_2(
    work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: dict[str, object]
) -> None:
    for path in (work / "llama").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change_json(tmp_path / "config.json", **changes)
    for script in (LLAMA_CONVERT, LLAMA_BUILD):
        out = ("--output_dir", tmp_path / "out")
        assert "support" in error_of(capfd, script, "--model_dir", tmp_path, *out, code=2)


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def cut(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        path = directory / name
        path.write_bytes(path.read_bytes()[:-7])

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def overwrite(name: str, text: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(text, "utf-8") and None


def drop_tensor(file: str, tensor: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        tensors = load_file(directory / file)
        del tensors[tensor]
        save_file(tensors, directory / file)

    return damage


def shorten_tensor(file: str, tensor: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        tensors = load_file(directory / file)
        tensors[tensor] = tensors[tensor][:-1].copy()
        save_file(tensors, directory / file)

    return damage


MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
FT_BIAS = "model.layers.1.attention.dense.bias.bin"


@pytest.mark.parametrize(
    ("script", "source", "damage", "named"),
    [
        (GPT_CONVERT, "gpt", cut(MODEL), MODEL),
        (GPT_CONVERT, "gpt", remove(MODEL), "no weights"),
        (GPT_CONVERT, "gpt", remove("config.json"), "config.json is missing"),
        (GPT_CONVERT, "gpt", overwrite("config.json", "{"), "config.json is not JSON"),
        (GPT_CONVERT, "gpt", overwrite("config.json", "[]"), "config.json is not a JSON object"),
        (GPT_CONVERT, "gpt", overwrite("config.json", '{"n_embd": "x"}'), "n_embd is 'x'"),
        (GPT_CONVERT, "gpt", overwrite("config.json", '{"n_head": 0}'), "n_head is 0"),
        (GPT_CONVERT, "gpt", overwrite("config.json", '{"n_head": 7}'), "no multiple of n_head 7"),
        (GPT_CONVERT, "gpt", overwrite("config.json", "{}"), "but config.json asks for [50257, 768]"),
        (GPT_CONVERT, "gpt", drop_tensor(MODEL, "transformer.wpe.weight"), "no tensor for model.wpe"),
        (GPT_CONVERT, "gpt", shorten_tensor(MODEL, "transformer.ln_f.bias"), "ln_f.bias has shape [63]"),
        (GPT_CONVERT, "gpt", overwrite(INDEX, "{}"), "has no weight_map"),
        (GPT_CONVERT, "gpt", overwrite(INDEX, '{"weight_map": {"a": "b"}}'), "b is missing"),
        (GPT_CONVERT, "gpt", overwrite(INDEX, '{"weight_map": {"a": "../a"}}'), "is missing"),
        (GPT_CONVERT, "gpt", overwrite(INDEX, f'{{"weight_map": {{"a": "{MODEL}"}}}}'), "no tensor a"),
        (GPT_BUILD, "ft/1-gpu", remove("config.ini"), "config.ini is missing"),
        (GPT_BUILD, "ft/1-gpu", overwrite("config.ini", "x"), "config.ini cannot be read"),
        (GPT_BUILD, "ft/1-gpu", overwrite("config.ini", "[gpt]\nn_embd = x"), "config.ini cannot be read"),
        (GPT_BUILD, "ft/1-gpu", remove(FT_BIAS), FT_BIAS),
        (GPT_BUILD, "ft/1-gpu", cut("model.wte.bin"), "model.wte.bin has"),
        (LLAMA_CONVERT, "llama", cut(MODEL), MODEL),
        (LLAMA_CONVERT, "llama", drop_tensor(MODEL, "model.norm.weight"), "no tensor norm.weight"),
        (LLAMA_BUILD, "llama", shorten_tensor(MODEL, "lm_head.weight"), "lm_head.weight has shape"),
        (LLAMA_BUILD, "llama", overwrite("config.json", '{"hidden_size": -1}'), "hidden_size is -1"),
        (TRTLLM_BUILD, "llama-1", remove("rank0.safetensors"), "rank0.safetensors is missing"),
        (TRTLLM_BUILD, "llama-1", remove("config.json"), "config.json is missing"),
        (TRTLLM_BUILD, "llama-1", cut("rank0.safetensors"), "rank0.safetensors"),
        (TRTLLM_BUILD, "gpt-1", drop_tensor("rank0.safetensors", "transformer.ln_f.bias"), "no such tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value else None,
)
def test_a_damaged_input_exits_1_and_is_named(
    work: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    script: str,
    source: str,
    damage: Callable[[Path], None],
    named: str,
) -> None:
    directory = copied(work / source, tmp_path / "input")
    damage(directory)
    option = {GPT_CONVERT: "-i", TRTLLM_BUILD: "--checkpoint_dir"}.get(script, "--model_dir")
    out = "-o" if script == GPT_CONVERT else "--output_dir"
    errors = error_of(capfd, script, option, directory, out, tmp_path / "out", code=1)
    assert str(directory) in errors
    assert named in errors
    assert not list(tmp_path.glob("out/**/config.*"))


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (GPT_CONVERT, ("-i", "nowhere", "-o", "out")),
        (GPT_BUILD, ("--model_dir", "nowhere")),
        (LLAMA_CONVERT, ("--model_dir", "nowhere")),
        (LLAMA_BUILD, ("--model_dir", "nowhere")),
        (TRTLLM_BUILD, ("--checkpoint_dir", "nowhere")),
        (RUN, ("--engine_dir", "nowhere", "--max_output_len", "3")),
    ],
)
def test_a_missing_directory_exits_1_and_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    script: str,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "nowhere" in error_of(capfd, script, *arguments, code=1)
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_exits_1_and_is_named(
    work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x", "ascii")
    for script, option, source in (
        (GPT_CONVERT, "-i", "gpt"),
        (GPT_BUILD, "--model_dir", "ft/1-gpu"),
        (LLAMA_BUILD, "--model_dir", "llama"),
        (TRTLLM_BUILD, "--checkpoint_dir", "llama-1"),
    ):
        out = "-o" if script == GPT_CONVERT else "--output_dir"
        errors = error_of(capfd, script, option, work / source, out, blocked / "out", code=1)
        assert str(blocked) in errors
