"""Engines of the embedded toolchain, good and damaged, made and asked in this process: hundreds in a minute.

What runs is what the service runs: the toolchain's scripts, its `run.py`, the check's programs and rules.
Only the processes are left out; `test_check_command.py` has those.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trt_llm_pipeline.check.asking import PROGRAMS, Asker
from trt_llm_pipeline.check.limits import limits
from trt_llm_pipeline.check.options import Dialect
from trt_llm_pipeline.check.stage import PROMPTS, TOKENS, judge
from trt_llm_pipeline.check.verdict import Verdict
from trt_llm_pipeline.process import ProcessResult
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.toolchain import Toolchain

ROOT = Path(__file__).resolve().parents[3] / "cpu_toolchain"
TOOLS = Toolchain(ROOT, "cpu", "cpu", ("0.9.0",), sys.executable, "for a test")
DIALECT = Dialect(
    engine="--engine_dir",
    tokenizer="--tokenizer_dir",
    text="--input_text",
    length="--max_output_len",
    several=True,
    input_length="--max_input_length",
    output=("--output_csv", ".csv"),
    always=(),
)

Kind = Literal["gpt2", "gpt2 taught", "llama", "llama tied", "llama taught"]
KINDS: tuple[Kind, ...] = ("gpt2", "gpt2 taught", "llama", "llama tied", "llama taught")
Generation = Literal["0.7.1", "0.9.0"]
GENERATIONS: tuple[Generation, ...] = ("0.7.1", "0.9.0")
#: Storage type, and whether the weights are int8.
TYPES = (("float32", False), ("float16", False), ("bfloat16", False), ("float16", True))


def make_model(kind: Kind, folder: Path, seed: int) -> None:
    """A good model of random weights; a taught one continues one prompt, and no other, with a sentence."""
    taught = {}
    if kind.endswith("taught"):
        taught = {"prompt": models.DEMO_PROMPT, "sentence": models.DEMO_SENTENCE}
    if kind.startswith("gpt2"):
        models.make_gpt2(folder, seed=seed, **taught)
    else:
        tokenizer: Any = "sentencepiece" if kind == "llama taught" else "json"
        models.make_llama(folder, seed=seed, tied=kind == "llama tied", tokenizer=tokenizer, **taught)


def build(kind: Kind, generation: Generation, dtype: str, int8: bool, model: Path, work: Path) -> Path:
    """Converts and compiles; the engine's directory, with the tokenizer in it as in an archive."""
    engine, checkpoint = work / "engine", work / "checkpoint"
    family = kind[:5].strip()
    most = ("--output_dir", engine, "--max_batch_size", 3)
    less = ("--use_weight_only",) if int8 else ()
    if generation == "0.9.0":
        convert = f"examples/{'gpt' if family == 'gpt2' else 'llama'}/convert_checkpoint.py"
        run(convert, "--model_dir", model, "--output_dir", checkpoint, "--dtype", dtype, *less)
        run("bin/trtllm-build", "--checkpoint_dir", checkpoint, *most)
    elif family == "gpt2":
        run("examples/gpt/hf_gpt_convert.py", "-i", model, "-o", checkpoint, "-t", dtype)
        run("examples/gpt/build.py", "--model_dir", checkpoint / "1-gpu", *most, *less)
    else:
        run("examples/llama/build.py", "--model_dir", model, "--dtype", dtype, *most, *less)
    for file in model.glob("*"):
        if "token" in file.name or file.name in ("vocab.json", "merges.txt"):
            (engine / file.name).write_bytes(file.read_bytes())
    return engine


def run(script: str | Path, *arguments: object) -> list[str]:
    """Runs a script that must succeed, in this process; the lines that it printed."""
    code, lines = run_script(ROOT / script, *arguments)
    assert code == 0, lines
    return lines


def run_script(script: Path, *arguments: object) -> tuple[int, list[str]]:
    """Runs a script as `python script` would, in this process: its exit code and what it printed."""
    before = sys.argv, list(sys.path)
    sys.argv = [str(script), *map(str, arguments)]
    said = io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code
    finally:
        sys.argv, sys.path[:] = before
    return int(code) if isinstance(code, int) else int(code is not None), said.getvalue().splitlines()


