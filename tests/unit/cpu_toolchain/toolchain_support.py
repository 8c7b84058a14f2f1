"""What the CPU toolchain's tests share: running its scripts, the golden GPT-2, comparing with a reference."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
TOOLCHAIN = ROOT / "cpu_toolchain"
GOLDEN = json.loads((ROOT / "tests/fixtures/ft_gpt2.json").read_text("utf-8"))
GPT_CONVERT = "examples/gpt/hf_gpt_convert.py"
GPT_CONVERT_UNIFIED = "examples/gpt/convert_checkpoint.py"
GPT_BUILD = "examples/gpt/build.py"
LLAMA_CONVERT = "examples/llama/convert_checkpoint.py"
LLAMA_BUILD = "examples/llama/build.py"
TRTLLM_BUILD = "bin/trtllm-build"
RUN = "examples/run.py"

GREEDY_TOKENS = 32


def run_script(script: str, *arguments: object) -> int:
    """Runs one of the toolchain's scripts in this process, as `python script` would: its exit code."""
    before = sys.argv, list(sys.path)
    sys.argv = [str(TOOLCHAIN / script), *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before
    code = stopped.value.code
    assert code is None or isinstance(code, int), code
    return code or 0


def ok(script: str, *arguments: object) -> None:
    """Runs a script that must succeed."""
    assert run_script(script, *arguments) == 0


def golden_tensors(*, prefix: str = "transformer.") -> dict[str, np.ndarray]:
    """The golden fixture's GPT-2, by its formula."""
    config = GOLDEN["config"]
    hidden = config["n_embd"]
    layer = {
        "ln_1.weight": (hidden,),
        "ln_1.bias": (hidden,),
        "attn.c_attn.weight": (hidden, 3 * hidden),
        "attn.c_attn.bias": (3 * hidden,),
        "attn.c_proj.weight": (hidden, hidden),
        "attn.c_proj.bias": (hidden,),
        "ln_2.weight": (hidden,),
        "ln_2.bias": (hidden,),
        "mlp.c_fc.weight": (hidden, 4 * hidden),
        "mlp.c_fc.bias": (4 * hidden,),
        "mlp.c_proj.weight": (4 * hidden, hidden),
        "mlp.c_proj.bias": (hidden,),
    }
    shapes = {"wte.weight": (config["vocab_size"], hidden), "wpe.weight": (config["n_positions"], hidden)}
    for number in range(config["n_layer"]):
        shapes |= {f"h.{number}.{name}": shape for name, shape in layer.items()}
    shapes |= {"ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}
    return {prefix + name: _formula(number, shape) for number, (name, shape) in enumerate(shapes.items())}


def _formula(number: int, shape: tuple[int, ...]) -> np.ndarray:
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    mixed = (index * np.uint64(2654435761) + np.uint64(number * 40503)) % np.uint64(65536)
    scaled = (mixed.astype(np.float32) / np.float32(65536) - np.float32(0.5)) * np.float32(0.25)
    return scaled.reshape(shape)


def write_golden_config(directory: Path, **changes: Any) -> None:
    """`config.json` of the golden GPT-2."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**GOLDEN["config"], **changes}), "utf-8")


def step_through(session: Any, ids: np.ndarray, prefill: int) -> np.ndarray:
    """Logits of every position of `ids` [1, S]: the first `prefill` at once, the rest one by one."""
    logits, cache = session.step(ids[:, :prefill], session.empty_cache(1), every=True)
    found = [logits]
    for place in range(prefill, ids.shape[1]):
        logits, cache = session.step(ids[:, place : place + 1], cache, every=True)
        found.append(logits)
    return np.concatenate(found, axis=1)


def assert_same_model(
    session: Any,
    reference: Callable[[np.ndarray], np.ndarray],
    *,
    tolerance: float,
    greedy: bool,
    prompt_lengths: tuple[int, ...] = (1, 5, 17),
) -> None:
    """Asserts that an engine computes what the reference does, on inputs that would show it if it did not.

    Args:
        session: the loaded engine.
        reference: ids int64 [1, S] to logits [1, S, vocabulary].
        tolerance: the largest difference of any logit, with and without the cache.
        greedy: also that 32 greedy tokens are the same.
    """
    generator = np.random.default_rng(7)
    distinct: set[int] = set()
    for length in prompt_lengths:
        prompt = generator.integers(0, session.spec.vocab_size, (1, length))
        expected_tokens = greedy_tokens(reference, prompt, GREEDY_TOKENS)
        ids = np.concatenate([prompt, [expected_tokens]], axis=1)
        expected = reference(ids)
        assert expected.std() >= 1, "the reference's logits are too flat to tell models apart"
        for prefill in (ids.shape[1], length):
            worst = np.abs(step_through(session, ids, prefill) - expected).max()
            assert worst <= tolerance, f"prompt of {length}, {prefill} at once: off by {worst}"
        if greedy:
            assert session.generate([prompt[0].tolist()], GREEDY_TOKENS) == [expected_tokens]
        distinct |= set(expected_tokens)
    assert len(distinct) >= 8, "the reference repeats itself too much to tell models apart"


def assert_close_directions(session: Any, reference: Callable[[np.ndarray], np.ndarray]) -> None:
    """Asserts what int8 weights must keep: cosine similarity 0.999 and 95% of the top tokens."""
    ids = np.random.default_rng(3).integers(0, session.spec.vocab_size, (8, 64))
    found, _ = session.step(ids, session.empty_cache(8), every=True)
    expected = reference(ids)
    assert expected.std() >= 1
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine >= 0.999
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.95


def greedy_tokens(reference: Callable[[np.ndarray], np.ndarray], prompt: np.ndarray, count: int) -> list[int]:
    """What the reference generates greedily after `prompt` [1, S], computed anew for each token."""
    ids = prompt
    for _ in range(count):
        token = reference(ids)[:, -1].argmax(axis=-1)
        ids = np.concatenate([ids, token[:, None]], axis=1)
    return ids[0, prompt.shape[1] :].tolist()
