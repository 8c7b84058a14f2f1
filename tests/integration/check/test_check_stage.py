"""The check as a stage of real builds, with real processes: what it tells, and what it stops."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline import inspection, pipeline
from trt_llm_pipeline.errors import CheckFailed
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text()
Build = Callable[..., tuple[Recorder, pipeline.BuildResult]]

_ZEROED = """
    from trt_llm_cpu.weights import Weight

    weights = [Weight(w.name, w.dtype, w.shape, lambda w=w: w.load() * 0) for w in weights]
    size ="""


@pytest.fixture
def build(tmp_path: Path, hub: HubServer) -> Build:
    def run(text: str = QUICK_START, toolchain: Path = TOOLCHAIN) -> tuple[Recorder, pipeline.BuildResult]:
        env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(toolchain), "PATH": "/usr/bin:/bin"}
        settings = Settings.from_env({**env, "TRT_LLM_WORKSPACE": str(tmp_path / "ws")})
        story = Recorder()
        return story, pipeline.build(validate(text, "config.yaml", settings), settings, story)

    return run


@pytest.fixture
def careless(tmp_path: Path) -> Path:
    """A toolchain whose engines have lost their weights; its scripts exit 0."""
    copy = tmp_path / "careless"
    shutil.copytree(TOOLCHAIN, copy)
    path = copy / "trt_llm_cpu" / "engine_dir.py"
    text = path.read_text()
    assert text.count("\n    size =") == 1
    path.write_text(text.replace("\n    size =", _ZEROED))
    return copy


def logged(story: Recorder) -> list[str]:
    return [line for line in story.lines if line.startswith("check: ")]


def test_what_the_engine_wrote_is_told_everywhere(build: Build) -> None:
    story, result = build()
    (line,) = logged(story)
    assert line.startswith('check: passed level 2 of 3: the engine wrote " a a a model')
    told = result.record["check"]
    assert told["answers"][0]["prompt"] == "The capital of France is"
    assert all(answer["tokens"] and answer["text"] for answer in told["answers"])
    assert (told["script"], told["world_size"], told["precision"]) == ("examples/run.py", 1, "float16")
    assert json.loads(result.record_path.read_text())["check"] == json.loads(json.dumps(told))
    assert result.record["manifest"]["check"] == {"status": "passed", "level": 2, "world_size": 1}
    assert story.metrics["timing.check"] > 0
    page = (result.directory / "report.html").read_text()
    assert "Does it talk?" in page
    assert "The capital of France is" in page
    assert result.archive is not None
    shown = inspection.inspect(str(result.archive))
    assert shown.as_json()["check"]["answers"] == json.loads(json.dumps(told))["answers"]
    assert "'The capital of France is' -> " in shown.as_text()
    assert "check      passed, level 2 of 3" in shown.as_text()


def test_an_engine_is_asked_once(build: Build) -> None:
    _, first = build()
    again, second = build()
    assert logged(again) == []  # its archive is used again, with the verdict
    assert second.record["check"] == first.record["check"]
    other, third = build(QUICK_START + "compression: none\n")
    assert logged(other) == [
        f"check: this engine has passed in build {second.build_id}; it is not asked again"
    ]
    assert third.record["check"] == first.record["check"]
    assert "timing.check" not in other.metrics


@pytest.mark.slow
def test_a_higher_level_asks_again(build: Build) -> None:
    build()
    story, result = build(QUICK_START + "check: {reference: true}\n")
    assert logged(story)[0].startswith("check: passed level 3 of 3: the engine wrote ")
    assert result.record["check"]["reference"]["by"]
    after, _ = build(QUICK_START + "compression: none\n")
    assert "has passed in build" in logged(after)[0]


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["max_output_len: 4", "max_input_len: 6"])
def test_an_engine_that_takes_or_gives_less_is_asked_for_less(build: Build, limit: str) -> None:
    text = QUICK_START.replace("    use_gpt_attention_plugin:", f"    {limit}\n    use_gpt_attention_plugin:")
    assert limit in text
    story, _ = build(text)
    assert logged(story)[0].startswith("check: passed level 2 of 3: the engine wrote ")


@pytest.mark.slow
def test_a_limit_that_was_too_short_is_named(build: Build) -> None:
    with pytest.raises(CheckFailed, match=r"run\.py did not answer within \d.* s; raise check\.timeout"):
        build(QUICK_START + "check: {timeout: 0.2s}\n")


def test_off(build: Build) -> None:
    story, result = build(QUICK_START + "check: off\n")
    assert logged(story) == ["check: left out: the config says check: off"]
    assert result.record["manifest"]["check"] == {"status": "off", "level": 0, "world_size": 0}
    assert "Does it talk?" not in (result.directory / "report.html").read_text()


class TestGarbage:
    """An engine that lost its weights."""

    def test_is_an_error_and_no_archive(self, build: Build, careless: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckFailed) as caught:
            build(toolchain=careless)
        message = str(caught.value)
        assert 'after "The capital of France is" it wrote 0 0 0' in message or "(nothing)" in message
        assert "where the model itself writes" in message
        assert f"The engine is kept in {tmp_path}/ws/engine_outputs" in message
        assert "set check: off" in message
        assert caught.value.verdict["answers"]
        assert (tmp_path / "ws" / "engine_outputs" / "gpt_float16_tp1_rank0.engine").is_file()
        assert list(tmp_path.glob("ws/**/engine.tar*")) == []
        (page,) = tmp_path.glob("ws/builds/*/report.html")
        assert "Does it talk?" in page.read_text()
        (log,) = tmp_path.glob("ws/builds/*/logs/check.log")
        assert "run.py" in log.read_text()

    @pytest.mark.slow
    def test_is_one_again_when_its_steps_are_cached(self, build: Build, careless: Path) -> None:
        with pytest.raises(CheckFailed):
            build(toolchain=careless)
        with pytest.raises(CheckFailed):
            build(toolchain=careless)

    @pytest.mark.slow
    def test_leaves_the_last_good_archive_alone(self, build: Build, careless: Path, tmp_path: Path) -> None:
        _, good = build()
        before = (tmp_path / "ws" / "engine.tar.gz").read_bytes()
        with pytest.raises(CheckFailed):
            build(toolchain=careless)
        assert (tmp_path / "ws" / "engine.tar.gz").read_bytes() == before
        assert good.archive is not None
        assert good.archive.is_file()

    @pytest.mark.slow
    def test_is_packed_where_the_config_says_so(self, build: Build, careless: Path) -> None:
        _, result = build(QUICK_START + "check: off\n", toolchain=careless)
        assert result.size > 0

    def test_at_the_command_line(self, careless: Path, hub: HubServer, tmp_path: Path) -> None:
        env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(careless), "PATH": "/usr/bin:/bin"}
        command = [str(Path(sys.executable).with_name("trt-llm-pipeline")), "build", "--json"]
        config = str(PROJECT_ROOT / "examples" / "gpt" / "config.yaml")
        ran = subprocess.run(
            [*command, config, "--workspace", str(tmp_path / "ws")], env=env, capture_output=True, text=True
        )
        assert ran.returncode == 5
        told = json.loads(ran.stdout)
        assert (told["kind"], told["type"]) == ("check", "CheckFailed")
        assert told["check"]["status"] == "failed"


class TestNoRunScript:
    """A toolchain that cannot be asked."""

    @pytest.fixture
    def silent(self, tmp_path: Path) -> Path:
        copy = tmp_path / "silent"
        shutil.copytree(TOOLCHAIN, copy)
        (copy / "examples" / "run.py").unlink()
        return copy

    @pytest.mark.slow
    def test_is_said_and_no_error(self, build: Build, silent: Path) -> None:
        story, result = build(toolchain=silent)
        assert logged(story)[0].startswith(
            "check: the engine is not checked: the toolchain cpu has no run.py"
        )
        assert result.record["check"]["status"] == "unchecked"

    def test_is_an_error_where_it_is_required(self, build: Build, silent: Path) -> None:
        with pytest.raises(
            CheckFailed, match=r"could not be checked as the config requires: .* has no run\.py"
        ):
            build(QUICK_START + "check: required\n", toolchain=silent)


@pytest.mark.slow
def test_plan_says_it(hub: HubServer, tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "PATH": "/usr/bin:/bin"}
    command = [str(Path(sys.executable).with_name("trt-llm-pipeline")), "plan", "--workspace", str(tmp_path)]
    config = tmp_path / "config.yaml"
    config.write_text(QUICK_START)
    shown = subprocess.run(
        [*command, str(config)], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert shown.splitlines()[-1] == (
        "check: the engine will be given 3 prompts through run.py, to see that it talks"
    )
    config.write_text(QUICK_START + "check: off\n")
    shown = subprocess.run(
        [*command, "--json", str(config)], env=env, capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout)["check"] == {
        "planned": False,
        "reason": "the engine will not be checked: the config says check: off",
    }
