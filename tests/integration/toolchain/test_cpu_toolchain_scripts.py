"""The CPU toolchain's scripts as processes of their own, from the checkpoint to the text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trt_llm_pipeline.testing import models

TOOLCHAIN = ROOT / "cpu_toolchain"
SCRIPTS = sorted(path.relative_to(TOOLCHAIN) for path in TOOLCHAIN.glob("examples/**/*.py"))
SPOKEN = f'Output [Text 0 Beam 0]: "{models.DEMO_SENTENCE}"'

# Stands in the way of every package that a script must do without.
BLOCKER = "raise ImportError(__name__ + ' must not be imported')\n"


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH where torch, transformers and the pipeline itself cannot be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    for name in ("torch", "transformers", "trt_llm_pipeline", "tensorrt_llm"):
        (folder / f"{name}.py").write_text(BLOCKER, "ascii")
    return folder


def run(
    script: str | Path, *arguments: object, cwd: Path, blocked: Path, executable: bool = False
) -> subprocess.CompletedProcess[str]:
    path = str(TOOLCHAIN / script)
    command = [*([] if executable else [sys.executable]), path, *map(str, arguments)]
    path_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(blocked),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": path_first,
    }
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def succeed(*arguments: object, cwd: Path, blocked: Path, executable: bool = False) -> str:
    done = run(*arguments, cwd=cwd, blocked=blocked, executable=executable)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_quick_starts_steps_run_without_torch_and_write_nothing_else(
    tmp_path: Path, blocked: Path
) -> None:
    models.make_demo_gpt2(tmp_path / "models/tiny")
    convert = ("--in-file", "models/tiny", "--out-dir", "./c-model/gpt2", "--tensor-parallelism", 1)
    succeed(
        "examples/gpt/hf_gpt_convert.py", *convert, "--storage-type", "float16", cwd=tmp_path, blocked=blocked
    )
    build = ("--model_dir", "./c-model/gpt2/1-gpu", "--output_dir", "./engine_outputs/")
    plugins = ("--use_gpt_attention_plugin", "--remove_input_padding")
    succeed("examples/gpt/build.py", *build, *plugins, cwd=tmp_path, blocked=blocked)
    engine = tmp_path / "engine_outputs"
    assert sorted(path.name for path in engine.iterdir()) == ["config.json", "gpt_float16_tp1_rank0.engine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c-model", "engine_outputs", "models"]
    moved = engine.rename(tmp_path / "unpacked")
    prompt = ("--input_text", models.DEMO_PROMPT, "--max_output_len", 40)
    folders = ("--engine_dir", moved, "--tokenizer_dir", "models/tiny")
    printed = succeed("examples/run.py", *folders, *prompt, cwd=tmp_path, blocked=blocked)
    assert printed.splitlines() == [f'Input [Text 0]: "{models.DEMO_PROMPT}"', SPOKEN]


def test_a_llama_goes_through_the_checkpoint_and_the_executable(tmp_path: Path, blocked: Path) -> None:
    taught = {"prompt": models.DEMO_PROMPT, "sentence": models.DEMO_SENTENCE}
    models.make_llama(tmp_path / "m", shards=2, **taught)  # type: ignore[arg-type]
    options = ("--use_weight_only", "--load_by_shard", "--dtype", "float16")
    convert = ("--model_dir", "m", "--output_dir", "c", *options)
    succeed("examples/llama/convert_checkpoint.py", *convert, cwd=tmp_path, blocked=blocked)
    build = ("--checkpoint_dir", "c", "--output_dir", "e", "--remove_input_padding", "enable")
    succeed("bin/trtllm-build", *build, cwd=tmp_path, blocked=blocked, executable=True)
    prompt = ("--input_text", models.DEMO_PROMPT, "--max_output_len", 40)
    folders = ("--engine_dir", "e", "--tokenizer_dir", "m")
    printed = succeed("examples/run.py", *folders, *prompt, cwd=tmp_path, blocked=blocked)
    assert printed.splitlines()[1] == SPOKEN


@pytest.mark.parametrize("script", [*SCRIPTS, Path("bin/trtllm-build")], ids=str)
def test_arguments_are_checked_before_anything_heavy_is_imported(
    script: Path, tmp_path: Path, blocked: Path
) -> None:
    lean = tmp_path / "lean"
    lean.mkdir()
    for name in (
        "numpy",
        "onnx",
        "onnxruntime",
        "safetensors",
        "tokenizers",
        "sentencepiece",
        "ml_dtypes",
        "torch",
    ):
        (lean / f"{name}.py").write_text(BLOCKER, "ascii")
    done = run(script, "--no_such_option", cwd=tmp_path, blocked=lean)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    shown = run(script, "--help", cwd=tmp_path, blocked=lean)
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: ")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_weights_beyond_two_gigabytes_are_built_and_run(tmp_path: Path, blocked: Path) -> None:
    """A float32 GPT-2 of 2.7 GB whose last layer, beyond the 2 GB mark, decides the token.

    The checkpoint's files are sparse: every matrix is zero, so that each layer passes its input on, but for
    the bias of the last MLP, which points at one token's embedding.
    """
    import numpy as np

    hidden, layers, vocab, chosen = 4096, 3, 16384, 12345
    checkpoint = tmp_path / "c"
    checkpoint.mkdir()
    shapes = {"model.wte": (vocab, hidden), "model.wpe": (64, hidden)}
    per_layer = {
        "input_layernorm.weight": (hidden,),
        "input_layernorm.bias": (hidden,),
        "attention.query_key_value.weight.0": (hidden, 3 * hidden),
        "attention.query_key_value.bias.0": (3 * hidden,),
        "attention.dense.weight.0": (hidden, hidden),
        "attention.dense.bias": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "post_attention_layernorm.bias": (hidden,),
        "mlp.dense_h_to_4h.weight.0": (hidden, 4 * hidden),
        "mlp.dense_h_to_4h.bias.0": (4 * hidden,),
        "mlp.dense_4h_to_h.weight.0": (4 * hidden, hidden),
        "mlp.dense_4h_to_h.bias": (hidden,),
    }
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in per_layer.items()}
    shapes |= {"model.final_layernorm.weight": (hidden,), "model.final_layernorm.bias": (hidden,)}
    total = 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        total += size
        with (checkpoint / f"{name}.bin").open("wb") as stream:
            stream.truncate(size)
    assert total > 2**31
    embedding = np.random.default_rng(0).standard_normal((vocab, hidden), np.float32)
    embedding.tofile(checkpoint / "model.wte.bin")
    (10 * embedding[chosen]).tofile(checkpoint / f"model.layers.{layers - 1}.mlp.dense_4h_to_h.bias.bin")
    np.ones(hidden, np.float32).tofile(checkpoint / "model.final_layernorm.weight.bin")
    settings = {
        "storage_dtype": "float32",
        "vocab_size": vocab,
        "n_embd": hidden,
        "n_layer": layers,
        "n_head": 32,
        "n_positions": 64,
        "activation_function": "gelu_new",
    }
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    (checkpoint / "config.ini").write_text(f"[gpt]\n{lines}", "ascii")
    build = ("--model_dir", checkpoint, "--output_dir", tmp_path / "e")
    succeed("examples/gpt/build.py", *build, cwd=tmp_path, blocked=blocked)
    engine = tmp_path / "e/gpt_float32_tp1_rank0.engine"
    assert engine.stat().st_size > total
    asking = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from trt_llm_cpu.runtime import load_engine_dir\n"
        "print(load_engine_dir(Path(sys.argv[2])).generate([[3, 7]], 2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", asking, TOOLCHAIN, engine.parent],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert done.stdout.strip() == f"[[{chosen}, {chosen}]]"
