"""The build report of real builds: beside the archive, in it when asked for, and in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.errors import StepOutputError
from trt_llm_pipeline.inspection import inspect
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.report import render
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT, ConfigServer

QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text()
PROBE = f"<script>{Path(__file__).with_name('report_probe.js').read_text()}</script>"
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


def test_a_failed_build_leaves_a_page_with_the_reason(settings: Settings) -> None:
    text = QUICK_START.replace("  output_dir: ./engine_outputs/", "  output_dir: ./elsewhere/", 1)
    assert text != QUICK_START
    with pytest.raises(StepOutputError) as failure:
        pipeline.build(validate(text, "config.yaml", settings), settings, Recorder(), token="hf_goodtoken")
    newest = max(path for path in settings.workspace.builds.iterdir())
    page = (newest / "report.html").read_text()
    assert "output_dir" in str(failure.value)
    assert " ".join(str(failure.value).split()) in words(page)
    assert "hf_goodtoken" not in page
    assert (newest / "logs" / "build.log").is_file()
    record = json.loads((newest / "build.json").read_text())
    assert record["error"] == str(failure.value)
    assert (record["kind"], record["key"], "archive" in record) == ("step", None, False)
    assert "hf_goodtoken" not in json.dumps(record)


def test_without_it_identical_builds_give_identical_bytes(settings: Settings) -> None:
    one, lines = build(settings, "cache: false\n")
    two, _ = build(settings, "cache: false\n")
    assert one.sha256 == two.sha256
    assert not any("report.html" in line for line in lines)


def browse(page: Path, profile: Path, *options: str) -> dict[str, Any]:
    """What a headless browser finds on the page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser is not None, f"install one of {', '.join(BROWSERS)}: apt-get install chromium"
    page.with_name("probed.html").write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=5000"
    )
    # Over HTTP, because of a page from a file a browser does not tell what it fetched.
    with ConfigServer(page.parent) as server:
        argv = [browser, *quiet.split(), f"--user-data-dir={profile}", *options]
        argv += ["--dump-dom", f"{server.url}/probed.html"]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found, ran.stderr[-2000:]
    return dict(json.loads(unescape(found[1])))


@pytest.mark.slow
def test_a_browser_shows_it_light_and_dark_wide_and_narrow(settings: Settings, tmp_path: Path) -> None:
    result, _ = build(settings)
    record = json.loads(result.record_path.read_text())
    samples = [[t, 1_000_000 * t, [10**9 * t] * 8] for t in range(1, 90)]
    record["steps"][-1].update(cached=False, samples=samples, peak_gpu_memory_bytes=[9 * 10**10] * 8)
    record["warnings"].append("a-warning-without-a-space-" * 30)
    record["manifest"]["model_id"] = "owner/" + "m" * 90
    page = tmp_path / "report.html"
    page.write_text(render(record))
    seen = {}
    for scheme, setting in (("light", "1"), ("dark", "0")):
        for width in (1200, 500):
            options = (f"--blink-settings=preferredColorScheme={setting}", f"--window-size={width},900")
            found = browse(page, tmp_path / f"{scheme}-{width}", *options)
            assert found["fetched"] == [], (scheme, width)
            assert found["overflow"] <= 0, (scheme, width)
            assert found["outside"] == [], (scheme, width)
            assert found["pale"] == [], (scheme, width)
            assert len(found["curves"]) == 9
            assert min(found["curves"]) > 100
            assert len(found["bars"]) == len(record["seconds"])
            assert found["read"] > 100
            seen[scheme] = found["background"]
    assert seen["light"] != seen["dark"]
