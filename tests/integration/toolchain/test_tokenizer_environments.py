"""Packed tokenizers load with the transformers of cog-triton's time and with today's, beside an engine's
config."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.conftest import ROOT
from trt_llm_pipeline.engine.tokenizer_files import TOKENIZER_CLASSES, tokenizer_files
from trt_llm_pipeline.testing.tiny_text import (
    write_gpt2_tokenizer,
    write_llama3_tokenizer,
    write_sentencepiece_tokenizer,
)

TEXT = "The engine said: hello  world, 12 ranks \u00e9!\n"
ENGINE_CONFIG = {"builder_config": {"name": "gpt", "precision": "float16"}, "plugin_config": {}}

LOAD = """
import json, sys
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

text, folders, classes = json.load(sys.stdin)
loaded = {}
for folder in folders:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    loaded[folder] = {
        "ids": ids,
        "text": tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        "eos": tokenizer.eos_token,
    }
unknown = [name for name in classes if tokenizer_class_from_name(name) is None]
json.dump({"loaded": loaded, "unknown": unknown}, sys.stdout)
"""

Writer = Callable[..., Any]
MAPS = ("special_tokens_map.json", "tokenizer_config.json")

# name: (what writes the repository, the model's config.json, files taken away, end token)
REPOSITORIES: dict[str, tuple[Writer, dict[str, Any], tuple[str, ...], str]] = {
    "gpt2": (write_gpt2_tokenizer, {"model_type": "gpt2"}, (), "<|endoftext|>"),
    "gpt2-tokenizer-json-alone": (
        write_gpt2_tokenizer,
        {"model_type": "gpt2"},
        ("vocab.json", "merges.txt", *MAPS),
        "<|endoftext|>",
    ),
    "gpt2-vocab-and-merges-alone": (
        write_gpt2_tokenizer,
        {"model_type": "gpt2"},
        ("tokenizer.json", *MAPS),
        "<|endoftext|>",
    ),
    "starcoder": (write_gpt2_tokenizer, {"model_type": "gpt_bigcode"}, MAPS, "<|endoftext|>"),
    "neox": (
        write_gpt2_tokenizer,
        {"model_type": "gpt_neox"},
        ("vocab.json", "merges.txt", *MAPS),
        "<|endoftext|>",
    ),
    "llama-2": (write_sentencepiece_tokenizer, {"model_type": "llama"}, (), "</s>"),
    "llama-2-tokenizer-model-alone": (write_sentencepiece_tokenizer, {"model_type": "llama"}, MAPS, "</s>"),
    "llama-3": (write_llama3_tokenizer, {"model_type": "llama"}, (), "<|endoftext|>"),
    "llama-3-tokenizer-json-alone": (
        write_llama3_tokenizer,
        {"model_type": "llama", "eos_token_id": [1]},
        MAPS,
        "<|endoftext|>",
    ),
    "unknown-model": (
        write_llama3_tokenizer,
        {"model_type": "no-such-model", "eos_token_id": 1},
        MAPS,
        "<|endoftext|>",
    ),
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[int]]:
    """Unpacked engine directories, and the ids that each one's tokenizer must give."""
    top = tmp_path_factory.mktemp("tokenizers")
    expected = {}
    for name, (write, model, without, _) in REPOSITORIES.items():
        repository, engine = top / "models" / name, top / "engines" / name
        repository.mkdir(parents=True)
        engine.mkdir(parents=True)
        made = write(repository, 400, positions=64)
        _as_before_2024_autumn(repository / "tokenizer.json")
        for file in without:
            (repository / file).unlink(missing_ok=True)
        _drop_class(repository / "tokenizer_config.json")
        (repository / "config.json").write_text(json.dumps(model))
        packed = tokenizer_files(repository)
        assert packed.warnings == ()
        assert "config.json" not in packed.files
        for file, content in packed.files.items():
            (engine / file).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        (engine / "config.json").write_text(json.dumps(ENGINE_CONFIG))
        expected[engine] = _ids(made)
    return expected


def _ids(made: Any) -> list[int]:
    if hasattr(made, "EncodeAsIds"):
        return [made.bos_id(), *made.EncodeAsIds(TEXT)]
    return list(made.encode(TEXT).ids)


def _drop_class(path: Path) -> None:
    if path.exists():
        config = json.loads(path.read_text())
        del config["tokenizer_class"]
        path.write_text(json.dumps(config))


def _as_before_2024_autumn(path: Path) -> None:
    """Write merges as strings: what repositories of cog-triton's time hold."""
    if path.exists():
        tokenizer = json.loads(path.read_text())
        merges = tokenizer["model"]["merges"]
        tokenizer["model"]["merges"] = [
            merge if isinstance(merge, str) else " ".join(merge) for merge in merges
        ]
        path.write_text(json.dumps(tokenizer))


def _check(python: Path | str, engines: dict[Path, list[int]], home: Path) -> None:
    request = json.dumps([TEXT, [str(engine) for engine in engines], sorted(set(TOKENIZER_CLASSES.values()))])
    done = subprocess.run(
        [python, "-c", LOAD],
        input=request,
        capture_output=True,
        text=True,
        cwd=home,
        env={"HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["unknown"] == []
    eos = {name: case[-1] for name, case in REPOSITORIES.items()}
    assert answer["loaded"] == {
        str(engine): {"ids": ids, "text": TEXT, "eos": eos[engine.name]} for engine, ids in engines.items()
    }


@contextmanager
def _environment(name: str) -> Iterator[Path]:
    """The interpreter of a virtual environment kept beside the source, made again when its pins change."""
    pins = ROOT / "requirements" / f"transformers-{name}.txt"
    wanted = "\n".join([sys.version, pins.read_text(), (pins.parent / "constraints.txt").read_text()])
    folder = ROOT / f".venv-transformers-{name}"
    locks = ROOT / ".pytest_cache"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / f"{folder.name}.lock"):
        made_from = folder / "made-from.txt"
        if not made_from.exists() or made_from.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([folder / "bin" / "pip", "install", "--quiet", "-r", pins], check=True)
            made_from.write_text(wanted)
    yield folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["4.38", "current"])
def test_packed_tokenizers_load_in_an_environment_of_their_own(
    name: str, engines: dict[Path, list[int]], tmp_path: Path
) -> None:
    with _environment(name) as python:
        _check(python, engines, tmp_path)


def test_packed_tokenizers_load_with_the_transformers_installed_here(
    engines: dict[Path, list[int]], tmp_path: Path
) -> None:
    pytest.importorskip("transformers", reason="its CPU reference is installed for Python 3.11 alone")
    _check(sys.executable, engines, tmp_path)
