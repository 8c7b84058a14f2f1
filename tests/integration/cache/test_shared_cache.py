"""The cache that a team shares, in a directory and on a real S3 server: used, verified, and never trusted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ANYWHERE
from tests.integration.conftest import TOOLCHAIN
from tests.integration.fleet.cluster import BUCKET, Store, s3_server
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.cache.remote import from_env as shared_cache
from trt_llm_pipeline.errors import DeliveryError, PipelineError
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.preflight.lookup import look_up
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text()
BOTH = {"convert_to_ft", "build"}


class Team:
    """Machines with a workspace each, and one shared cache."""

    def __init__(self, hub: HubServer, folder: Path, url: str) -> None:
        self._hub = hub
        self._folder = folder
        self.url = url

    def settings(self, machine: str, *, write: bool = False) -> Settings:
        env = {
            "HF_ENDPOINT": self._hub.url,
            "TRTLLM_DIR": str(TOOLCHAIN),
            "TRT_LLM_WORKSPACE": str(self._folder / machine),
            "TRT_LLM_CACHE_URL": self.url,
            "PATH": "/usr/bin:/bin",
        }
        return Settings.from_env({**env, **({"TRT_LLM_CACHE_WRITE": "1"} if write else {})})

    def build(
        self, machine: str, text: str = QUICK_START, *, write: bool = False
    ) -> tuple[Recorder, pipeline.BuildResult]:
        settings, story = self.settings(machine, write=write), Recorder()
        return story, pipeline.build(validate(text, "config.yaml", settings), settings, story)

    def places(self, machine: str, text: str = QUICK_START) -> dict[str, str | None]:
        settings = self.settings(machine)
        found = look_up(validate(text, "config.yaml", settings), settings)
        return {step.name: step.place for step in found}


@pytest.fixture
def team(hub: HubServer, tmp_path: Path) -> Team:
    return Team(hub, tmp_path, f"file://{tmp_path}/shared")


def files(tmp_path: Path) -> list[Path]:
    """The contents in the shared cache, the largest first."""
    found = [path for path in (tmp_path / "shared" / "v1" / "files").rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_size, reverse=True)


def warnings(story: Recorder) -> list[str]:
    return [line for line in story.lines if line.startswith("warning: the shared cache")]


def test_what_one_machine_has_built_another_does_not(team: Team) -> None:
    first, one = team.build("one", write=True)
    assert first.ran() == BOTH
    assert team.places("one") == {"convert_to_ft": "here", "build": "here"}
    assert team.places("two") == {"convert_to_ft": "shared", "build": "shared"}
    second, two = team.build("two")
    assert second.ran() == set()
    assert two.sha256 == one.sha256
    assert team.places("two") == {"convert_to_ft": "here", "build": "here"}
    for name in ("convert_to_ft", "build"):
        assert any(f"step {name}: unchanged, its results from the shared" in line for line in second.lines)


@pytest.mark.slow
def test_another_argument_of_the_build_shares_the_conversion_only(team: Team) -> None:
    team.build("one", write=True)
    other = QUICK_START.replace(
        "    remove_input_padding:", "    remove_input_padding:\n    max_batch_size: 2"
    )
    assert team.places("two", other) == {"convert_to_ft": "shared", "build": None}
    story, _ = team.build("two", other)
    assert story.ran() == {"build"}


@pytest.mark.slow
def test_without_permission_nothing_is_written(team: Team, tmp_path: Path) -> None:
    story, _ = team.build("one")
    assert story.ran() == BOTH
    assert not (tmp_path / "shared").exists() or not files(tmp_path)
    assert team.places("two") == {"convert_to_ft": None, "build": None}


@pytest.mark.parametrize(
    "harm",
    ["changed", *(pytest.param(harm, marks=pytest.mark.slow) for harm in ("cut off", "longer", "gone"))],
)
def test_a_damaged_entry_is_a_miss_with_a_warning(team: Team, tmp_path: Path, harm: str) -> None:
    _, one = team.build("one", write=True)
    for path in files(tmp_path):
        data = bytearray(path.read_bytes())
        if harm == "changed":
            data[len(data) // 2] ^= 1
        elif harm == "cut off":
            del data[-1:]
        else:
            data += b"x"
        path.unlink()
        if harm != "gone":
            path.write_bytes(bytes(data))
    story, two = team.build("two")
    assert story.ran() == BOTH
    assert len(warnings(story)) == 2
    assert two.sha256 == one.sha256  # of what this machine has built itself
    # A machine that may write replaces what is damaged.
    healing, _ = team.build("three", write=True)
    assert healing.ran() == BOTH
    last, four = team.build("four")
    assert last.ran() == set()
    assert four.sha256 == one.sha256


LIES: list[dict[str, object]] = [
    {"files": {"../../escape": "0" * 64}},
    {"files": {"/etc/passwd": "0" * 64}},
    {"size": -1},
    {"sizes": {}},
    {"folders": ["../x"]},
    {"files": {"a": "no hash"}},
]


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"output_dir": "../outside"}, *LIES])
def test_an_entry_that_lies_is_not_used(team: Team, tmp_path: Path, change: dict[str, object]) -> None:
    team.build("one", write=True)
    for path in (tmp_path / "shared" / "v1" / "steps").iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert team.places("two") == {"convert_to_ft": None, "build": None}


class _Refuses(BaseHTTPRequestHandler):
    """Answers, and takes nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_an_engine_is_published_only_when_its_build_has_succeeded(team: Team) -> None:
    """The archive cannot be put where it belongs, after both steps have run."""
    settings = replace(team.settings("one", write=True), reach=ANYWHERE)
    story = Recorder()
    validated = validate(QUICK_START, "config.yaml", settings)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/engine.tar.gz"
        with pytest.raises(DeliveryError, match="The engine is kept in"):
            pipeline.build(validated, settings, story, destination=address)
        server.shutdown()
        thread.join()
    assert story.ran() == BOTH
    assert team.places("two") == {"convert_to_ft": "shared", "build": None}


