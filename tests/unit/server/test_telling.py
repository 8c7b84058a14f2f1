"""What is attached to an error is in the text that Cog passes on."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.errors import StepFailed, add_note
from trt_llm_pipeline.server.telling import telling_all


def test_notes_are_lines_of_the_error() -> None:
    error = StepFailed("build", "build.py exited with code 1", exit_code=1, tail=["its last line"])
    add_note(error, "the script has moved models")
    add_note(error, "the disk is full")
    with pytest.raises(StepFailed) as raised, telling_all():
        raise error
    assert raised.value is error
    assert str(error).splitlines() == [
        "step build: build.py exited with code 1",
        "  | its last line",
        "also: the script has moved models",
        "also: the disk is full",
    ]


def test_an_error_without_notes_stays_as_it_is() -> None:
    with pytest.raises(StepFailed, match=r"^step build: it failed$"), telling_all():
        raise StepFailed("build", "it failed")
