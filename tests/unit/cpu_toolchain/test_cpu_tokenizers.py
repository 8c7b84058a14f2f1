"""Tokenizers of each kind: text goes through unchanged and the end of a text is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trt_llm_cpu.console import BadInputError
from trt_llm_cpu.tokenizer import load_tokenizer

from trt_llm_pipeline.testing import models

TEXT = "An engine is a model, compiled: 3 steps."


@pytest.fixture
def gpt(tmp_path: Path) -> Path:
    models.make_gpt2(tmp_path / "gpt")
    return tmp_path / "gpt"


def config_of(directory: Path) -> dict[str, int]:
    return json.loads((directory / "config.json").read_text("utf-8"))


def test_tokenizer_json_round_trips(gpt: Path) -> None:
    codec = load_tokenizer(gpt)
    ids = codec.encode(TEXT)
    assert len(ids) > 3
    assert codec.decode(ids) == TEXT
    assert codec.end_id == config_of(gpt)["eos_token_id"]


def test_vocabulary_and_merges_give_the_same_tokens_as_tokenizer_json(gpt: Path) -> None:
    expected = load_tokenizer(gpt).encode(TEXT)
    (gpt / "tokenizer.json").unlink()
    codec = load_tokenizer(gpt)
    assert codec.encode(TEXT) == expected
    assert codec.decode(expected) == TEXT


@pytest.mark.parametrize("kind", ["json", "sentencepiece"])
def test_a_llama_text_begins_with_its_begin_token(tmp_path: Path, kind: str) -> None:
    models.make_llama(tmp_path, tokenizer=kind)  # type: ignore[arg-type]
    codec = load_tokenizer(tmp_path)
    config = config_of(tmp_path)
    ids = codec.encode(TEXT)
    assert ids[0] == config["bos_token_id"]
    assert codec.decode(ids) == TEXT
    assert codec.end_id == config["eos_token_id"]


@pytest.mark.parametrize("token", ['"<end>"', '{"content": "<end>", "lstrip": false}', "null"])
def test_the_end_token_is_found_in_any_of_its_forms(gpt: Path, token: str) -> None:
    end = config_of(gpt)["eos_token_id"]
    tokenizer = json.loads((gpt / "tokenizer.json").read_text("utf-8"))
    (added,) = [one for one in tokenizer["added_tokens"] if one["id"] == end]
    text = token.replace("<end>", added["content"])
    (gpt / "special_tokens_map.json").unlink()
    (gpt / "tokenizer_config.json").write_text(f'{{"eos_token": {text}}}', "utf-8")
    assert load_tokenizer(gpt).end_id == end


def test_several_configured_end_tokens_give_the_first(gpt: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (gpt / name).unlink()
    (gpt / "generation_config.json").write_text('{"eos_token_id": [7, 8]}', "utf-8")
    assert load_tokenizer(gpt).end_id == 7


def test_a_tokenizer_that_names_no_end_has_none(gpt: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"):
        (gpt / name).unlink()
    assert load_tokenizer(gpt).end_id is None


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("damaged", "ascii")
    with pytest.raises(BadInputError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