def test_a_value_that_makes_no_sense_is_refused(team: Team) -> None:
    settings = team.settings("one")
    for env, message in (
        ({"TRT_LLM_CACHE_WRITE": "yes"}, "TRT_LLM_CACHE_WRITE is 'yes'; set it to 1"),
        (
            {"TRT_LLM_CACHE_URL": "ftp://host/cache"},
            "TRT_LLM_CACHE_URL ftp://host/cache is no store of objects",
        ),
        ({"TRT_LLM_CACHE_URL": "https://host/cache"}, "is no store of objects"),
    ):
        wrong = Settings.from_env({**settings.env, **env})
        with pytest.raises(PipelineError, match=message) as caught:
            look_up(validate(QUICK_START, "config.yaml", wrong), wrong)
        assert caught.value.kind == "internal"  # as of every variable: nobody's config is to blame


def test_a_wrong_value_is_refused_where_no_cache_is_named_too() -> None:
    with pytest.raises(PipelineError, match="TRT_LLM_CACHE_WRITE is 'maybe'; set it to 1"):
        shared_cache({"TRT_LLM_CACHE_WRITE": "maybe"}, warn=print)


@pytest.mark.slow
def test_a_store_that_is_not_there_costs_a_warning(team: Team, tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file")
    story, _ = team.build("one", write=True)
    assert story.ran() == BOTH
    assert warnings(story)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.mark.slow
def test_on_s3(hub: HubServer, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    team = Team(hub, tmp_path, f"s3://{BUCKET}/cache")
    _, one = team.build("one", write=True)
    story, two = team.build("two")
    assert story.ran() == set()
    assert two.sha256 == one.sha256
    assert {key.split("/")[2] for key in store.objects("cache/")} == {"steps", "files"}
