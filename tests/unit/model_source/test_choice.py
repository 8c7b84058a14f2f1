"""Which files of a repository are downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.errors import ModelSourceError
from trt_llm_pipeline.model_source import model_files
from trt_llm_pipeline.model_source.choice import choose_files, foreign_format_of, weight_format_of

LLAMA_2 = [
    "LICENSE.txt",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin",
    "pytorch_model.bin.index.json",
    "tokenizer.model",
]


def chosen(paths: list[str], weight_format: str | None = None) -> list[str]:
    return list(choose_files(paths, weight_format, "owner/model"))


def test_safetensors_are_preferred() -> None:
    assert chosen(LLAMA_2) == [path for path in LLAMA_2 if "pytorch" not in path]


def test_the_wanted_format_comes_with_its_own_index() -> None:
    assert chosen(LLAMA_2, "bin") == [path for path in LLAMA_2 if "safetensors" not in path]


def test_bin_is_taken_where_there_is_nothing_better() -> None:
    paths = ["config.json", "flax_model.msgpack", "pytorch_model.bin", "rust_model.ot", "tf_model.h5"]
    assert chosen(paths) == ["config.json", "pytorch_model.bin"]


def test_weights_at_the_root_count_more_than_those_of_a_sub_folder() -> None:
    assert chosen(["1_Dense/model.safetensors", "pytorch_model.bin"]) == ["pytorch_model.bin"]
    assert chosen(["original/consolidated.00.pth", "params.json"]) == [
        "original/consolidated.00.pth",
        "params.json",
    ]


def test_the_same_weights_under_another_name_are_left_out() -> None:
    mistral = ["config.json", "consolidated.safetensors", "model-00001-of-00001.safetensors", "params.json"]
    assert chosen(mistral) == [path for path in mistral if not path.startswith("consolidated")]
    assert chosen(["consolidated.safetensors", "params.json"]) == ["consolidated.safetensors", "params.json"]


def test_code_and_tokenizers_of_any_kind_are_kept() -> None:
    paths = ["a.safetensors", "modeling_qwen.py", "qwen.tiktoken", "tokenizer.model", "vocab.json"]
    assert chosen(paths) == paths


@pytest.mark.parametrize(
    "path",
    [
        "model.onnx",
        "onnx/model.onnx_data",
        "onnx/config.json",
        "tf_model.h5",
        "tf_model-00001-of-00002.h5",
        "flax_model.msgpack",
        "model.gguf",
        "64.tflite",
        "rust_model.ot",
        "coreml/model.mlpackage/Data/x.bin",
        "openvino_model.bin",
        "openvino/openvino_model.bin",
        "model.ckpt.data-00000-of-00001",
    ],
)
def test_formats_that_no_script_reads_are_left_out(path: str) -> None:
    assert foreign_format_of(path) is not None
    assert weight_format_of(path) is None
    assert chosen([path, "model.safetensors"]) == ["model.safetensors"]


@pytest.mark.parametrize("path", ["training_args.bin", "checkpoint-10/optimizer.pt"])
def test_a_trainers_leftovers_are_no_weights(path: str) -> None:
    assert weight_format_of(path) is None
    with pytest.raises(ModelSourceError):
        chosen(["config.json", path])


def test_nemo_archives_are_taken_for_the_nemo_converter() -> None:
    assert chosen(["README.md", "gpt.nemo"]) == ["README.md", "gpt.nemo"]


@pytest.mark.parametrize(
    ("paths", "weight_format", "sentence"),
    [
        (LLAMA_2, "pt", "has no pt weights; it has safetensors and bin. Put `weight_format: safetensors` or"),
        (["pytorch_model.bin"], "safetensors", "Put `weight_format: bin` in the config"),
        (["model.gguf", "model.onnx"], None, "only GGUF and ONNX files, which no TensorRT-LLM script reads"),
        (["README.md"], None, "has no weights in a format that can be converted"),
        ([], "bin", "has no bin weights"),
    ],
)
def test_a_refusal_names_what_is_there_and_what_to_write(
    paths: list[str], weight_format: str | None, sentence: str
) -> None:
    with pytest.raises(ModelSourceError) as caught:
        chosen(paths, weight_format)
    assert sentence in str(caught.value)
    assert "owner/model" in str(caught.value)


PATHS = st.lists(
    st.sampled_from([*LLAMA_2, "x.pt", "onnx/x.onnx", "tf_model.h5", "a/b.bin", "optimizer.bin", "x.gguf"]),
    unique=True,
)


@given(PATHS, st.sampled_from([None, "safetensors", "bin", "pt"]))
def test_a_choice_holds_weights_of_exactly_one_format(paths: list[str], weight_format: str | None) -> None:
    try:
        wanted = chosen(paths, weight_format)
    except ModelSourceError:
        assert weight_format not in {weight_format_of(path) for path in paths} or weight_format is None
        return
    formats = {weight_format_of(path) for path in wanted} - {None}
    assert len(formats) == 1
    assert weight_format in (None, *formats)
    assert set(wanted) <= set(paths)


def test_bookkeeping_is_no_part_of_a_model(tmp_path: Path) -> None:
    for path in ("config.json", "sub/x.json", ".cache/huggingface/download/x.metadata", ".gitattributes"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert model_files(tmp_path) == (".gitattributes", "config.json", "sub/x.json")
