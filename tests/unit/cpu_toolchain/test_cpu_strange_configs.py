"""Whatever a config file says, a script ends with an exit code and a sentence, never with a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toolchain_support import (
    GPT_BUILD,
    GPT_CONVERT,
    LLAMA_BUILD,
    LLAMA_CONVERT,
    RUN,
    TRTLLM_BUILD,
    ok,
    run_script,
)

from trt_llm_pipeline.testing import models

STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(
        st.sampled_from(["factor", "rope_type", "world_size", "quant_algo"]), st.text(max_size=6)
    ),
)

# The file, and how the script that reads it is called. `{dir}` is where the file is.
READERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gpt": (GPT_CONVERT, ("-i", "{dir}", "-o", "{out}")),
    "llama": (LLAMA_BUILD, ("--model_dir", "{dir}", "--output_dir", "{out}")),
    "unified": (TRTLLM_BUILD, ("--checkpoint_dir", "{dir}", "--output_dir", "{out}")),
    "engine": (RUN, ("--engine_dir", "{dir}", "--tokenizer_dir", "{gpt}", "--max_output_len", "2")),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strange")
    models.make_gpt2(root / "gpt", vocab_size=300, positions=32, hidden=32)
    models.make_llama(root / "llama", vocab_size=300, hidden=32, heads=4, intermediate=48)
    ok(LLAMA_CONVERT, "--model_dir", root / "llama", "--output_dir", root / "unified")
    ok(GPT_CONVERT, "-i", root / "gpt", "-o", root / "ft")
    ok(GPT_BUILD, "--model_dir", root / "ft/1-gpu", "--output_dir", root / "engine")
    return root


@pytest.mark.parametrize("kind", READERS)
@settings(
    max_examples=60,
    derandomize=True,
)
@given(data=st.data())
def test_any_value_of_any_key_ends_in_an_exit_code(
    work: Path, capfd: pytest.CaptureFixture[str], kind: str, data: st.DataObject
) -> None:
    path = work / kind / "config.json"
    original = path.read_text("utf-8")
    config: dict[str, Any] = json.loads(original)
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    part = data.draw(st.sampled_from(parts))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(STRANGE)
    script, arguments = READERS[kind]
    folders = {"dir": path.parent, "out": work / "out", "gpt": work / "gpt"}
    capfd.readouterr()
    try:
        path.write_text(json.dumps(config), "utf-8")
        code = run_script(script, *(argument.format(**folders) for argument in arguments))
    finally:
        path.write_text(original, "utf-8")
    errors = capfd.readouterr().err
    assert code in (0, 1, 2)
    assert errors.count("\n") == (code != 0), errors


@settings(
    max_examples=60,
    derandomize=True,
)
@given(data=st.data())
def test_any_line_of_config_ini_ends_in_an_exit_code(
    work: Path, capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    path = work / "ft/1-gpu/config.ini"
    original = path.read_text("utf-8")
    lines = original.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = f"{lines[number].partition(' = ')[0]} = {data.draw(STRANGE)}"
    capfd.readouterr()
    try:
        path.write_text("\n".join(lines), "utf-8")
        code = run_script(GPT_BUILD, "--model_dir", path.parent, "--output_dir", work / "out")
    finally:
        path.write_text(original, "utf-8")
    errors = capfd.readouterr().err
    assert code in (0, 1, 2)
    assert errors.count("\n") == (code != 0), errors
