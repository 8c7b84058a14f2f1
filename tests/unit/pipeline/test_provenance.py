"""What `build.json` says of a build that has come to no good end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.plan.test_resolved_config import CONFIG
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import DiskFull
from trt_llm_pipeline.pipeline import provenance
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace


class CancelationException(BaseException):
    """As Cog raises it in the thread of a prediction that is cancelled."""


@pytest.mark.parametrize(
    ("error", "words", "kind"),
    [
        (KeyboardInterrupt(), "interrupted (Ctrl-C)", "interrupted"),
        (SystemExit(143), "interrupted (SIGTERM)", "interrupted"),
        (CancelationException(), "cancelled by the client", "interrupted"),
        (DiskFull("the disk is full"), "the disk is full", "resources"),
        (ValueError(), "ValueError", "internal"),
    ],
)
def test_an_end_is_told_in_words(
    miniature: Toolchain, workspace: Workspace, tmp_path: Path, error: BaseException, words: str, kind: str
) -> None:
    planned, _ = make_plan(loads(CONFIG), miniature, workspace)
    told = provenance.failure(error, "package", planned, [], tmp_path)
    assert (told["error"], told["kind"]) == (words, kind)


def test_the_check_s_last_program_is_told_apart_from_what_it_printed(
    miniature: Toolchain, workspace: Workspace, tmp_path: Path
) -> None:
    planned, _ = make_plan(loads(CONFIG), miniature, workspace)
    log = tmp_path / "check.log"
    log.write_text("$ python first.py\nfine\n$ python run.py --input_text 'The wind'\nloading\n")
    failed = provenance.failure(ValueError("x"), "check", planned, [], tmp_path)["failed"]
    assert failed["argv"] == ["python", "run.py", "--input_text", "The wind"]
    assert failed["last_lines"] == ["loading"]
    log.write_text("$ python run.py\n")
    failed = provenance.failure(ValueError("x"), "check", planned, [], tmp_path)["failed"]
    assert (failed["argv"], failed["last_lines"]) == (["python", "run.py"], [])
