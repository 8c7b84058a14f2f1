"""Bad input through a real Cog server: what went wrong, where, what to do; and the server stays READY."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Service
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text()

#: The config's text, and what the error must say.
BAD_CONFIGS = {
    "not_yaml": ("model_id: [", ["not_yaml.yaml", "not valid YAML"]),
    "empty": ("", ["empty.yaml", "is empty", "model_id, example_name and build"]),
    "a_list": ("- model_id", ["a_list.yaml:1", "is a list"]),
    "duplicate_key": (QUICK_START + "model_id: other\n", ["'model_id' is already on line"]),
    "unknown_key": (QUICK_START.replace("build:\n", "biuld:\n"), ["biuld", "did you mean build?"]),
    "no_model_id": (QUICK_START.replace("model_id:", "# "), ["model_id: is missing", "owner/name"]),
    "model_id_leads_out": (
        QUICK_START.replace("model_id: sshleifer/tiny-gpt2", "model_id: ../x"),
        ["'../x' is not a valid model id", "owner/name"],
    ),
    "model_id_too_deep": (
        QUICK_START.replace("model_id: sshleifer/tiny-gpt2", "model_id: a/b/c"),
        ["'a/b/c' is not a valid model id"],
    ),
    "unknown_example": (
        QUICK_START.replace("example_name: gpt", "example_name: gtp"),
        ["example_name", "'gtp' is no example", "gpt"],
    ),
    "script_missing": (
        QUICK_START.replace("script: build.py", "script: biuld.py"),
        ["build.script", "'biuld.py' is not in the example gpt", "build.py"],
    ),
    "unknown_option": (
        QUICK_START.replace("storage-type:", "storage-tpye:"),
        ["convert_to_ft.args.storage-tpye", "--storage-type"],
    ),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_mistake_in_a_config_is_named_before_the_hub_is_asked(service: Service, name: str) -> None:
    text, expected = BAD_CONFIGS[name]
    asked = len(service.hub.requests)
    prediction = service.cog.predict(config=service.config(f"{name}.yaml", text))
    assert prediction["status"] == "failed"
    for words in expected:
        assert words in prediction["error"]
    assert "Traceback" not in prediction["error"]
    assert len(service.hub.requests) == asked
    service.cog.wait_until_ready()


def test_config_address_that_answers_404_is_refused_by_cog(service: Service) -> None:
    prediction = service.cog.predict(config=f"{service.configs.url}/nothing.yaml")
    assert prediction["status"] == "failed"
    assert "404" in prediction["error"]
    service.cog.wait_until_ready()


def test_config_path_without_a_file(service: Service) -> None:
    prediction = service.cog.predict(config="./examples/gpt/no-such-config.yaml")
    assert prediction["status"] == "failed"
    assert "no-such-config.yaml: cannot be read: No such file or directory" in prediction["error"]


def test_model_that_is_not_on_the_hub(service: Service) -> None:
    text = QUICK_START.replace("sshleifer/tiny-gpt2", "nobody/nothing")
    prediction = service.cog.predict(config=service.config("no_model.yaml", text))
    assert prediction["status"] == "failed"
    assert "nobody/nothing" in prediction["error"]
    assert "model_id" in prediction["error"]


#: Tokens that cannot be one, and the part of each that nobody may see.
ODD_TOKENS = {
    "newline": ("hf_odd\nShape1", "Shape1"),
    "tab": ("hf_odd\tShape2", "Shape2"),
    "nul": ("hf_odd\0Shape3", "Shape3"),
    "not_latin": ("hf_odd\u043d\u0435Shape4", "Shape4"),
    "astral": ("hf_odd\U0001f511Shape5", "Shape5"),
    "lone_surrogate": ("hf_odd\ud800Shape6", "Shape6"),
    "word": ("supercalifragil", "supercalifragil"),
}
#: One that is no line, one that is no text and one that is a word; the rest is the slow half's.
QUICK = {"newline", "lone_surrogate", "word"}
SHAPES = [pytest.param(shape, marks=() if shape in QUICK else pytest.mark.slow) for shape in ODD_TOKENS]


class TestOddTokens:
    """Tokens that cannot be one: an error in words that does not show them, wherever they are given."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_as_an_input(self, service: Service, shape: str) -> None:
        token, hidden = ODD_TOKENS[shape]
        config = service.config("token.yaml", QUICK_START)
        seen = len(service.cog.output())
        service.cog.wait_until_ready()
        inputs = {"config": config, "hf_token": token}
        status, answer = service.cog.request("POST", "/predictions", {"input": inputs}, timeout=120)
        if status < 400:  # Cog itself refuses what is no Unicode
            assert answer["status"] == "failed"
            assert "the input hf_token" in answer["error"]
            assert "so it cannot be a token" in answer["error"]
        self.shows_nothing(service, answer, hidden, seen)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_in_the_config(self, service: Service, shape: str) -> None:
        token, hidden = ODD_TOKENS[shape]
        text = f"hf_token: {json.dumps(token)}\n{QUICK_START}"  # YAML knows JSON's escapes
        seen = len(service.cog.output())
        answer = service.cog.predict(config=service.config("token.yaml", text))
        assert answer["status"] == "failed"
        assert "token.yaml:1" in answer["error"], answer
        self.shows_nothing(service, answer, hidden, seen)

    @staticmethod
    def shows_nothing(service: Service, answer: dict[str, Any], hidden: str, seen: int) -> None:
        service.cog.wait_until_ready()
        told = json.dumps(answer.get("error", "")) + json.dumps(answer.get("logs", ""))
        printed = service.cog.output()[seen:]
        assert hidden not in told
        assert hidden not in printed
        assert "Traceback" not in told


class TestFailingSteps:
    """Steps whose script fails, on a toolchain of small scripts."""

    def test_exit_code_and_last_lines(self, service: Service) -> None:
        # The quick start, but reading a checkpoint that is not there.
        text = QUICK_START.replace("model_dir: ./c-model/gpt2/1-gpu", "model_dir: ./no-such-checkpoint")
        before = (service.workspace / "engine.tar.gz").stat().st_ino if self._has_archive(service) else None
        prediction = service.cog.predict(config=service.config("step_fails.yaml", text))
        assert prediction["status"] == "failed"
        assert "step build: build.py exited with code" in prediction["error"]
        assert "no-such-checkpoint" in prediction["error"]
        after = (service.workspace / "engine.tar.gz").stat().st_ino if self._has_archive(service) else None
        assert before == after

    def test_output_dir_that_the_step_does_not_write_to(self, service: Service) -> None:
        text = QUICK_START.replace(
            "  output_dir: ./c-model/gpt2/1-gpu", "  output_dir: ./c-model/gpt2/2-gpu", 1
        )
        prediction = service.cog.predict(config=service.config("wrong_dir.yaml", text))
        assert prediction["status"] == "failed"
        assert "does not exist" in prediction["error"]
        assert "its files went to ./c-model/gpt2/1-gpu" in prediction["error"]
        assert "wrong_dir.yaml:" in prediction["error"]

    def test_next_good_request_succeeds(self, service: Service) -> None:
        prediction = service.cog.predict(config="./examples/gpt/config.yaml")
        assert prediction["status"] == "succeeded", prediction["error"]

    @staticmethod
    def _has_archive(service: Service) -> bool:
        return Path(service.workspace / "engine.tar.gz").exists()
