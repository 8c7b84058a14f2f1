"""Unchanged steps are not run again; what is damaged is never used."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.cache import StepCache
from trt_llm_pipeline.preflight import preview, validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text() + "check: off\n"


Build = Callable[..., tuple[Recorder, pipeline.BuildResult]]


@pytest.fixture
def settings(tmp_path: Path, hub: HubServer) -> Settings:
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(tmp_path / "ws")}
    return Settings.from_env({**env, "PATH": "/usr/bin:/bin"})


@pytest.fixture
def build(settings: Settings) -> Build:
    def run(text: str = QUICK_START) -> tuple[Recorder, pipeline.BuildResult]:
        story = Recorder()
        return story, pipeline.build(validate(text, "config.yaml", settings), settings, story)

    return run


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_config_starts_no_script_and_gives_the_same_bytes(build: Build) -> None:
    first, one = build()
    again, two = build()
    assert first.ran() == {"convert_to_ft", "build"}
    assert again.ran() == set()
    assert sha256(one.archive) == sha256(two.archive) == two.sha256
    assert two.record["answered_from"] == one.build_id
    assert [step["cached"] for step in one.record["steps"]] == [False, False]
    assert [step["cached"] for step in two.record["steps"]] == [True, True]
    assert (two.newest).samefile(two.archive)
    assert [any(line.startswith("packaged ") for line in story.lines) for story in (first, again)] == [
        True,
        False,
    ]
    assert any(line.startswith("the archive is in place: ") for line in again.lines)


def test_only_build_args_changed_runs_only_the_build(build: Build) -> None:
    build()
    changed = QUICK_START.replace(
        "    remove_input_padding:", "    remove_input_padding:\n    max_batch_size: 2"
    )
    story, result = build(changed)
    assert story.ran() == {"build"}
    assert "step build: runs, because its arguments changed since its results were cached" in story.lines
    assert story.metrics["cached.convert_to_ft"] == 1
    fresh_story, fresh = build(changed + "cache: false\n")
    assert fresh_story.ran() == {"convert_to_ft", "build"}
    engine = "gpt_float16_tp1_rank0.engine"
    hashes = [r.record["files"][engine]["sha256"] for r in (result, fresh)]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_a_miss_says_what_has_changed(settings: Settings, tmp_path: Path) -> None:
    toolchain = tmp_path / "toolchain"
    shutil.copytree(TOOLCHAIN, toolchain)
    moved = replace(settings, env={**settings.env, "TRTLLM_DIR": str(toolchain)})
    named = QUICK_START.replace("convert_to_ft:", "convert_checkpoint:")
    stories = []
    for text in (named, named + "# the same\n"):
        story = Recorder()
        pipeline.build(validate(text, "config.yaml", moved), moved, story)
        stories.append(story)
        script = toolchain / "examples" / "gpt" / "build.py"
        script.write_text(script.read_text() + "# changed\n")
    assert not any("since its results were cached" in line for line in stories[0].lines)
    said = [line for line in stories[1].lines if "since its results were cached" in line]
    why = "runs, because the toolchain, or its Python's packages, changed since its results were cached"
    assert said == [f"step convert_checkpoint: {why}", f"step build: {why}"]
    assert not any("step convert_to_ft" in line for story in stories for line in story.lines)


@pytest.mark.slow
def test_cache_false_neither_reads_nor_writes(build: Build, settings: Settings) -> None:
    build(QUICK_START + "cache: false\n")
    assert StepCache(settings.workspace, 0).entries() == []
    story, _ = build(QUICK_START + "cache: false\n")
    assert story.ran() == {"convert_to_ft", "build"}


@pytest.mark.slow
def test_output_dir_that_was_found_is_restored_where_it_was(build: Build) -> None:
    found = QUICK_START.replace("  output_dir: ./c-model/gpt2/1-gpu\n", "").replace(
        "model_dir: ./c-model/gpt2/1-gpu", "model_dir: ${convert_to_ft.output_dir}"
    )
    build(found)
    story, result = build(
        found.replace("    remove_input_padding:", "    remove_input_padding:\n    max_batch_size: 3")
    )
    assert story.ran() == {"build"}
    assert result.size > 0


class TestDamage:
    """Entries that are not what was stored."""

    def test_flipped_byte_in_a_cached_checkpoint_runs_the_step_again(
        self, build: Build, settings: Settings
    ) -> None:
        build()
        cached = StepCache(settings.workspace, 0)
        entry = next(entry for entry in cached.entries() if entry.step == "convert_to_ft")
        files = settings.workspace.state / "cache" / entry.key / "files"
        victim = max(files.rglob("*.bin"), key=lambda path: path.stat().st_size)
        data = bytearray(victim.read_bytes())
        data[0] ^= 1
        victim.unlink()  # the step's output directory has the same file by a hard link
        victim.write_bytes(data)
        shutil.rmtree(settings.workspace.root / "c-model")
        story, _ = build(QUICK_START.replace("    remove_input_padding:", "    max_batch_size: 2"))
        assert "convert_to_ft" in story.ran()
        assert any("damaged" in line for line in story.lines)

    @pytest.mark.slow
    def test_flipped_byte_in_the_archive_packages_again(self, build: Build) -> None:
        _, one = build()
        data = bytearray(one.archive.read_bytes())
        data[len(data) // 2] ^= 1
        one.archive.write_bytes(data)
        story, two = build()
        assert any("damaged" in line for line in story.lines)
        assert two.sha256 == one.sha256 == sha256(two.archive)

    @pytest.mark.parametrize(
        "text",
        [
            '{"files": {"../x": "0"}, "output_dir": "a", "size": 1}',
            *(pytest.param(text, marks=pytest.mark.slow) for text in ("", "{", "[]")),
        ],
    )
    def test_unreadable_entry_counts_as_none(self, build: Build, settings: Settings, text: str) -> None:
        build()
        cached = StepCache(settings.workspace, 0)
        for entry in cached.entries():
            (settings.workspace.state / "cache" / entry.key / "entry.json").write_text(text)
        assert cached.entries() == []
        story, _ = build(QUICK_START.replace("    remove_input_padding:", "    max_batch_size: 2"))
        assert story.ran() == {"convert_to_ft", "build"}


class TestBounds:
    """Least recently used entries give way."""

    @pytest.mark.slow
    def test_entry_used_longest_ago_goes_first(self, build: Build, settings: Settings) -> None:
        build()
        cached = StepCache(settings.workspace, 0)
        oldest, newest = cached.entries()
        removed = cached.evict(newest.size)
        assert removed == oldest.size
        assert [entry.key for entry in cached.entries()] == [newest.key]

    @pytest.mark.slow
    def test_limit_of_zero_keeps_nothing(self, hub: HubServer, tmp_path: Path) -> None:
        env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_CACHE_LIMIT": "1KB"}
        small = Settings.from_env({**env, "TRT_LLM_WORKSPACE": str(tmp_path / "small")})
        pipeline.build(validate(QUICK_START, "config.yaml", small), small, Recorder())
        assert StepCache(small.workspace, 0).entries() == []


@pytest.mark.slow
def test_other_input_file_of_a_step_is_part_of_its_key(build: Build, settings: Settings) -> None:
    """A file in the workspace that an argument names, here the timing cache, changes the result's key."""
    text = QUICK_START.replace("    remove_input_padding:", "    timing_cache: ./mine.cache")
    settings.workspace.prepare()
    (settings.workspace.root / "mine.cache").write_text("one")
    build(text)
    (settings.workspace.root / "mine.cache").write_text("two")
    story, _ = build(text)
    assert story.ran() == {"build"}


