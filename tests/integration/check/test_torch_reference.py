"""Level 3 by transformers and torch: the same answers as in numpy, offline, and no code of a model is run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.check import engines
from tests.integration.check.engines import DAMAGES, Kind
from trt_llm_pipeline.check.asking import PROGRAMS
from trt_llm_pipeline.check.referring import Comparison, compare
from trt_llm_pipeline.process import ProcessResult

pytestmark = pytest.mark.slow

# Nothing answers there: what reaches for the network fails.
OFFLINE = {"PATH": "/usr/bin:/bin", "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}


def in_a_process(argv: Any, on_line: Any) -> ProcessResult:
    ran = subprocess.run(argv, env=OFFLINE, capture_output=True, text=True)
    return ProcessResult(ran.returncode, tuple(ran.stderr.splitlines()[-3:]), 0.0, 0.0, 0)


def ask(program: Path, model: Path, answers: list[dict[str, Any]], scratch: Path) -> dict[str, Any]:
    """What a reference program reports."""
    scratch.mkdir(exist_ok=True)
    request, report = scratch / "request.json", scratch / "report.json"
    request.write_text(json.dumps({"model_dir": str(model), "tokens": 16, "answers": answers}))
    ran = subprocess.run(
        [sys.executable, program, request, report], env=OFFLINE, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(report.read_text()))


@pytest.mark.parametrize("kind", ["llama tied", "gpt2 taught", "llama taught"])
def test_an_engine_is_judged_as_the_numpy_reference_judges_it(kind: Kind, tmp_path: Path) -> None:
    model = tmp_path / "model"
    engines.make_model(kind, model, seed=5)
    engine = engines.build(kind, "0.9.0", "float16", True, model, tmp_path)
    asker = engines.make_asker(engine, tmp_path / "s")
    answers = asker.ask(engines.PROMPTS)
    by_torch = compare(replace(asker, run=in_a_process), model, answers)
    by_numpy = compare(asker, model, answers)
    assert isinstance(by_torch, Comparison)
    assert isinstance(by_numpy, Comparison)
    assert by_torch.reference.by.startswith("transformers ")
    assert by_numpy.reference.by.startswith("numpy ")
    assert by_torch.agrees, by_torch
    assert by_torch.misread is None
    assert [one.tokens for one in by_torch.reference.prompts] == [
        one.tokens for one in by_numpy.reference.prompts
    ]


@pytest.mark.parametrize(
    "name", ["one layer's scales off by 8", "a KV cache that forgets", "another model's tokenizer"]
)
def test_it_finds_what_still_makes_words(name: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    engines.make_model("gpt2 taught", model, seed=5)
    engine = engines.build("gpt2 taught", "0.9.0", "float16", False, model, tmp_path)
    engines.damage(engine, next(damage for damage in DAMAGES if damage.name == name), tmp_path)
    asker = engines.make_asker(engine, tmp_path / "s")
    found = compare(replace(asker, run=in_a_process), model, asker.ask(engines.PROMPTS))
    assert isinstance(found, Comparison)
    assert not found.agrees


def test_a_models_own_code_is_not_run(tmp_path: Path) -> None:
    model = tmp_path / "model"
    engines.make_model("gpt2", model, seed=1)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    told = ask(PROGRAMS / "reference.py", model, [], tmp_path / "s")
    assert "contains custom code" in told["absent"]
    assert not (tmp_path / "ran").exists()


def test_a_model_that_is_damaged_is_absent(tmp_path: Path) -> None:
    model = tmp_path / "model"
    engines.make_model("gpt2", model, seed=1)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert ask(PROGRAMS / "reference.py", model, [], tmp_path / "s")["absent"]


def test_tokens_beyond_the_vocabulary_are_infinitely_far(tmp_path: Path) -> None:
    model = tmp_path / "model"
    engines.make_model("gpt2", model, seed=1)
    answer = {"prompt": "An engine", "prompt_tokens": [1, 2], "tokens": [3, 99999]}
    told = ask(PROGRAMS / "reference.py", model, [answer], tmp_path / "s")
    assert told["prompts"][0]["gaps"] == [float("inf")] * 2
