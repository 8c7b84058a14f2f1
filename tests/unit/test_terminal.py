"""What a build says at a terminal is what it said, to the letter."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.terminal import Terminal


@pytest.mark.parametrize(
    "line",
    ["x.py:100: Warning", "[bold]not bold[/bold]", "[/]", ":warning:", "https://host/[1]"],
)
def test_a_strangers_line_is_shown_as_it_is(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal:
        terminal.log(line)
    assert f"{line}\n" in capfd.readouterr().err