@pytest.mark.slow
def test_plan_says_which_steps_are_cached(build: Build, settings: Settings) -> None:
    before = preview.preview(validate(QUICK_START, "config.yaml", settings), settings)
    assert [step.cached for step in before.steps] == [False, False]
    build()
    after = preview.preview(validate(QUICK_START, "config.yaml", settings), settings)
    assert [step.cached for step in after.steps] == [True, True]


class TestInputsElsewhere:
    """Files that a step reads and that are not in the workspace, which takes the sandbox away from it."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings.from_env({**settings.env, "TRT_LLM_SANDBOX": "off"})

    def config(self, folder: Path) -> str:
        return QUICK_START.replace("    remove_input_padding:", f"    timing_cache: {folder}")

    @pytest.mark.slow
    def test_content_of_a_directory_is_part_of_the_key(self, build: Build, tmp_path: Path) -> None:
        data = tmp_path / "data"
        data.mkdir()
        (data / "calibration.json").write_text("one")
        build(self.config(data))
        assert build(self.config(data))[0].ran() == set()
        (data / "calibration.json").write_text("two")
        assert build(self.config(data))[0].ran() == {"build"}

    @pytest.mark.slow
    def test_content_behind_a_link_is_part_of_the_key(
        self, build: Build, settings: Settings, tmp_path: Path
    ) -> None:
        (tmp_path / "blob").write_text("one")
        settings.workspace.prepare()
        (settings.workspace.root / "data").mkdir()
        (settings.workspace.root / "data" / "link").symlink_to(tmp_path / "blob")
        text = self.config(Path("./data"))
        build(text)
        (tmp_path / "blob").write_text("two")
        assert build(text)[0].ran() == {"build"}
