"""The build report of real builds: beside the archive, in it when asked for, and in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import MODEL_ID
from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.errors import (
    DiskFull,
    ModelUnavailable,
    NoSuchModel,
    StepOutputError,
    TrtLlmPipelineError,
)
from trt_llm_pipeline.inspection import inspect
from trt_llm_pipeline.model_source import Snapshot
from trt_llm_pipeline.pipeline import recording
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.report import render
from trt_llm_pipeline.report.stages import stages
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT, ConfigServer

QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text()
PROBE = Path(__file__).with_name("report_probe.js").read_text()
Twice = list[tuple[pipeline.BuildResult, list[str]]]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Settings:
    env = {
        "HF_ENDPOINT": hub.url,
        "TRTLLM_DIR": str(TOOLCHAIN),
        "TRT_LLM_WORKSPACE": str(tmp_path_factory.mktemp("ws")),
        "PATH": "/usr/bin:/bin",
    }
    return Settings.from_env(env)


def build(
    settings: Settings, more: str = "", token: str | None = None
) -> tuple[pipeline.BuildResult, list[str]]:
    log = Recorder()
    validated = validate(QUICK_START + more, "config.yaml", settings)
    return pipeline.build(validated, settings, log, token=token), log.lines


def words(page: str) -> str:
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


def names(archive: Path | None) -> list[str]:
    assert archive is not None
    with tarfile.open(archive) as tar:
        return tar.getnames()


def test_the_report_lies_beside_the_archive_and_shows_the_build(settings: Settings) -> None:
    result, _ = build(settings, token="hf_goodtoken")
    text = (result.directory / "report.html").read_text()
    assert text == render(json.loads(result.record_path.read_text()))
    page = words(text)
    assert result.sha256 in page
    assert result.build_id in page
    for file in result.record["files"].values():
        assert file["sha256"] in page
    for step in result.record["steps"]:
        assert step["output_bytes"] > 100_000
        assert " ".join(step["argv"][2:4]) in page
    assert "hf_goodtoken" not in text
    assert "report.html" not in names(result.archive)


def test_an_answer_from_an_earlier_build_says_so(settings: Settings) -> None:
    first, _ = build(settings)
    second, _ = build(settings)
    page = words((second.directory / "report.html").read_text())
    assert f"Nothing had changed since build {first.build_id}" in page
    assert second.build_id in page


@pytest.mark.slow
def test_report_true_puts_it_into_the_archive_and_says_so(settings: Settings, tmp_path: Path) -> None:
    result, lines = build(settings, "cache: false\nreport: true\n")
    again, _ = build(settings, "cache: false\nreport: true\n")
    assert any(line.startswith("report.html goes into the archive, so") for line in lines)
    assert again.sha256 != result.sha256
    with tarfile.open(result.archive) as tar:  # type: ignore[arg-type]
        tar.extract("report.html", tmp_path, filter="data")
    page = words((tmp_path / "report.html").read_text())
    assert "whose size and SHA-256 are in build.json" in page
    assert result.build_id in page
    found = inspect(str(result.archive))
    assert [check.name for check in found.checks if check.status == "problem"] == ["TensorRT-LLM"]
    beside = words((result.directory / "report.html").read_text())
    assert result.sha256 in beside
    assert result.sha256 not in page


def failed(settings: Settings, text: str, kind: type[TrtLlmPipelineError]) -> tuple[Path, str, Recorder]:
    """The directory of a build that fails, what its page says, and what it has told."""
    log = Recorder()
    with pytest.raises(kind) as failure:
        pipeline.build(validate(text, "config.yaml", settings), settings, log, token="hf_goodtoken")
    newest = max(settings.workspace.builds.iterdir())
    page = (newest / "report.html").read_text()
    record = json.loads((newest / "build.json").read_text())
    assert page == render(record)
    assert record["error"] == str(failure.value)
    assert (record["kind"], record["type"]) == (kind.kind, kind.__name__)
    assert (record["key"], "archive" in record) == (None, False)
    assert "hf_goodtoken" not in json.dumps(record)
    assert "hf_goodtoken" not in page
    assert log.left["report"] == newest / "report.html"
    return newest, words(page), log


def test_a_step_that_failed_comes_first_on_its_builds_page(settings: Settings) -> None:
    text = QUICK_START.replace("  output_dir: ./engine_outputs/", "  output_dir: ./elsewhere/", 1)
    assert text != QUICK_START
    newest, page, log = failed(settings, text, StepOutputError)
    told = (
        "It failed in build step build: exited 0, but",
        "gpt/build.py",
        "Compiling",
        "build.log",
        "Timeline",
    )
    places = [page.index(text) for text in told]
    assert places == sorted(places)
    assert '<a href="logs/build.log">' in (newest / "report.html").read_text()
    assert (newest / "logs" / "build.log").is_file()
    assert log.left["logs"] == newest / "logs"
    assert log.states["build"] == "failed"
    assert log.states["package"] == "waiting"


def test_what_goes_wrong_between_two_stages_is_no_stages_fault(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_folder: Path) -> None:
        raise DiskFull("there is no room for the tokenizer")

    monkeypatch.setattr("trt_llm_pipeline.pipeline.stages.tokenizer_files", none_left)
    newest, page, log = failed(settings, QUICK_START + "check: off\n", DiskFull)
    assert "What went wrong there is no room for the tokenizer" in page
    assert log.states["build"] in ("done", "reused")
    assert "bar failed" not in (newest / "report.html").read_text()


def test_a_model_that_is_not_there_has_a_page_too(settings: Settings) -> None:
    newest, page, log = failed(settings, QUICK_START.replace(MODEL_ID, "nobody/nothing"), NoSuchModel)
    assert "It failed in download" in page
    assert "has no model nobody/nothing" in page
    assert "logs" not in log.left
    assert log.states["download"] == "failed"
    assert (newest / "report.html").is_file()


@pytest.mark.slow
def test_a_hub_that_does_not_answer_has_a_page_too(settings: Settings) -> None:
    nobody = Settings.from_env({**settings.env, "HF_ENDPOINT": "http://127.0.0.1:1"}, settings.workspace.root)
    text = QUICK_START.replace(MODEL_ID, "nobody/else")
    _, page, _ = failed(nobody, text, ModelUnavailable)
    assert "It failed in download" in page
    assert "127.0.0.1:1" in page


@pytest.fixture(scope="module")
def twice(settings: Settings) -> Twice:
    """Two builds of the same config, one after the other, without the cache."""
    return [build(settings, "cache: false\n") for _ in range(2)]


@pytest.mark.slow
def test_a_page_shows_the_machine_the_config_and_the_build_before(twice: Twice) -> None:
    (before, _), (result, _) = twice
    record, text = result.record, (result.directory / "report.html").read_text()
    page = words(text)
    machine = record["machine"]
    assert f"{machine['cpus']} × {machine['cpu']}" in " ".join(page.split())
    assert machine["memory_bytes"] > 10**8
    assert "example_name: gpt" in page
    assert f'href="{record["model_url"]}"' in text
    assert record["model_url"].endswith(f"/{MODEL_ID}/tree/{record['manifest']['revision']}")
    assert record["previous"]["build_id"] == before.build_id
    assert f"Build {before.build_id} had the same config." in page
    assert record["previous"]["archive_bytes"] == before.size
    assert page.index("started ") < page.index("for cog-triton") < page.index("Timeline")


def test_the_models_address_has_no_password(settings: Settings, tmp_path: Path) -> None:
    env = {**settings.env, "HF_ENDPOINT": "https://user:a-password@mirror.example/hf/"}
    context: Any = SimpleNamespace(settings=replace(settings, env=env))
    snapshot = Snapshot("acme/tiny", "0123", tmp_path, "hub", 0, ())
    assert recording.model_url(context, snapshot) == "https://mirror.example/hf/acme/tiny/tree/0123"
    assert recording.model_url(context, replace(snapshot, source="tar")) is None


def test_timeline_and_commands_agree(twice: Twice) -> None:
    record = twice[1][0].record
    for step in record["steps"]:
        start, length = record["starts"][step["name"]], record["seconds"][step["name"]]
        assert start <= step["start_s"] <= step["start_s"] + step["wall_s"] <= start + length + 0.01
    rows = {name: spans for name, spans, _ in stages(record)}
    assert [span.kind for span in rows["build"]] == ["other", "step", "other"]
    assert sum(span.length_s for span in rows["build"]) == pytest.approx(record["seconds"]["build"], abs=0.01)
    assert [span.kind for span in rows["download"]] == ["other"]


def test_without_it_identical_builds_give_identical_bytes(twice: Twice) -> None:
    (one, lines), (two, _) = twice
    assert one.sha256 == two.sha256
    assert not any("report.html" in line for line in lines)


def browse(text: str, folder: Path, width: int, scheme: str) -> dict[str, Any]:
    """What a headless browser finds on the page, in a frame of that width."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser is not None, f"install one of {', '.join(BROWSERS)}: apt-get install chromium"
    folder.mkdir()
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    allowed = text.replace("; script-src ", f"; script-src 'sha256-{digest}' ", 1)
    (folder / "probed.html").write_text(allowed.replace("</body>", f"<script>{PROBE}</script></body>"))
    frame = f'<iframe src="probed.html" style="border:0;width:{width}px;height:900px"></iframe>'
    (folder / "frame.html").write_text(f"<!DOCTYPE html><body>{frame}</body>")
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=5000"
    )
    setting = {"light": 1, "dark": 0}[scheme]
    # Over HTTP, because of a page from a file a browser does not tell what it fetched.
    with ConfigServer(folder) as server:
        argv = [browser, *quiet.split(), f"--user-data-dir={folder / 'profile'}"]
        argv += [f"--blink-settings=preferredColorScheme={setting}", f"--window-size={width + 100},1000"]
        argv += ["--dump-dom", f"{server.url}/frame.html"]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found, ran.stderr[-2000:]
    return dict(json.loads(unescape(found[1])))


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_a_browser_shows_it_light_and_dark_wide_and_narrow(
    settings: Settings, tmp_path: Path, fails: bool
) -> None:
    result, _ = build(settings)
    record = json.loads(result.record_path.read_text())
    samples = [[t, 1_000_000 * t, [10**9 * t] * 8] for t in range(1, 90)]
    record["steps"][-1].update(cached=False, samples=samples, peak_gpu_memory_bytes=[9 * 10**10] * 8)
    record["warnings"].append("a-warning-without-a-space-" * 30)
    record["manifest"]["model_id"] = "owner/" + "m" * 90
    record["previous"] = {"build_id": "b", "seconds": 1e5, "archive_bytes": 10**11, "memory_bytes": 1}
    record.update(answered_from=None, seconds={"download": 1, "convert_to_ft": 2, "build": 400, "package": 3})
    if fails:
        lines = [f"line {number} " + "x" * number * 5 for number in range(50)]
        told = {"stage": "build", "argv": ["python", "/a/" + "p" * 200], "last_lines": lines}
        record.update(error="step build: " + "e" * 300, failed=told, logs=["build.log"])
        del record["archive"]
    seen = {}
    for scheme in ("light", "dark"):
        for width in (1200, 400):
            found = browse(render(record), tmp_path / f"{scheme}-{width}", width, scheme)
            assert found["fetched"] == [], (scheme, width)
            assert found["overflow"] <= 0, (scheme, width)
            assert found["outside"] == [], (scheme, width)
            assert found["pale"] == [], (scheme, width)
            assert len(found["curves"]) == 9
            assert min(found["curves"]) > 100
            assert len(found["bars"]) >= 4
            assert found["read"] > 100
            assert found["copied"] == found["copies"] >= 4
            assert set(found["stacked"]) == {"block" if width == 400 else "table-cell"}
            assert found["first"] == ("It failed in build" if fails else "The archive")
            assert (found["red"] != found["background"]) == fails
            seen[scheme] = found["background"]
    assert seen["light"] != seen["dark"]
