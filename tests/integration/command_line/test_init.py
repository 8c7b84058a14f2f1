"""`trt-llm-pipeline init`: a config that validates, or a refusal that says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.integration.conftest import TOOLCHAIN
from tests.unit.fit.known import known
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.preflight.starting import EXAMPLES, MODEL_TYPES, PRECISIONS, examples
from trt_llm_pipeline.testing.hub import HubServer

NO_WEIGHTS = b"\2\0\0\0\0\0\0\0{}"
SEVENTY = known("Llama 2 70B").config
MODELS = {
    "acme/llama-7b": {**SEVENTY, "num_hidden_layers": 8, "num_key_value_heads": 64},
    "acme/short": {**SEVENTY, "num_hidden_layers": 2, "max_position_embeddings": 1000},
    "acme/huge": {**SEVENTY, "num_hidden_layers": 80_000},
    "acme/qwen": {**SEVENTY, "model_type": "qwen2"},
    "acme/mamba": {"model_type": "mamba"},
}


@pytest.fixture(scope="module", autouse=True)
def small_repositories(hub: HubServer) -> None:
    for model_id, content in MODELS.items():
        files: dict[str, Path | bytes] = {"config.json": json.dumps(content).encode()}
        hub.add_repository(model_id, {**files, "model.safetensors": NO_WEIGHTS})


@pytest.fixture
def env(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    return {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(tmp_path / "ws")}


def run(env: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=env)


@pytest.mark.parametrize(
    ("model", "more", "example", "option"),
    [
        ("acme/llama-7b", [], "llama-2-7b-chat-fp16-1gpu", ""),
        pytest.param(
            *("acme/llama-7b", ["--precision", "int8"], "llama-2-7b-chat-int8-1gpu", "use_weight_only"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("acme/llama-7b", ["--gpu", "H100"], "llama-2-7b-chat-fp16-1gpu", ""), marks=pytest.mark.slow
        ),
        ("sshleifer/tiny-gpt2", [], "gpt2-medium", "convert_checkpoint.py"),
    ],
)
def test_what_it_writes_validates(
    env: dict[str, str], model: str, more: list[str], example: str, option: str
) -> None:
    done = run(env, "init", "--model", model, *more)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "config.yaml\n"
    text = Path("config.yaml").read_text()
    assert loads(text).model_id == model
    assert option in text
    assert f"examples/{'gpt' if 'gpt' in example else 'llama'}/{example}" in text
    assert "OK for cpu toolchain (" in text
    assert "\n  args:\n" in text
    checked = run(env, "validate", "config.yaml")
    assert checked.exit_code == 0, checked.stderr
    again = run(env, "init", "--model", model)
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    assert Path("config.yaml").read_text() == text


@pytest.mark.slow
def test_the_answer_is_bounded_where_the_script_would_take_more_than_the_model(env: dict[str, str]) -> None:
    text = run(env, "init", "--model", "sshleifer/tiny-gpt2", "--output", "-").stdout
    args = loads(text).build.args
    assert (args["max_input_len"], args["max_output_len"]) == ("924", "100"), text
    assert run(env, "init", "--model", "sshleifer/tiny-gpt2", "--output", "-").stdout == text


@pytest.mark.slow
def test_no_more_tokens_than_the_model_takes(env: dict[str, str]) -> None:
    text = run(env, "init", "--model", "acme/short", "--output", "-").stdout
    args = loads(text).build.args
    assert (args["max_input_len"], args["max_output_len"]) == ("500", "500")
    env["TRTLLM_DIR"] = str(older_only(TOOLCHAIN, Path("older")))
    older = run(env, "init", "--model", "acme/short", "--output", "-").stdout
    args = loads(older).build.args
    assert (args["max_input_len"], args["max_output_len"]) == ("500", "500")


def older_only(toolchain: Path, place: Path) -> Path:
    """The toolchain without the scripts of 0.9."""
    shutil.copytree(toolchain, place)
    (place / "examples" / "llama" / "convert_checkpoint.py").unlink()
    return place.resolve()


@pytest.mark.parametrize(
    ("model", "more", "code", "said"),
    [
        ("acme/mamba", [], 2, "is of the type 'mamba', and there are examples for "),
        (
            "acme/llama-7b",
            ["--precision", "fp8"],
            2,
            "llama-3.1-8b-instruct-fp8-1gpu.yaml: TensorRT-LLM >=0.12",
        ),
        (
            "acme/llama-7b",
            ["--precision", "bf16"],
            2,
            "there is no example of llama with bf16; there is fp16",
        ),
        ("acme/qwen", [], 2, "'qwen' is no example of the cpu toolchain"),
        ("acme/huge", ["--gpu", "L4"], 2, "llama-2-7b-chat-fp16-1gpu.yaml: it does not fit L4"),
        ("acme/nothing", [], 3, "acme/nothing"),
        ("acme/llama-7b", ["--precision", "fp3"], 2, "'fp3' is none of fp16, bf16"),
        ("acme/llama-7b", ["--gpu", "H1"], 2, "H100"),
    ],
)
def test_what_is_not_known_is_refused_and_nothing_is_written(
    env: dict[str, str], model: str, more: list[str], code: int, said: str
) -> None:
    done = run(env, "init", "--model", model, *more)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
    assert not Path("config.yaml").exists()


def test_a_name_without_its_owner_is_a_model_that_is_not_there(env: dict[str, str]) -> None:
    done = run(env, "init", "--model", "tiny-gpt2", "--output", "-")
    assert done.exit_code == 3
    assert "has no model tiny-gpt2" in done.stderr


@pytest.mark.parametrize(
    "model", ["https://huggingface.co/sshleifer/tiny-gpt2", "a/b/c", "a b", "", "./local", "a/x.git"]
)
def test_what_is_no_name_of_a_model_is_refused_as_in_a_config(env: dict[str, str], model: str) -> None:
    done = run(env, "init", "--model", model)
    said = f"--model: {model!r} is not a valid model id; write it as on the Hub: 'name' or 'owner/name'"
    assert (done.exit_code, said in " ".join(done.stderr.split())) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("none/x.yaml", "the output none/x.yaml has no directory to lie in; make "),
        (".", "the output . is a directory; name a file in it"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_hub_is_asked(
    env: dict[str, str], hub: HubServer, output: str, said: str
) -> None:
    before = len(hub.requests)
    done = run(env, "init", "--model", "acme/llama-7b", "--output", output)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    assert len(hub.requests) == before


def test_every_example_is_known_by_its_name() -> None:
    found = list(examples())
    named = {example.path for example in found}
    left = {path.name for path in EXAMPLES.glob("*/*.yaml") if path not in named}
    assert left == {"config.yaml", "tiny.yaml"}  # the quick start, which names its model everywhere; a fleet
    assert {example.model_type for example in found} == set(MODEL_TYPES.values())
    assert {example.precision for example in found} <= set(PRECISIONS)
    for example in found:
        assert (example.gpus > 1) == ("gpu" in example.path.name and "1gpu" not in example.path.name)


def test_code_of_a_model_is_never_allowed_for_it(hub: HubServer, env: dict[str, str]) -> None:
    from trt_llm_pipeline.preflight.starting import _adapted

    (example,) = [each for each in examples() if each.model_type == "qwen"]
    assert "allow_repository_code: true" in example.path.read_text()
    text = _adapted(example, "acme/other", {})
    assert loads(text).allow_repository_code is False
    assert "# allow_repository_code: true" in text
