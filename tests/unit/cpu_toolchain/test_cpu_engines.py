"""Engine directories: what is in them, that they work wherever they lie, what is said when they do not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from toolchain_support import (
    GPT_BUILD,
    GPT_CONVERT,
    GPT_CONVERT_UNIFIED,
    LLAMA_BUILD,
    LLAMA_CONVERT,
    RUN,
    TOOLCHAIN,
    TRTLLM_BUILD,
    ok,
    run_script,
)
from trt_llm_cpu import runtime
from trt_llm_cpu.console import BadInputError, UnsupportedError
from trt_llm_cpu.engine_file import read_engine
from trt_llm_cpu.runtime import load_engine_dir

from trt_llm_pipeline.testing import models

# TENSORRT_LLM's builder_config at 0.7.1.
BUILDER_KEYS = {
    "name",
    "precision",
    "tensor_parallel",
    "parallel_build",
    "use_refit",
    "int8",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "hidden_size",
    "vocab_size",
    "hidden_act",
    "max_position_embeddings",
    "apply_query_key_layer_scaling",
    "max_batch_size",
    "max_beam_width",
    "max_input_len",
    "max_output_len",
    "max_num_tokens",
    "max_draft_len",
    "max_prompt_embedding_table_size",
    "gather_all_token_logits",
    "quant_mode",
    "use_parallel_embedding",
    "lora_target_modules",
}


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gpt")
    models.make_gpt2(directory, prompt=models.DEMO_PROMPT, sentence=models.DEMO_SENTENCE)
    return directory


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama")
    models.make_demo_llama(directory)
    return directory


def build_gpt(model: Path, work: Path, dtype: str = "float16", *options: object) -> Path:
    ok(GPT_CONVERT, "-i", model, "-o", work / f"c-{dtype}", "-t", dtype)
    engine = work / f"e-{dtype}"
    ok(GPT_BUILD, "--model_dir", work / f"c-{dtype}/1-gpu", "--output_dir", engine, *options)
    return engine


def generate(engine: Path, tokenizer: Path, capfd: pytest.CaptureFixture[str], *texts: str) -> list[str]:
    """The texts that run.py prints as generated, one for each input."""
    capfd.readouterr()
    folders = ("--engine_dir", engine, "--tokenizer_dir", tokenizer)
    ok(RUN, *folders, "--max_output_len", 40, "--input_text", *texts)
    printed = capfd.readouterr().out
    assert re.findall(r'^Input \[Text (\d+)\]: "', printed, re.M) == [str(n) for n in range(len(texts))]
    return re.findall(r'^Output \[Text \d+ Beam 0\]: "(.*)"$', printed, re.M)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_gpt_engine_speaks_the_sentence_it_was_taught(
    gpt: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], dtype: str
) -> None:
    engine = build_gpt(gpt, tmp_path, dtype)
    assert sorted(path.name for path in engine.iterdir()) == ["config.json", f"gpt_{dtype}_tp1_rank0.engine"]
    spoken = generate(engine, gpt, capfd, models.DEMO_PROMPT, "An engine")
    assert spoken[0] == models.DEMO_SENTENCE
    assert len(spoken) == 2


def test_old_repositories_with_vocabulary_and_merges_alone_are_spoken_with(
    gpt: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("vocab.json", "merges.txt", "config.json"):
        shutil.copy(gpt / name, tokenizer / name)
    engine = build_gpt(gpt, tmp_path)
    assert generate(engine, tokenizer, capfd, models.DEMO_PROMPT) == [models.DEMO_SENTENCE]


@pytest.mark.parametrize("options", [(), ("--use_weight_only",)], ids=["float16", "int8"])
def test_both_ways_to_a_llama_engine_give_the_same_text(
    llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    ok(LLAMA_BUILD, "--model_dir", llama, "--output_dir", tmp_path / "e1", *options)
    ok(LLAMA_CONVERT, "--model_dir", llama, "--output_dir", tmp_path / "c", *options)
    ok(TRTLLM_BUILD, "--checkpoint_dir", tmp_path / "c", "--output_dir", tmp_path / "e2")
    assert sorted(path.name for path in (tmp_path / "e1").iterdir()) == [
        "config.json",
        "llama_float16_tp1_rank0.engine",
    ]
    assert sorted(path.name for path in (tmp_path / "e2").iterdir()) == ["config.json", "rank0.engine"]
    # SentencePiece puts no space before a text that is decoded by itself.
    for engine in ("e1", "e2"):
        assert generate(tmp_path / engine, llama, capfd, models.DEMO_PROMPT) == [models.DEMO_SENTENCE.strip()]


def test_a_tied_llama_with_scaled_positions_and_tokenizer_json_speaks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    taught = {"prompt": models.DEMO_PROMPT, "sentence": models.DEMO_SENTENCE}
    models.make_llama(tmp_path / "m", tied=True, rope_theta=500000.0, rope_scaling=scaling, **taught)
    ok(LLAMA_CONVERT, "--model_dir", tmp_path / "m", "--output_dir", tmp_path / "c", "--dtype", "bfloat16")
    ok(TRTLLM_BUILD, "--checkpoint_dir", tmp_path / "c", "--output_dir", tmp_path / "e")
    assert generate(tmp_path / "e", tmp_path / "m", capfd, models.DEMO_PROMPT) == [models.DEMO_SENTENCE]


def test_the_engine_is_the_same_bytes_each_time_and_works_where_it_is_moved(
    gpt: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = build_gpt(gpt, tmp_path / "a")
    second = build_gpt(gpt, tmp_path / "b")
    for name in ("config.json", "gpt_float16_tp1_rank0.engine"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    moved = first.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "a")
    assert generate(moved, gpt, capfd, models.DEMO_PROMPT) == [models.DEMO_SENTENCE]


def test_weights_keep_their_storage_type_in_the_engine(tmp_path: Path) -> None:
    """Float16 is about half of float32, and int8 about half of float16, in checkpoint and engine."""
    models.make_llama(tmp_path / "m", hidden=256, intermediate=704, vocab_size=300, tied=True)
    sizes = {}
    for name, options in {
        "float32": ("--dtype", "float32"),
        "float16": (),
        "bfloat16": ("--dtype", "bfloat16"),
        "int8": ("--use_weight_only",),
    }.items():
        checkpoint, engine = tmp_path / f"c-{name}", tmp_path / f"e-{name}"
        ok(
            LLAMA_CONVERT,
            "--model_dir",
            tmp_path / "m",
            "--output_dir",
            checkpoint,
            "--use_embedding_sharing",
            *options,
        )
        ok(TRTLLM_BUILD, "--checkpoint_dir", checkpoint, "--output_dir", engine)
        sizes[name] = [
            (checkpoint / "rank0.safetensors").stat().st_size,
            (engine / "rank0.engine").stat().st_size,
        ]
    for place in (0, 1):
        assert sizes["float16"][place] / sizes["float32"][place] == pytest.approx(0.5, abs=0.03)
        assert sizes["bfloat16"][place] == pytest.approx(sizes["float16"][place], rel=0.01)
        assert sizes["int8"][place] / sizes["float16"][place] == pytest.approx(0.53, abs=0.05)
    engine = read_engine(tmp_path / "e-int8/rank0.engine")
    dtype, numbers = engine.weights["transformer.layers.0.attention.qkv.weight"]
    assert (dtype, numbers.dtype) == ("int8", np.int8)
    assert np.abs(numbers).max(axis=0).tolist() == [127] * numbers.shape[1]
    assert engine.weights["transformer.layers.0.attention.qkv.per_channel_scale"][0] == "float16"


def test_the_compiled_graph_holds_no_weights(gpt: Path, tmp_path: Path) -> None:
    engine = read_engine(build_gpt(gpt, tmp_path) / "gpt_float16_tp1_rank0.engine")
    assert len(engine.graph) < 60_000
    assert sum(array.nbytes for _, array in engine.weights.values()) > 300_000


def test_config_json_has_the_keys_and_values_of_071(gpt: Path, tmp_path: Path) -> None:
    options = ("--use_gpt_attention_plugin", "--use_gemm_plugin", "float32", "--remove_input_padding")
    limits = ("--max_batch_size", 3, "--max_input_len", 20, "--max_output_len", 21)
    engine = build_gpt(gpt, tmp_path, "float16", "--dtype", "bfloat16", *options, *limits)
    config = json.loads((engine / "config.json").read_text("utf-8"))
    assert set(config) == {"builder_config", "plugin_config"}
    built = config["builder_config"]
    assert set(built) == BUILDER_KEYS
    model = json.loads((gpt / "config.json").read_text("utf-8"))
    assert built["name"] == "gpt"
    assert built["precision"] == "float16", "the checkpoint's storage type wins over --dtype"
    assert (built["max_batch_size"], built["max_input_len"], built["max_output_len"]) == (3, 20, 21)
    assert (built["num_layers"], built["num_heads"]) == (model["n_layer"], model["n_head"])
    assert (built["hidden_size"], built["vocab_size"]) == (model["n_embd"], model["vocab_size"])
    assert built["quant_mode"] == 0
    plugins = config["plugin_config"]
    assert plugins["gpt_attention_plugin"] == "float16", "a bare option means the model's type"
    assert plugins["gemm_plugin"] == "float32"
    assert plugins["remove_input_padding"] is True
    assert plugins["lookup_plugin"] is False
    assert plugins["paged_kv_cache"] is False


def test_gpu_options_are_said_to_have_no_effect(
    gpt: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build_gpt(gpt, tmp_path, "float16", "--use_gpt_attention_plugin", "--paged_kv_cache")
    lines = [line for line in capfd.readouterr().out.splitlines() if "no effect on a CPU" in line]
    assert len(lines) == 1
    assert "--use_gpt_attention_plugin, --paged_kv_cache" in lines[0]


def test_int8_gpt_is_recorded_as_int8(gpt: Path, tmp_path: Path) -> None:
    engine = build_gpt(gpt, tmp_path, "float16", "--use_weight_only", "--weight_only_precision", "int8")
    built = json.loads((engine / "config.json").read_text("utf-8"))["builder_config"]
    assert (built["int8"], built["quant_mode"]) == (True, 2)


def test_trtllm_builds_config_has_the_three_parts_of_09(gpt: Path, tmp_path: Path) -> None:
    ok(GPT_CONVERT_UNIFIED, "--model_dir", gpt, "--output_dir", tmp_path / "c")
    options = ("--gemm_plugin", "float16", "--paged_kv_cache", "enable", "--context_fmha", "disable")
    ok(TRTLLM_BUILD, "--checkpoint_dir", tmp_path / "c", "--output_dir", tmp_path / "e", *options)
    config = json.loads((tmp_path / "e/config.json").read_text("utf-8"))
    assert set(config) == {"version", "pretrained_config", "build_config"}
    assert config["version"] == "cpu"
    assert config["pretrained_config"] == json.loads((tmp_path / "c/config.json").read_text("utf-8"))
    assert config["pretrained_config"]["architecture"] == "GPTForCausalLM"
    assert config["pretrained_config"]["max_position_embeddings"] == 1024
    plugins = config["build_config"]["plugin_config"]
    assert plugins["gemm_plugin"] == "float16"
    assert (plugins["paged_kv_cache"], plugins["context_fmha"]) == (True, False)


def test_a_machine_with_little_memory_gets_the_same_text(
    gpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = build_gpt(gpt, tmp_path)
    monkeypatch.setattr(runtime, "_available_memory", lambda: 0)
    assert generate(engine, gpt, capfd, models.DEMO_PROMPT) == [models.DEMO_SENTENCE]


@pytest.mark.parametrize(
    ("prompts", "tokens", "sentence"),
    [
        ([[1]] * 3, 4, "2 sequences at once (max_batch_size); 3 were asked for"),
        ([[1] * 9], 4, "8 input tokens (max_input_len); 9 were asked for"),
        ([[1]], 7, "6 output tokens (max_output_len); 7 were asked for"),
    ],
)
def test_an_engine_keeps_to_what_it_was_built_for(
    gpt: Path, tmp_path: Path, prompts: list[list[int]], tokens: int, sentence: str
) -> None:
    limits = ("--max_batch_size", 2, "--max_input_len", 8, "--max_output_len", 6)
    session = load_engine_dir(build_gpt(gpt, tmp_path, "float16", *limits))
    assert len(session.generate([[1] * 8, [1]], 6)[0]) == 6
    with pytest.raises(UnsupportedError, match=re.escape(sentence)):
        session.generate(prompts, tokens)


def test_learned_positions_end(tmp_path: Path) -> None:
    models.make_gpt2(tmp_path / "m", positions=16)
    session = load_engine_dir(build_gpt(tmp_path / "m", tmp_path))
    assert len(session.generate([[1] * 10], 6)[0]) == 6
    with pytest.raises(UnsupportedError, match="16 tokens in all"):
        session.generate([[1] * 10], 7)


@pytest.mark.parametrize("prompts", [[], [[]], [[1], []], [[-1]], [[100_000]]])
def test_a_prompt_of_no_or_strange_tokens_is_refused(
    gpt: Path, tmp_path: Path, prompts: list[list[int]]
) -> None:
    session = load_engine_dir(build_gpt(gpt, tmp_path))
    with pytest.raises(BadInputError):
        session.generate(prompts, 2)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def not_an_engine(path: Path) -> None:
    path.write_bytes(b"ftrt" + bytes(5000))


def spoil_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"facts"', b'"fects"', 1))


@pytest.mark.parametrize(
    "damage", [cut_short, cut_in_header, lengthen, not_an_engine, spoil_header, Path.unlink]
)
def test_a_damaged_engine_is_named_in_one_sentence(
    gpt: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: object
) -> None:
    engine = build_gpt(gpt, tmp_path) / "gpt_float16_tp1_rank0.engine"
    damage(engine)  # type: ignore[operator]
    capfd.readouterr()
    assert run_script(RUN, "--engine_dir", engine.parent, "--tokenizer_dir", gpt, "--max_output_len", 2) == 1
    errors = capfd.readouterr().err
    assert str(engine) in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"builder_config": {}}', '{"build_config": {}}'])
def test_an_engine_directory_with_a_strange_config_is_named(gpt: Path, tmp_path: Path, text: str) -> None:
    engine = build_gpt(gpt, tmp_path)
    (engine / "config.json").write_text(text, "utf-8")
    with pytest.raises(BadInputError, match=r"config\.json"):
        load_engine_dir(engine)


def test_an_engine_of_several_ranks_is_refused(gpt: Path, tmp_path: Path) -> None:
    engine = build_gpt(gpt, tmp_path)
    config = json.loads((engine / "config.json").read_text("utf-8"))
    config["builder_config"]["tensor_parallel"] = 2
    (engine / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(UnsupportedError, match="one rank"):
        load_engine_dir(engine)


def test_the_version_file_names_the_releases_it_follows() -> None:
    name, *lines = (TOOLCHAIN / "version.txt").read_text("ascii").splitlines()
    assert (name, *lines[-3:]) == ("cpu", "ranks: 1", "models: gpt2 (gpt)", "models: llama (llama)")
    del lines[-3:]
    assert lines
    assert all(re.fullmatch(r"follows: \d+\.\d+\.\d+(, \d+\.\d+\.\d+)* \(.+\)", line) for line in lines)
