"""A build as lines for a log: how far a download is, and once a minute what a long stage has."""

from __future__ import annotations

from pathlib import Path

from trt_llm_pipeline.observer import Heartbeat, Lines


class Told:
    """Lines, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.metrics: dict[str, float] = {}
        self.observer = Lines(self.lines.append, self.metrics.__setitem__, lambda: self.now)


def test_how_far_comes_after_five_seconds_and_then_ever_more_rarely() -> None:
    told = Told()
    told.observer.stage("download", "running")
    at = []
    for second in range(200):
        told.now, before = 100.0 + second, len(told.lines)
        told.observer.progress("download", second * 1_000_000, 400_000_000)
        at += [second] * (len(told.lines) - before)
    assert at == [5, 10, 20, 40, 80, 140]
    assert told.lines[0] == "download: 5.0 MB of 400.0 MB (1%), 1.0 MB/s, 6 min 35 s left"
    assert told.lines[-1] == "download: 140.0 MB of 400.0 MB (35%), 1.0 MB/s, 4 min 20 s left"


def test_what_was_there_before_is_no_speed() -> None:
    told = Told()
    told.observer.stage("download", "running")
    told.observer.progress("download", 9_000_000_000, 10_000_000_000)
    told.now += 10
    told.observer.progress("download", 9_100_000_000, 10_000_000_000)
    assert told.lines == ["download: 9.1 GB of 10.0 GB (91%), 10.0 MB/s, 1 min 30 s left"]


def test_another_stage_begins_anew_and_may_not_know_its_end() -> None:
    told = Told()
    told.observer.progress("download", 0, 0)
    told.now += 9
    told.observer.progress("download", 0, 0)
    told.observer.progress("package", 1_000, None)
    told.now += 6
    told.observer.progress("package", 4_000, None)
    assert told.lines == [
        "download: 0 bytes, 0 bytes/s, after 9 s",
        "package: 4.0 kB, 500 bytes/s, after 6 s",
    ]


def test_a_long_stage_is_announced_once_a_minute_whatever_it_prints() -> None:
    told = Told()
    told.observer.stage("build", "running")
    for second in range(0, 3 * 60 + 30):
        told.now = 100.0 + second
        told.observer.usage("build", 10**9 * (1 + second // 60), 5 * 10**9, (second * 10**8, 0))
        told.observer.output("chatter")
    said = [line.removeprefix("build: still running ") for line in told.lines if line != "chatter"]
    assert said == [
        "after 1 min, memory 2.0 GB (at most 5.0 GB), GPU memory in use 6.0 GB, 0 bytes",
        "after 2 min, memory 3.0 GB (at most 5.0 GB), GPU memory in use 12.0 GB, 0 bytes",
        "after 3 min, memory 4.0 GB (at most 5.0 GB), GPU memory in use 18.0 GB, 0 bytes",
    ]


def test_a_beat_that_was_missed_is_not_made_up_for() -> None:
    now, lines = 0.0, list[str]()
    beat = Heartbeat(lines.append, lambda: now)
    for now in (0.0, 1.0, 200.0, 201.0, 239.0, 240.0):  # noqa: B007  the clock reads it
        beat.usage("check", 1, 1, ())
    assert [line.partition(",")[0] for line in lines] == [
        "check: still running after 3 min 20 s",
        "check: still running after 4 min",
    ]


def test_lines_metrics_and_what_a_failure_left_are_told_as_they_are() -> None:
    told = Told()
    told.observer.log("[bold] \x1b")
    told.observer.output("out")
    told.observer.metric("timing.build", 1.5)
    told.observer.kept("report", Path("/w/report.html"))
    assert told.lines == ["[bold] \x1b", "out", "report: /w/report.html"]
    assert told.metrics == {"timing.build": 1.5}


def test_a_measurement_that_is_not_taken_costs_no_build() -> None:
    def refuse(name: str, value: float) -> None:
        raise ValueError(f"{name} must start with a letter")

    lines: list[str] = []
    Lines(lines.append, refuse).metric("0", 1.0)
    assert lines == ["warning: the measurement 0 is not kept: 0 must start with a letter"]