def in_process(argv: Sequence[str], on_line: Callable[[str], None]) -> ProcessResult:
    """A `Runner` without processes, for a command `[python, script, ...]`; torch is left out, it is slow."""
    _python, script, *arguments = argv
    if Path(script) == PROGRAMS / "reference.py":
        return ProcessResult(1, ("torch is left out here",), 0.0, 0.0, 0)
    code, lines = run_script(Path(script), *arguments)
    for line in lines:
        on_line(line)
    return ProcessResult(code, tuple(lines[-5:]), 0.0, 0.0, 0)


def make_asker(engine: Path, scratch: Path) -> Asker:
    """Asks an engine directory in this process."""
    scratch.mkdir(parents=True, exist_ok=True)
    script = ROOT / "examples" / "run.py"
    return Asker(TOOLS, script, DIALECT, engine, 1, limits(engine, TOKENS), in_process, scratch)


def check(engine: Path, model: Path, scratch: Path, *, reference: bool = False) -> Verdict:
    """The verdict on an engine directory. The reference is the toolchain's own, in numpy."""
    asker = make_asker(engine, scratch)
    verdict = Verdict("failed", 0, "", 1, "examples/run.py", asker.limits.precision)
    return judge(replace(verdict, answers=tuple(asker.ask(PROMPTS))), asker, model, reference=reference)


@dataclass(frozen=True)
class Damage:
    """Something that goes wrong with engines, done to a good one.

    Attributes:
        name: as in docs/reliability.md.
        weights: what becomes of a weight: its name, its array, the storage type, random numbers.
        graph: what becomes of the compiled graph.
        tokenizer: whether the tokenizer beside the engine becomes another model's.
    """

    name: str
    weights: Callable[[str, np.ndarray, np.random.Generator], np.ndarray] | None = None
    graph: Callable[[bytes], bytes] | None = None
    tokenizer: bool = False


def _zeroed(name: str, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.zeros_like(array)


def _transposed(name: str, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    matrix = array.ndim == 2 and ".layers." in name
    return np.ascontiguousarray(array.T).reshape(array.shape) if matrix else array


def _nan(name: str, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    scales = name.endswith(("layers.0.mlp.proj.weight", "layers.0.mlp.proj.per_channel_scale"))
    return np.full_like(array, np.nan) if scales and array.dtype != np.int8 else array


def _times_8(name: str, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One layer's scales, or where there are none, what they would scale."""
    matrix = ".layers.1." in name and (array.ndim == 2 or name.endswith("scale"))
    return (array * 8).astype(array.dtype) if matrix and array.dtype != np.int8 else array


def _shuffled(name: str, array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.permutation(array) if "vocab_embedding" in name else array


def _forgetful(graph: bytes) -> bytes:
    """What is handed on to the next token as keys and values is nothing."""
    import onnx

    model = onnx.load_from_string(graph)
    names = {output.name for output in model.graph.output if output.name.startswith("present_")}
    assert names
    for node in model.graph.node:
        for ends in (node.input, node.output):
            for at, name in enumerate(ends):
                if name in names:
                    ends[at] = f"kept_{name}"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "nothing"))
    for name in sorted(names):
        model.graph.node.append(onnx.helper.make_node("Mul", [f"kept_{name}", "nothing"], [name]))
    return model.SerializeToString()


DAMAGES = (
    Damage("weights zeroed", weights=_zeroed),
    Damage("weights NaN", weights=_nan),
    Damage("weights transposed", weights=_transposed),
    Damage("one layer's scales off by 8", weights=_times_8),
    Damage("embedding shuffled", weights=_shuffled),
    Damage("a KV cache that forgets", graph=_forgetful),
    Damage("another model's tokenizer", tokenizer=True),
)


def damage(engine: Path, what: Damage, work: Path) -> None:
    """Does it to the engine in a directory."""
    from trt_llm_cpu.engine_file import read_engine, write_engine
    from trt_llm_cpu.weights import Weight

    if what.tokenizer:
        for file in engine.glob("*"):
            if "token" in file.name or file.name in ("vocab.json", "merges.txt"):
                file.unlink()
        other = work / "other"
        models.make_llama(other, vocab_size=300, layers=1)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (engine / name).write_bytes((other / name).read_bytes())
        return
    (path,) = engine.glob("*.engine")
    opened = read_engine(path)
    random = np.random.default_rng(1)
    change = what.weights or (lambda _name, array, _random: array)
    weights = []
    for name, (dtype, mapped) in opened.weights.items():
        array = np.ascontiguousarray(change(name, np.array(mapped), random))
        weights.append(Weight(name, dtype, array.shape, lambda array=array: array))
    graph = what.graph(opened.graph) if what.graph else opened.graph
    write_engine(path, opened.facts, graph, weights)
