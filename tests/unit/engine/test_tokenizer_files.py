"""Which tokenizer files are packed, what is added to them, and what is warned of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trt_llm_pipeline.engine.tokenizer_files import tokenizer_files

BYTE_LEVEL = {"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "merges": ["a b"]}}
METASPACE = {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "Fuse"}]}}


def repository(folder: Path, model: dict[str, Any] | None = None, **files: object) -> Path:
    """A model repository; `tokenizer_json=...` becomes `tokenizer.json`; what is no text, JSON."""
    folder.mkdir(exist_ok=True)
    if model is not None:
        files["config_json"] = model
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem}.{suffix}").write_text(text)
    return folder


def added(folder: Path) -> dict[str, Any]:
    """The packed tokenizer_config.json."""
    content = tokenizer_files(folder).files["tokenizer_config.json"]
    text = content if isinstance(content, bytes) else content.read_bytes()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_tokenizer_files_are_taken_and_weights_code_and_the_model_config_are_not(tmp_path: Path) -> None:
    folder = repository(tmp_path / "m", {"model_type": "gpt2"}, vocab_json={}, merges_txt="", LICENSE_txt="")
    for name in ("model.safetensors", "tokenization_x.py", "README.md", "qwen.tiktoken", "tekken.json"):
        (folder / name).write_text("x")
    (folder / "generation_config.json").write_text("{}")
    assert sorted(tokenizer_files(folder).files) == [
        "generation_config.json",
        "merges.txt",
        "qwen.tiktoken",
        "tekken.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


def test_a_tokenizer_config_that_names_its_class_is_the_same_file(tmp_path: Path) -> None:
    folder = repository(
        tmp_path / "m", tokenizer_json=BYTE_LEVEL, tokenizer_config_json={"tokenizer_class": "GPT2Tokenizer"}
    )
    result = tokenizer_files(folder)
    assert result.files["tokenizer_config.json"] == folder / "tokenizer_config.json"
    assert result.warnings == ()


def test_only_the_class_is_added_and_the_rest_keeps_its_order_and_values(tmp_path: Path) -> None:
    config = {"model_max_length": 1000000000000000019884624838656, "chat_template": "{{ 'é' }}", "a": 1.5}
    folder = repository(
        tmp_path / "m",
        {"model_type": "gpt2"},
        vocab_json={},
        merges_txt="",
        tokenizer_config_json=config,
    )
    assert list(added(folder).items()) == [*config.items(), ("tokenizer_class", "GPT2Tokenizer")]


@pytest.mark.parametrize(
    ("model", "files", "expected"),
    [
        ({"model_type": "gpt2"}, {"tokenizer_json": BYTE_LEVEL}, "GPT2Tokenizer"),
        ({"model_type": "gpt2"}, {"vocab_json": {}, "merges_txt": ""}, "GPT2Tokenizer"),
        ({"model_type": "gpt2"}, {"tokenizer_json": METASPACE}, "PreTrainedTokenizerFast"),
        ({"model_type": "llama"}, {"tokenizer_model": "x"}, "LlamaTokenizer"),
        ({"model_type": "llama"}, {"tokenizer_json": METASPACE}, "LlamaTokenizer"),
        ({"model_type": "llama"}, {"tokenizer_json": BYTE_LEVEL}, "PreTrainedTokenizerFast"),
        ({"model_type": "falcon"}, {"tokenizer_json": BYTE_LEVEL}, "PreTrainedTokenizerFast"),
        ({"model_type": "x", "tokenizer_class": "GPT2TokenizerFast"}, {"tokenizer_json": BYTE_LEVEL}, None),
        ({"model_type": "x", "tokenizer_class": "Evil"}, {"tokenizer_model": "x"}, "LlamaTokenizer"),
        (None, {"vocab_json": {}, "merges_txt": ""}, "GPT2Tokenizer"),
        (None, {"vocab_txt": "x"}, "BertTokenizer"),
        (None, {"spiece_model": "x"}, "T5Tokenizer"),
        ({"model_type": ["list"]}, {"tokenizer_json": BYTE_LEVEL}, "PreTrainedTokenizerFast"),
    ],
)
def test_the_class_follows_the_model_type_and_the_files(
    tmp_path: Path, model: dict[str, Any] | None, files: dict[str, object], expected: str | None
) -> None:
    folder = repository(tmp_path / "m", model, **files)
    assert added(folder)["tokenizer_class"] == (expected or (model or {})["tokenizer_class"])


@pytest.mark.parametrize("eos", [7, [7, 8]])
def test_the_generic_class_is_told_the_end_token_that_the_model_names_by_id(
    tmp_path: Path, eos: object
) -> None:
    tokenizer = {**BYTE_LEVEL, "added_tokens": [{"id": 3, "content": "<s>"}, {"id": 7, "content": "<|end|>"}]}
    folder = repository(
        tmp_path / "m", {"model_type": "falcon", "eos_token_id": eos}, tokenizer_json=tokenizer
    )
    assert added(folder)["eos_token"] == "<|end|>"
    assert tokenizer_files(folder).warnings == ()


def test_a_repository_without_a_tokenizer_gives_a_warning_and_no_tokenizer(tmp_path: Path) -> None:
    folder = repository(tmp_path / "nothing", {"model_type": "gpt2"})
    result = tokenizer_files(folder)
    assert result.files == {}
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("nothing has no tokenizer")


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        (
            {"tokenizer_json": BYTE_LEVEL, "tokenizer_config_json": "{"},
            "tokenizer_config.json is not valid JSON",
        ),
        (
            {"tokenizer_json": BYTE_LEVEL, "tokenizer_config_json": [1]},
            "tokenizer_config.json is not a JSON object",
        ),
        (
            {
                "qwen_tiktoken": "x",
                "tokenizer_config_json": {
                    "tokenizer_class": "QWenTokenizer",
                    "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
                },
            },
            "the repository's own Python code",
        ),
        (
            {"tokenizer_json": BYTE_LEVEL, "tokenizer_config_json": {"tokenizer_class": "TokenizersBackend"}},
            "known only to transformers 5",
        ),
        ({"tokenizer_json": BYTE_LEVEL}, "names no eos_token"),
        (
            {
                "tokenizer_json": {**BYTE_LEVEL, "model": {"merges": [["a", "b"]]}},
                "tokenizer_config_json": {"tokenizer_class": "GPT2Tokenizer"},
            },
            "merges as pairs",
        ),
        ({"qwen_tiktoken": "x"}, "no tokenizer class could be found out"),
    ],
)
def test_what_keeps_a_tokenizer_from_loading_is_warned_of(
    tmp_path: Path, files: dict[str, object], warning: str
) -> None:
    result = tokenizer_files(repository(tmp_path / "m", **files))
    assert len(result.warnings) == 1
    assert warning in result.warnings[0]


def test_remote_code_for_a_class_that_transformers_has_itself_is_no_obstacle(tmp_path: Path) -> None:
    config = {"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["x.LlamaTokenizer", None]}}
    folder = repository(tmp_path / "m", tokenizer_model="x", tokenizer_config_json=config)
    assert tokenizer_files(folder).warnings == ()


def test_a_link_out_of_the_repository_is_left_out_and_named(tmp_path: Path) -> None:
    folder = repository(tmp_path / "m", vocab_json={}, merges_txt="")
    (folder / "tokenizer.model").symlink_to("/etc/passwd")
    (folder / "vocab.txt").mkdir()
    result = tokenizer_files(folder)
    assert sorted(result.files) == ["merges.txt", "tokenizer_config.json", "vocab.json"]
    assert [warning.split()[0] for warning in result.warnings] == ["tokenizer.model", "vocab.txt"]


def test_links_inside_a_repository_and_into_a_hub_caches_blobs_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs = tmp_path / "models--a--b" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_text("merges")
    (folder / "merges.txt").symlink_to("../../blobs/123")
    (folder / "real.json").write_text("{}")
    (folder / "vocab.json").symlink_to("real.json")
    files = tokenizer_files(folder).files
    assert files["merges.txt"] == blobs.resolve() / "123"
    assert files["vocab.json"] == folder.resolve() / "real.json"


@pytest.mark.parametrize(
    "hostile",
    ["[" * 100_000, "null", '{"decoder": 5}', '{"decoder": {"type": "Sequence", "decoders": 3}}', "\xff"],
)
def test_a_hostile_tokenizer_json_never_raises(tmp_path: Path, hostile: str) -> None:
    folder = repository(tmp_path / "m", {"model_type": "llama"}, tokenizer_json=hostile)
    result = tokenizer_files(folder)
    assert "tokenizer.json" in result.files


def test_a_directory_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    result = tokenizer_files(tmp_path / "gone")
    assert result.files == {}
    assert "cannot look for a tokenizer" in result.warnings[0]
