"""Progress as occasional lines."""

from __future__ import annotations

from trt_llm_pipeline.server.progress import throttled


def test_a_line_comes_every_five_seconds_and_says_how_far() -> None:
    now = 0.0
    lines: list[str] = []
    report = throttled(lines.append, lambda: now)
    for second in range(12):
        now = float(second)
        report("download", second * 1_000_000, 20_000_000)
    assert lines == ["download: 5.0 MB of 20.0 MB (25%)", "download: 10.0 MB of 20.0 MB (50%)"]
    now = 16.0
    report("package", 3_000, None)
    report("package", 4_000, None)
    assert lines[2:] == ["package: 3.0 kB"]


def test_nothing_to_do_is_no_division_by_nothing() -> None:
    times = iter([0.0, 9.0])
    lines: list[str] = []
    throttled(lines.append, lambda: next(times))("download", 0, 0)
    assert lines == ["download: 0 bytes"]
