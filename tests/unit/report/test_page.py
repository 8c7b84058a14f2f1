"""The build report: well-formed, self-contained, escaped, and with the numbers of its record in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FIXTURES
from trt_llm_pipeline.report import charts, figures, render
from trt_llm_pipeline.report.charts import memory, round_up, ticks
from trt_llm_pipeline.report.page import shell
from trt_llm_pipeline.report.stages import stages
from trt_llm_pipeline.units import in_time

HOSTILE = "</title><script src=//evil.example/x.js>alert('\"&amp;')</script><img src=x onerror=alert(1)>"
_VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page taken apart; raises where tags do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.style = ""
        self.script = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        elif self.open and self.open[-1] == "script":
            self.script += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, css: str = "") -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag and css in (attrs.get("class") or "")]


def step(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "argv": ["python", f"/opt/{name}.py", "--dtype", "float16"],
        "output_dir": f"/src/{name}",
        "output_bytes": 7_000_000,
        "cached": False,
        "wall_s": 4.0,
        "cpu_s": 3.2,
        "peak_memory_bytes": 91_000_000,
        "peak_gpu_memory_bytes": [],
        "samples": [[0.1, 10_000_000, []], [1.1, 50_000_000, []], [2.1, 90_000_000, []]],
        **more,
    }


def record(**more: Any) -> dict[str, Any]:
    return {
        "build_id": "20240102T030405.000006Z-abcd",
        "service_version": "1.2.3",
        "model_bytes": 14_000_000,
        "archive": {
            "name": "engine.tar.gz",
            "path": "/w/engine.tar.gz",
            "size": 5_400_000,
            "sha256": "a1" * 32,
        },
        "files": {"rank0.engine": {"size": 6_900_000, "sha256": "b2" * 32}},
        "seconds": {"download": 2.5, "convert_to_ft": 4.2, "build": 61.0, "package": 0.3},
        "steps": [step("convert_to_ft"), step("build")],
        "warnings": [],
        "readiness": [{"name": "layout", "status": "ok", "message": "flat", "settings": {}}],
        "manifest": {
            "model_id": "acme/tiny",
            "revision": "0123456789abcdef",
            "source": "hub",
            "toolchain": {"name": "tensorrt_llm", "version": "0.9.0", "follows": ["0.9.0"]},
            "gpus": [{"name": "NVIDIA H100", "compute_capability": "9.0"}] * 2,
        },
        **more,
    }


def test_it_is_well_formed_and_says_what_the_record_says() -> None:
    page = Page(render(record()))
    for said in (
        "acme/tiny",
        "0123456789ab",
        "tensorrt_llm 0.9.0",
        "2 × NVIDIA H100 (compute capability 9.0)",
        "5.4 MB",  # the archive
        "14.0 MB",  # the model
        "7.0 MB",  # what the steps made
        "91.0 MB",  # the most memory
        "1 min 8 s",  # all of it
        "1 min 1 s",  # the build step
        "78% of its files",
        "a1" * 32,
        "b2" * 32,
        "6,900,000",
        "/w/engine.tar.gz",
        "1.2.3",
        "ready for cog-triton",
    ):
        assert said in page.text, said


def test_it_needs_nothing_but_itself() -> None:
    page = Page(render(record()))
    assert {tag for tag, _ in page.tags} & {
        "link",
        "img",
        "iframe",
        "object",
        "base",
        "form",
    } == set()
    references = {name for _, attrs in page.tags for name in attrs} & {"src", "href", "action", "srcset"}
    assert references == set()
    (policy,) = [attrs["content"] or "" for attrs in page.all("meta") if "http-equiv" in attrs]
    digest = hashlib.sha256(page.script.encode()).digest()
    assert policy.startswith("default-src 'none'; ")
    assert f"; script-src 'sha256-{base64.b64encode(digest).decode()}'; " in policy
    assert page.all("script") == [{}]
    assert not re.search(r"url\(|@import|https?:", page.style)
    assert "prefers-color-scheme: dark" in page.style


def test_other_peoples_texts_are_escaped_wherever_they_stand() -> None:
    hostile = record(
        warnings=[HOSTILE],
        files={HOSTILE: {"size": 1, "sha256": HOSTILE}},
        archive={"name": HOSTILE, "address": HOSTILE, "size": 1, "sha256": HOSTILE},
        seconds={HOSTILE: 1.0},
        steps=[step(HOSTILE, argv=[HOSTILE], output_dir=HOSTILE)],
        readiness=[{"name": HOSTILE, "status": "ok", "message": HOSTILE, "settings": {HOSTILE: HOSTILE}}],
        manifest={
            "model_id": HOSTILE,
            "revision": HOSTILE,
            "source": HOSTILE,
            "toolchain": {"name": HOSTILE, "version": HOSTILE, "follows": [HOSTILE]},
            "gpus": [{"name": HOSTILE, "compute_capability": HOSTILE}],
        },
        build_id=HOSTILE,
        started=HOSTILE,
        config=HOSTILE,
        machine={"cpu": HOSTILE, "cpus": HOSTILE, "system": HOSTILE, "driver": HOSTILE},
        model_url=f"https://host/{HOSTILE}",
        logs=[HOSTILE],
        previous={"build_id": HOSTILE, "seconds": 2.0},
        fit=None,
        error=HOSTILE,
        failed={"stage": HOSTILE, "argv": [HOSTILE], "last_lines": [HOSTILE]},
    )
    page = Page(render(hostile))
    assert page.script == Page(render(record())).script
    assert [tag for tag, _ in page.tags if tag in ("script", "img")] == ["script"]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text.count("alert(1)") >= 24
    assert len(page.all("title")) == 1 + len(page.all("polyline"))


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "//evil.example", None, ""])
def test_a_link_leads_to_a_web_server_or_is_none(address: str | None) -> None:
    assert Page(render(record(model_url=address))).all("a") == []


def test_links_lead_to_the_model_and_to_the_logs_and_nowhere_else() -> None:
    told = record(model_url="https://huggingface.co/acme/tiny/tree/0123", logs=["a b?.log", "../x"])
    links = [attrs["href"] for attrs in Page(render(told)).all("a")]
    assert links == ["https://huggingface.co/acme/tiny/tree/0123", "logs/a%20b%3F.log", "logs/..%2Fx"]


def test_no_template_leaves_anything_unescaped() -> None:
    for path in (Path(charts.__file__).parent / "templates").glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape|Markup|\bif[^%]*href", path.read_text()), path


@given(st.text(max_size=40))
def test_any_text_keeps_the_page_whole(text: str) -> None:
    page = Page(render(record(warnings=[text, "\ud800\x00\x1b[31m"], manifest={"model_id": text})))
    assert page.text.encode()
    assert not any(0 < ord(letter) < 32 for letter in "".join(page.words) if letter not in "\n\t")


class TestTimeline:
    """One bar a part, one after the other."""

    @staticmethod
    def bars(page: Page) -> list[tuple[float, float]]:
        found = [attrs["style"] for attrs in page.all("div", "bar") if "from" in (attrs.get("title") or "")]
        return [tuple(map(float, re.findall(r"[\d.]+", str(style)))) for style in found]  # type: ignore[misc]

    def test_bars_follow_one_another_and_fill_the_axis(self) -> None:
        page = Page(render(record(seconds={"download": 1, "convert_to_ft": 2, "build": 4, "package": 1})))
        assert self.bars(page) == [(0, 12.5), (12.5, 25), (37.5, 50), (87.5, 12.5)]

    def test_a_script_is_a_part_of_its_stage(self) -> None:
        told = record(
            seconds={"download": 1, "build": 8},
            starts={"download": 0.5, "build": 2},
            steps=[step("build", start_s=3, wall_s=4)],
        )
        assert [
            (name, [(s.start_s, s.length_s, s.kind) for s in spans]) for name, spans, _ in stages(told)
        ] == [
            ("download", [(0.5, 1, "other")]),
            ("build", [(2, 1, "other"), (3, 4, "step"), (7, 3, "other")]),
        ]
        page = Page(render(told))
        assert self.bars(page)[1:] == [(20, 10), (30, 40), (70, 30)]
        assert "8 s script 4 s" in page.text

    def test_a_build_that_was_answered_ran_no_script(self) -> None:
        told = record(
            answered_from="b", seconds={"download": 0.1}, starts={"download": 0}, steps=[step("build")]
        )
        assert [span.kind for _, spans, _ in stages(told) for span in spans] == ["other"]

    def test_a_step_that_was_not_run_is_marked(self) -> None:
        page = Page(render(record(steps=[step("convert_to_ft", cached=True, samples=[]), step("build")])))
        assert len(page.all("div", "bar cached")) == 1
        assert "convert_to_ft did not run: its earlier result was used again." in page.text

    def test_a_build_that_was_answered_from_an_earlier_one_says_so(self) -> None:
        text = render(
            record(answered_from="20240101T000000.000000Z-ffff", seconds={"download": 0, "package": 0})
        )
        assert "Nothing had changed since build 20240101T000000.000000Z-ffff" in Page(text).text


class TestMemory:
    """A curve a step, for host and GPUs."""

    def test_a_curve_for_each_step(self) -> None:
        page = Page(render(record()))
        curves = page.all("polyline")
        assert len(curves) == 2
        assert curves[0]["points"] == "47.6,90.0 523.8,50.0 1000.0,10.0"

    def test_each_gpu_has_its_own_curve_and_legend(self) -> None:
        samples = [[t, 1_000, [t * 10**9, 2 * t * 10**9]] for t in (1, 2, 3)]
        page = Page(
            render(
                record(steps=[step("build", samples=samples, peak_gpu_memory_bytes=[3 * 10**9, 6 * 10**9])])
            )
        )
        assert len(page.all("polyline")) == 3
        assert "GPU 0, at most 3.0 GB" in page.text
        assert "GPU 1, at most 6.0 GB" in page.text
        assert "at most on one GPU, in build" in page.text

    def test_a_gpu_that_vanished_midway_does_no_harm(self) -> None:
        samples = [[1, 1, [5, 5]], [2, 1, [5]], [3, 1, []]]
        page = Page(render(record(steps=[step("build", samples=samples, peak_gpu_memory_bytes=[5, 5])])))
        assert len(page.all("polyline")) == 3

    def test_a_short_step_has_its_peak(self) -> None:
        page = Page(render(record(steps=[step("build", samples=[[0.1, 0, []]], wall_s=0.4)])))
        assert page.all("polyline") == []
        assert "91.0 MB at most, in 0.40 s" in page.text

    def test_no_value_leaves_the_picture(self) -> None:
        chart = memory("x", [0, 1], {"a": [5, 900]}, 1000)
        points = chart.curves[0].points
        assert [tuple(map(float, point.split(","))) for point in points.split()] == [
            (0, 99.5),
            (1000, 10),
        ]


def test_the_page_in_the_archive_says_where_the_archives_own_hash_is() -> None:
    inside = record()
    del inside["archive"], inside["files"]
    page = Page(render(inside))
    assert "size and SHA-256 are in build.json" in page.text
    assert "Files in the archive" not in page.text


def test_a_failed_build_has_a_page_with_the_reason_and_what_had_been_done() -> None:
    failed = record(
        error="step build: exited with code 1\n  | <b>no memory</b>", steps=[step("convert_to_ft")]
    )
    del failed["archive"], failed["files"], failed["seconds"]["package"]
    page = Page(render(failed))
    assert "What went wrong step build: exited with code 1 | <b>no memory</b>" in page.text
    assert page.all("span", "pill")[0]["class"] == "pill problem"
    assert "build.json" not in page.text
    assert len(page.all("div", "bar")) > 0


def test_what_failed_comes_first_with_its_command_and_last_lines() -> None:
    lines = [f"line {number}" for number in range(50)]
    failed = record(
        error="step build: exited with code 1\n  | line 48\n  | line 49",
        failed={"stage": "build", "argv": ["python", "build.py", "--x", "1"], "last_lines": lines},
        logs=["build.log"],
        steps=[step("convert_to_ft")],
    )
    del failed["archive"]
    text = Page(render(failed)).text
    told = "It failed in build step build: exited with code 1 The command python build.py"
    last = "The last 50 lines that it printed line 0"
    assert text.index(told) < text.index(last) < text.index("line 49") < text.index("build.log")
    assert text.index("build.log") < text.index("Time ") < text.index("Timeline")
    assert text.count("line 49") == 1
    assert [bar["class"] for bar in Page(render(failed)).all("div", "bar failed")] == ["bar failed"]


def test_a_single_last_line_is_one() -> None:
    failed = record(error="x", failed={"stage": "build", "last_lines": ["only"]})
    assert "The last line that it printed only" in Page(render(failed)).text


def test_figures_stand_beside_those_of_the_build_before() -> None:
    previous = {
        "build_id": "earlier",
        "seconds": 34.0,
        "archive_bytes": 5_400_000,
        "memory_bytes": 182_000_000,
    }
    text = Page(render(record(previous=previous))).text
    assert "time 1 min 8 s 34 s +100%" in text
    assert "archive 5.4 MB 5.4 MB same" in text
    assert "memory, at most 91.0 MB 182.0 MB -50%" in text
    assert "Build earlier had the same config." in text
    assert "Against the build before" not in Page(render(record(previous=None))).text


@pytest.mark.parametrize(
    "spoilt", [None, [], "x", {"name": "1"}, [None, {"name": "build", "output_bytes": "1"}]]
)
def test_figures_of_a_spoilt_record_are_left_out(spoilt: Any) -> None:
    assert figures({"seconds": spoilt, "steps": spoilt, "archive": spoilt}) in ({}, {"seconds": 0})


def test_the_machine_and_the_config_are_shown() -> None:
    machine = {"cpu": "Xeon", "cpus": 8, "memory_bytes": 64 * 10**9, "system": "Linux 6", "driver": "550.1"}
    gpus = [{"name": "NVIDIA H100", "memory_bytes": 85 * 10**9}]
    text = Page(render(record(machine={**machine, "gpus": gpus}, config="model_id: acme/tiny\n"))).text
    for said in ("8 × Xeon", "64.0 GB", "85.0 GB", "550.1", "Linux 6", "Config model_id: acme/tiny"):
        assert said in text


def test_the_head_has_start_and_verdict_before_anything_else() -> None:
    text = Page(render(record(started="2024-01-02T03:04:05Z"))).text
    assert (
        text.index("started 2024-01-02 03:04:05 UTC")
        < text.index("ready for cog-triton")
        < text.index("revision")
    )


def test_a_build_that_was_interrupted_says_so() -> None:
    told = record(error="interrupted (Ctrl-C)", kind="interrupted", failed={"stage": "build"})
    del told["archive"]
    page = Page(render(told))
    assert "It was interrupted in build interrupted (Ctrl-C)" in page.text
    assert " build 1 min 1 s interrupted" in page.text
    assert "failed" not in page.text.replace("build failed", "")


def test_a_step_is_called_as_its_config_calls_it() -> None:
    told = record(names={"convert_to_ft": "convert_checkpoint"}, seconds={"convert_to_ft": 4, "build": 1})
    text = Page(render({**told, "failed": {"stage": "convert_to_ft"}, "error": "x"})).text
    assert "convert_to_ft" not in text.replace("/opt/convert_to_ft.py", "").replace("/src/convert_to_ft", "")
    for said in (
        "80% of it in convert_checkpoint",
        "It failed in convert_checkpoint",
        "convert_checkpoint: host",
    ):
        assert said in text


def test_a_section_with_nothing_in_it_is_left_out() -> None:
    page = Page(render(record(steps=[], seconds={"download": 1.0})))
    assert "Memory" not in page.text
    assert "Commands" not in page.text


def test_warnings_and_settings_are_shown_where_there_are_any() -> None:
    checks = [{"name": "ranks", "status": "warning", "message": "two", "settings": {"WORLD_SIZE": "2"}}]
    page = Page(render(record(warnings=["mind the gap"], readiness=checks)))
    assert "mind the gap" in page.text
    assert "WORLD_SIZE=2" in page.text
    assert "Warnings" not in Page(render(record())).text


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["ok", "warning"], "ready for cog-triton"),
        (["ok", "unknown"], "unverified for cog-triton: 1 of 2 checks could not be made"),
        (["problem", "problem"], "not ready for cog-triton: m, and 1 more problem"),
    ],
)
def test_the_head_says_how_it_stands(statuses: list[str], said: str) -> None:
    checks = [{"name": "x", "status": status, "message": "m", "settings": {}} for status in statuses]
    assert said in Page(render(record(readiness=checks))).text


def test_a_record_of_an_earlier_version_still_gives_a_page() -> None:
    assert "acme/tiny" in Page(render({"manifest": {"model_id": "acme/tiny"}})).text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1, max_size=6))
def test_a_command_can_be_pasted_into_a_shell(argv: list[str]) -> None:
    assert shlex.split(shell(argv).replace(" \\\n", " ")) == argv


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.044, "0.04 s"), (2.5, "2.5 s"), (59, "59 s"), (60, "1 min"), (3725, "1 h 2 min")],
)
def test_time_in_words(seconds: float, words: str) -> None:
    assert in_time(seconds) == words


@given(st.floats(0.001, 30 * 86400))
def test_ticks_are_few_and_inside(total: float) -> None:
    marks = ticks(total)
    assert marks[0] == 0
    assert 2 <= len(marks) <= 11
    assert marks == sorted(set(marks))
    assert marks[-1] <= total * (1 + 1e-6)


@given(st.integers(1, 10**15))
def test_a_charts_upper_end_is_close_above(size: int) -> None:
    assert size <= round_up(size) <= 2 * size + 1


def test_record_of_a_real_gpu_build_shows_its_gpu_and_its_memory() -> None:
    """`h200_build.json` is what a build on an NVIDIA H200 wrote."""
    fixture = FIXTURES / "h200_build.json"
    page = Page(render(record(**json.loads(fixture.read_text()))))
    assert "NVIDIA H200" in page.text
    assert "9.0" in page.text
    assert "7.7 GB" in page.text


class TestTalk:
    """What the engine wrote when it was checked."""

    @staticmethod
    def page(**check: Any) -> Page:
        return Page(render({**RECORD_WITH_CHECK, "check": check}))

    def test_passed(self) -> None:
        answer = {"prompt": "The capital", "prompt_tokens": [1], "tokens": [7, 8], "text": " of France"}
        text = self.page(status="passed", level=2, answers=[answer], reference=None, notes=["so be it"]).text
        assert "Does it talk?" in text
        assert "passed level 2 of 3" in text
        assert "The capital of France 7 8" in text
        assert "so be it" in text

    def test_failed_with_the_models_own_words(self) -> None:
        answer = {"prompt": "p", "prompt_tokens": None, "tokens": None, "text": HOSTILE}
        own = {"prompt": "p", "common": 0, "tokens": [5], "text": " better"}
        reference = {"by": "numpy 2", "prompts": [own]}
        page = self.page(
            status="failed", level=1, reason=HOSTILE, answers=[answer], reference=reference, notes=[]
        )
        assert HOSTILE in page.text
        assert page.all("script") == [{}]
        assert "the model itself (numpy 2)" in page.text
        assert "better 5" in page.text

    @pytest.mark.parametrize("check", [None, {}, {"status": "off", "reason": "x"}])
    def test_nothing_to_tell(self, check: Any) -> None:
        assert "Does it talk?" not in Page(render({**RECORD_WITH_CHECK, "check": check})).text


RECORD_WITH_CHECK: dict[str, Any] = {"build_id": "b", "seconds": {"check": 1.0}, "manifest": {}}
