"""Keys are the same on every machine for the same inputs, and differ where anything that matters does."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from trt_llm_pipeline.cache import FileHashes, StepCache, StepKeys
from trt_llm_pipeline.cache.keys import StepKey
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.model_source.record import Record, RecordedFile, digest_of, write_record
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.process import Layers, Policy
from trt_llm_pipeline.process.gpus import Gpu
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Ledger, Workspace

CONFIG = """
model_id: owner/model
example_name: gpt
convert_to_ft:
  script: convert.py
  output_dir: ./checkpoint
  args:
    in_file: ${model_dir}
    out_dir: /src/checkpoint
    offset: -1
    calibration: ./data
build:
  script: build.py
  output_dir: ./engine
  args:
    model_dir: ${convert_to_ft.output_dir}
    output_dir: ./engine
    timing_cache: ../outside/timing.cache
    plugin: float16
"""
CONFINED = Layers(Policy(mode="auto"), landlock=6)
H100 = Gpu(0, "NVIDIA H100", "9.0", 80_000_000_000)


@dataclass
class Machine:
    """A machine with everything in places of its own; `home` is where."""

    home: Path
    config: str = CONFIG
    source: str = "hub"
    revision: str = "c0ffee"
    gpus: tuple[Gpu, ...] = (H100,)
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files = {
            "ws/models/owner/model/config.json": "{}",
            "ws/models/owner/model/weights.bin": "w",
            "ws/data/a/text": "t",
            "ws/builds/old/build.json": "{}",
            "outside/timing.cache": "c",
            "tools/examples/gpt/convert.py": "convert",
            "tools/examples/gpt/build.py": "build",
            "tools/examples/gpt/other.py": "other",
            "tools/package/__init__.py": "",
            "tools/package/module.py": "module",
            "env/lib/python3.11/site-packages/numpy-1.26.dist-info/METADATA": "",
        }
        for name, text in files.items():
            self.write(name, text)
        python = self.home / "env" / "bin" / "python"
        python.parent.mkdir()
        python.symlink_to(os.path.realpath(sys.executable))

    def write(self, name: str, text: str) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def keys(self) -> dict[str, str | None]:
        """The key of each step and of the archive."""
        keys, told = self.step_keys()
        values = {name: str(key.value) for name, key in told.items()}
        found = {name: self.home / "ws" / ("engine" if name == "build" else "checkpoint") for name in told}
        return {**values, "archive": keys.build(values, keys.model(), found)}

    def kept(self, step: str = "build") -> None:
        """Keeps an empty result of a step as it is now."""
        cache, key = self.cache(), self.step_keys()[1][step]
        (self.home / "ws" / "result").mkdir(exist_ok=True)
        cache.store(str(key.value), step, "owner/model", self.home / "ws" / "result", parts=key.parts)

    def changed(self, step: str = "build") -> str:
        """What is said to have changed since results of a step were kept."""
        return self.step_keys()[1][step].changed(self.cache(), step, "owner/model")

    def cache(self) -> StepCache:
        return StepCache(Workspace.at(self.home / "ws"), 1 << 20)

    def step_keys(self) -> tuple[StepKeys, dict[str, StepKey]]:
        python = str(self.home / "env" / "bin" / "python")
        tools = Toolchain(self.home / "tools", "tensorrt_llm", "0.7.1", ("0.7.1",), python, "for a test")
        workspace = Workspace.at(self.home / "ws")
        workspace.prepare()
        planned, mistakes = make_plan(loads(self.config, "c.yaml"), tools, workspace)
        assert mistakes == []
        ledger, hashes = Ledger(workspace), FileHashes()
        keys = StepKeys(
            planned, self.source, self.revision, ledger, self.gpus, hashes, layers=CONFINED, env=self.env
        )
        found: dict[str, Path] = {}
        values: dict[str, str] = {}
        told: dict[str, StepKey] = {}
        for step in planned.steps:
            key = keys.step(step, found, values)
            assert key.value is not None, key.reason
            values[step.name], told[step.name] = key.value, key
            assert step.output_dir is not None
            found[step.name] = step.output_dir
        return keys, told


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "here")


def test_places_make_no_difference(here: Machine, tmp_path: Path) -> None:
    there = Machine(tmp_path / "quite" / "another place" / "x")
    assert here.keys() == there.keys()


def test_interpreter_elsewhere_and_tools_through_a_link_make_none(here: Machine, tmp_path: Path) -> None:
    there = Machine(tmp_path / "there")
    shutil.move(there.home / "env", tmp_path / "opt")
    (there.home / "env").symlink_to(tmp_path / "opt")
    assert here.keys() == there.keys()


def test_what_is_no_input_makes_none(here: Machine) -> None:
    before = here.keys()
    here.write("ws/other.txt", "x")
    here.write("ws/engine/rank0.engine", "of an earlier build")
    here.write("ws/models/owner/other/config.json", "{}")
    here.write("ws/models/owner/model/.cache/huggingface/x", "x")
    here.write("tools/examples/gpt/__pycache__/build.pyc", "x")
    here.gpus = (replace(H100, memory_bytes=1),)
    here.env = {"PATH": "/x", "CUDA_VISIBLE_DEVICES": "0", "CUDA_HOME": "/usr/local/cuda", "TORCH_TOKEN": "x"}
    here.config = CONFIG + "cache: true\n"
    shutil.rmtree(here.home / "ws" / "engine")  # or a plan would refuse it: nothing says that a build made it
    assert here.keys() == before


def test_signature_of_an_address_makes_none(here: Machine) -> None:
    here.config = CONFIG + "model_tar_url: https://example.com/m.tar?signature=1\n"
    before = here.keys()
    here.config = CONFIG + "model_tar_url: https://example.com/m.tar?signature=2\n"
    assert here.keys() == before


BOTH, BUILD, ARCHIVE = {"convert_to_ft", "build", "archive"}, {"build", "archive"}, {"archive"}


def _set(name: str, value: object) -> Callable[[Machine], None]:
    return lambda machine: setattr(machine, name, value)


def _write(name: str, text: str) -> Callable[[Machine], None]:
    return lambda machine: machine.write(name, text)


def _config(before: str, after: str) -> Callable[[Machine], None]:
    return _set("config", CONFIG.replace(before, after))


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        (_set("gpus", (replace(H100, compute_capability="8.0"),)), BUILD),
        (_set("gpus", (replace(H100, name="NVIDIA H200"),)), BUILD),
        (_set("gpus", (H100, H100)), BUILD),
        (_set("gpus", ()), BUILD),
        (_set("revision", "decade"), BOTH),
        (_set("source", "tar"), BOTH),
        (_write("tools/examples/gpt/convert.py", "other"), BOTH),
        (_write("tools/package/module.py", "other"), BOTH),
        (_write("env/lib/python3.11/site-packages/torch-2.1.dist-info/METADATA", ""), BOTH),
        (_config("plugin: float16", "plugin: bfloat16"), BUILD),
        (_config("offset: -1", "offset: -2"), BOTH),
        (_config("    offset: -1\n", ""), BOTH),
        (_config("output_dir: ./engine\n  args", "output_dir: ./engine2\n  args"), BUILD),
        (_config("\nbuild:", "\ncompression: none\nbuild:"), ARCHIVE),
        (_config("\nbuild:", "\ncompression: gzip\nbuild:"), ARCHIVE),  # the default, but the archive says it
        (_set("env", {"CUDA_MODULE_LOADING": "EAGER"}), BOTH),
        (_config("\nbuild:", "\nweight_format: bin\nbuild:"), BOTH),
        (_write("ws/data/a/text", "u"), BOTH),
        (_write("ws/data/a/more", "u"), BOTH),
        (_write("outside/timing.cache", "d"), BUILD),
        (_write("ws/models/owner/model/chat_template.jinja", "x"), BOTH),
        (lambda machine: (machine.home / "outside/timing.cache").unlink(), BUILD),
    ],
)
def test_what_matters_makes_one(here: Machine, change: Callable[[Machine], None], differ: set[str]) -> None:
    before = here.keys()
    change(here)
    after = here.keys()
    assert {name for name in before if before[name] != after[name]} == differ


class TestWhatHasChanged:
    """A miss says what the most similar results were made of, and this one is not."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                _write("env/lib/python3.11/site-packages/torch-2.1.dist-info/METADATA", ""),
                "the toolchain, or its Python's packages, changed",
            ),
            (_set("revision", "decade"), "the model changed"),
            (_config("script: build.py", "script: other.py"), "its script changed"),
            (_config("plugin: float16", "plugin: bfloat16"), "its arguments changed"),
            (_config("output_dir: ./engine\n  args", "output_dir: ./e2\n  args"), "its output_dir changed"),
            (_config("offset: -1", "offset: -2"), "the steps before it, or their results, changed"),
            (_write("outside/timing.cache", "d"), "a file that its arguments name changed"),
            (_set("gpus", ()), "the GPUs changed"),
            (_set("env", {"TLLM_X": "1"}), "an environment variable that it gets changed"),
        ],
    )
    def test_what_it_is(self, here: Machine, change: Callable[[Machine], None], said: str) -> None:
        here.kept()
        assert here.changed() == ""
        change(here)
        assert here.changed() == said

    def test_the_most_similar_results_are_compared_with_and_not_the_newest(self, here: Machine) -> None:
        here.kept()
        here.config = CONFIG.replace("plugin: float16", "plugin: bfloat16")
        here.kept()
        here.config = CONFIG
        here.write("env/lib/python3.11/site-packages/torch-2.1.dist-info/METADATA", "")
        assert here.changed() == "the toolchain, or its Python's packages, changed"

    def test_nothing_is_said_where_nothing_is_kept(self, here: Machine) -> None:
        here.kept("convert_to_ft")
        assert here.changed("build") == ""


class TestModel:
    """A file that is as its source announced it is covered by the revision; any other by its content."""

    def announce(self, machine: Machine) -> None:
        """Notes the files as downloaded."""
        folder = machine.home / "ws/models/owner/model"
        files = tuple(
            RecordedFile(name, (folder / name).stat().st_size, digest_of(folder / name, "sha256:"))
            for name in ("config.json", "weights.bin")
        )
        write_record(
            folder, Record("hub", "", "owner/model", None, None, "c0ffee", complete=True, files=files)
        )

    def test_changed_file_with_size_and_times_kept(self, here: Machine) -> None:
        self.announce(here)
        before = here.keys()
        path = here.home / "ws/models/owner/model/weights.bin"
        status = path.stat()
        path.write_text("v")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert here.keys() != before
        path.write_text("w")
        assert here.keys() == before

    def test_file_of_the_users_beside_the_announced_ones(self, here: Machine) -> None:
        self.announce(here)
        before = here.keys()
        here.write("ws/models/owner/model/chat_template.jinja", "x")
        assert all(before[name] != key for name, key in here.keys().items())
