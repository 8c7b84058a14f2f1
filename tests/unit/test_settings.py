"""What the service's environment decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_llm_pipeline.errors import BadArgument, PipelineError
from trt_llm_pipeline.settings import KEEP_BUILDS, Settings


def test_without_variables_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({})
    assert settings.workspace.root == tmp_path / "workspace"
    assert (settings.token, settings.step_timeout, settings.keep_builds) == (None, None, KEEP_BUILDS)
    assert list(tmp_path.iterdir()) == []


def test_the_argument_wins_over_the_variable(tmp_path: Path) -> None:
    env = {"TRT_LLM_WORKSPACE": str(tmp_path / "variable")}
    assert Settings.from_env(env).workspace.root == tmp_path / "variable"
    assert Settings.from_env(env, tmp_path / "argument").workspace.root == tmp_path / "argument"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_a_token_is_taken_out_of_what_steps_get(name: str) -> None:
    settings = Settings.from_env({name: "hf_secret", "PATH": "/bin"})
    assert settings.token == "hf_secret"
    assert settings.env == {"PATH": "/bin"}


def test_the_first_of_several_tokens_counts_and_none_is_passed_on() -> None:
    settings = Settings.from_env({"HUGGING_FACE_HUB_TOKEN": "hf_old", "HF_TOKEN": "hf_new", "A": "b"})
    assert (settings.token, settings.env) == ("hf_new", {"A": "b"})


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_what_cannot_be_a_token_is_refused_with_the_variables_name(name: str) -> None:
    with pytest.raises(BadArgument, match=f"^{name} is a plain word"):
        Settings.from_env({name: "secretly"})


def test_what_cannot_be_a_token_is_refused_with_the_inputs_name() -> None:
    with pytest.raises(BadArgument, match=r"^the input hf_token holds a space"):
        Settings.from_env({"HF_TOKEN": "hf_good"}).hub_token("hf_a b", None)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("TRT_LLM_STEP_TIMEOUT", "90", "step_timeout", 90.0),
        ("TRT_LLM_STEP_TIMEOUT", "", "step_timeout", None),
        ("TRT_LLM_KEEP_BUILDS", "2", "keep_builds", 2),
        ("TRT_LLM_KEEP_BUILDS", "0.5", "keep_builds", 1),
        ("TRT_LLM_DISK_CHECK", "off", "disk_check", False),
        ("TRT_LLM_FIT_CHECK", "off", "fit_check", False),
        ("TRT_LLM_FIT_CHECK", "", "fit_check", True),
        ("TRT_LLM_CACHE_LIMIT", "1.5 GB", "cache_limit", 1_500_000_000),
        ("TRT_LLM_CACHE_LIMIT", "1000", "cache_limit", 1000),
    ],
)
def test_numbers(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(Settings.from_env({variable: text}), field) == value


@pytest.mark.parametrize("variable", ["TRT_LLM_STEP_TIMEOUT", "TRT_LLM_KEEP_BUILDS", "TRT_LLM_CACHE_LIMIT"])
@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1h"])
def test_nonsense_is_refused_with_the_variables_name(variable: str, text: str) -> None:
    with pytest.raises(PipelineError, match=f"{variable} is '{text}'"):
        Settings.from_env({variable: text})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(("HF_ENDPOINT", text) for text in ("nonsense", "ftp://hub", "http://", "http://hub:port")),
        ("HF_HUB_OFFLINE", "maybe"),
    ],
)
def test_what_models_come_by_is_checked_too(variable: str, text: str) -> None:
    with pytest.raises(PipelineError, match=f"^{variable} is '{text.rstrip('/')}'; set it to"):
        Settings.from_env({variable: text})


@pytest.mark.parametrize("text", ["", "0", "off", "No", "false", "1", "ON", "yes", "True"])
def test_offline_is_said_as_the_hubs_own_library_has_it(text: str) -> None:
    assert Settings.from_env({"HF_HUB_OFFLINE": text}).env == {"HF_HUB_OFFLINE": text}


@pytest.mark.parametrize("text", ["LANG,=", "LANG=C LC_ALL"])
def test_variables_for_steps_have_names_and_no_values(text: str) -> None:
    with pytest.raises(PipelineError, match=r"TRT_LLM_STEP_ENV has '[^']*=[^']*'; write the names"):
        Settings.from_env({"TRT_LLM_STEP_ENV": text})


def test_a_server_is_for_strangers_and_a_terminal_for_one_owner() -> None:
    assert not Settings.from_env({}).reach.inside
    assert "TRT_LLM_SHARED_MODELS" not in Settings.from_env({}).env
    own = Settings.of_one_owner({})
    assert own.reach.inside
    assert own.env["TRT_LLM_SHARED_MODELS"] == "1"
    kept = {"TRT_LLM_SHARED_MODELS": "0", "TRT_LLM_ALLOW_PRIVATE_ADDRESSES": "0"}
    strict = Settings.of_one_owner(kept)
    assert not strict.reach.inside
    assert strict.env.items() >= kept.items()


@pytest.mark.parametrize("variable", ["TRT_LLM_SHARED_MODELS", "TRT_LLM_ALLOW_PRIVATE_ADDRESSES"])
def test_permissions_are_one_or_nought(variable: str) -> None:
    with pytest.raises(PipelineError, match=f"{variable} is 'on'; set it to 1 or 0"):
        Settings.from_env({variable: "on"})
