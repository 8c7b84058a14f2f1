"""Which JSON files make a library load code, in whatever shape they say it."""

from __future__ import annotations

import json

import pytest

from trt_llm_pipeline.model_source.config_code import asked_for, is_config, is_index


@pytest.mark.parametrize(
    "path",
    [
        *("config.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json"),
        *("processor_config.json", "adapter_config.json", "config.4.0.json", "a/b/Config.JSON"),
    ],
)
def test_a_config(path: str) -> None:
    assert is_config(path)


@pytest.mark.parametrize("path", ["tokenizer.json", "vocab.json", "config.yaml", "config/notes.txt"])
def test_no_config(path: str) -> None:
    assert not is_config(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"auto_map": {"AutoConfig": "conf.Evil"}}, "auto_map: AutoConfig = conf.Evil"),
        ({"auto_map": {"AutoConfig": "other/repo--conf.Evil"}}, "other/repo--conf.Evil"),
        ({"auto_map": ["tok.Slow", None]}, "auto_map"),
        ({"auto_map": "AutoConfig"}, "auto_map"),
        ({"text_config": {"inner": [{"auto_map": {"AutoModel": "m.M"}}]}}, "AutoModel = m.M"),
        ({"custom_pipelines": {"text": {"impl": "p.P"}}}, "custom_pipelines: text"),
        ({"custom_generate": "generate.py"}, "custom_generate"),
        ({"trust_remote_code": True}, "trust_remote_code: true"),
    ],
)
def test_what_makes_transformers_import(content: object, what: str) -> None:
    assert what in str(asked_for("config.json", json.dumps(content).encode()))


@pytest.mark.parametrize(
    "content",
    [
        rb'{"auto\u005fmap": {"AutoConfig": "conf.Evil"}}',
        b'{"auto_map": {"AutoConfig": "conf.Evil"}, "auto_map": null}',
        b'{"x": NaN, "auto_map": {"AutoConfig": "conf.Evil"}}',
        '{"auto_map": {"AutoConfig": "conf.Evil"}}'.encode("utf-16"),
        b'// a comment\n{"auto_map": {"AutoConfig": "conf.Evil"}}',
        b'{"auto_map": {"AutoConfig": "conf.Evil"}',
        b"[" * 100_000 + b'{"auto_map": 1}',
    ],
    ids=["escaped", "twice", "not quite JSON", "UTF-16", "comment", "cut short", "too deep"],
)
def test_however_it_is_written(content: bytes) -> None:
    assert "auto_map" in str(asked_for("config.json", content))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"auto_map": {}},
        {"auto_map": None},
        {"trust_remote_code": False},
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "_name_or_path": "somebody/else"},
        ["auto_map"],
        "auto_map",
    ],
)
def test_what_loads_nothing(content: object) -> None:
    assert asked_for("config.json", json.dumps(content).encode()) is None


def test_an_adapter_loads_the_model_that_it_names() -> None:
    content = b'{"base_model_name_or_path": "somebody/evil"}'
    assert "somebody/evil" in str(asked_for("adapter_config.json", content))
    assert asked_for("config.json", content) is None


@pytest.mark.parametrize("name", ["/etc/x.bin", "../x.bin", "a/../../x.bin"])
def test_an_index_that_leads_out(name: str) -> None:
    content = json.dumps({"metadata": {}, "weight_map": {"a": "model.bin", "b": name}}).encode()
    assert is_index("pytorch_model.bin.index.json")
    assert name in str(asked_for("pytorch_model.bin.index.json", content))


def test_an_index_that_does_not() -> None:
    content = b'{"weight_map": {"auto_map": "model-00001-of-00002.bin", "b": "sub/model..bin"}}'
    assert asked_for("pytorch_model.bin.index.json", content) is None
