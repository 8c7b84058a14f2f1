"""When an engine is asked and when it cannot be, told before and after; and what follows from a verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from trt_llm_pipeline import check
from trt_llm_pipeline.check import CheckRequest, Verdict
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import CheckFailed
from trt_llm_pipeline.plan import Plan, make_plan
from trt_llm_pipeline.process import UNCONFINED
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

CONFIG = "model_id: a/b\nexample_name: gpt\nbuild:\n  script: build.py\n  output_dir: ./e\n"


@pytest.fixture
def planned(miniature: Toolchain, workspace: Workspace) -> Plan:
    """A build by a GPU toolchain that has a run.py for all examples."""
    (miniature.examples / "run.py").write_text("raise SystemExit('not to be run here')\n")
    workspace.prepare()
    return of(CONFIG, miniature, workspace)


def of(text: str, toolchain: Toolchain, workspace: Workspace) -> Plan:
    made, mistakes = make_plan(loads(text), toolchain, workspace)
    assert mistakes == []
    return made


def request(
    planned: Plan, folder: Path, *, gpus: int, files: Mapping[str, object] = {}, **more: object
) -> CheckRequest:
    """A request to check an engine of these files; JSON where they are mappings."""
    engine = folder / "built"
    for name, content in files.items():
        path = engine / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) if isinstance(content, dict) else "x")
    made = CheckRequest(
        plan=planned,
        engine_dir=engine,
        beside={},
        model_dir=folder,
        gpus=gpus,
        env={},
        layers=UNCONFINED,
        redactor=Redactor(),
        log_file=folder / "check.log",
        default_timeout=None,
        options=lambda _command: "it is a stand-in",
        lock=lambda: nullcontext(0),
        each_second=lambda _usage: None,
    )
    return replace(made, **more)  # type: ignore[arg-type]


TWO_RANKS = {
    "config.json": {"pretrained_config": {"mapping": {"world_size": 2, "tp_size": 2}}, "build_config": {}},
    "rank0.engine": "",
    "rank1.engine": "",
}


class TestWhatCannotBeAsked:
    """The verdict is `unchecked`, with the reason."""

    @pytest.mark.parametrize(
        ("gpus", "reason"),
        [
            (0, "it has 2 ranks, one for each GPU, and there is no GPU here"),
            (1, "it has 2 ranks, one for each GPU, and there is 1 GPU here"),
            (2, "the options of run.py could not be asked for: it is a stand-in"),
        ],
    )
    def test_ranks_and_gpus(self, planned: Plan, tmp_path: Path, gpus: int, reason: str) -> None:
        verdict = check.run(request(planned, tmp_path, gpus=gpus, files=TWO_RANKS))
        assert (verdict.status, verdict.reason) == ("unchecked", reason)

    def test_an_encoder_and_a_decoder(self, planned: Plan, tmp_path: Path) -> None:
        one = {"config.json": {"pretrained_config": {}, "build_config": {}}, "rank0.engine": ""}
        halves = {f"{half}/{name}": text for half in ("encoder", "decoder") for name, text in one.items()}
        verdict = check.run(request(planned, tmp_path, gpus=8, files=halves))
        assert verdict.status == "unchecked"
        assert "encoder-decoder" in verdict.reason

    def test_no_run_script(self, planned: Plan, tmp_path: Path) -> None:
        (planned.toolchain.examples / "run.py").unlink()
        verdict = check.run(request(planned, tmp_path, gpus=8, files=TWO_RANKS))
        assert verdict.reason.startswith("the toolchain miniature 1.0 has no run.py")

    def test_nothing_is_left_in_the_workspace(self, planned: Plan, tmp_path: Path) -> None:
        before = sorted(planned.workspace.root.rglob("*"))
        check.run(request(planned, tmp_path, gpus=2, files=TWO_RANKS))
        assert sorted(planned.workspace.root.rglob("*")) == before


def test_what_a_killed_build_has_left_is_removed(planned: Plan) -> None:
    state = planned.workspace.state
    (state / "check-abc" / "engine").mkdir(parents=True)
    (state / "check-abc" / "engine" / "config.json").write_text("{}")
    (state / "elsewhere").mkdir()
    (state / "check-link").symlink_to("elsewhere")
    check.remove_leftovers(planned.workspace)
    assert not (state / "check-abc").exists()
    assert (state / "elsewhere").is_dir()


class TestIntention:
    """What `plan` says."""

    def test_with_gpus(self, planned: Plan) -> None:
        told = check.intention(planned, 2)
        assert told.planned
        assert told.reason.endswith("to see that it talks, if 2 GPUs are enough for its ranks")

    def test_without(self, planned: Plan) -> None:
        told = check.intention(planned, 0)
        assert not told.planned
        assert told.reason == "the engine will not be checked: there is no GPU here to load it"

    def test_the_examples_own_script_wins(self, planned: Plan) -> None:
        own = planned.steps[-1].example / "run.py"
        own.write_text("")
        assert check.find_script(planned.toolchain, planned.steps[-1].example) == own

    def test_with_the_reference(self, planned: Plan) -> None:
        wanted = of(CONFIG + "check:\n  reference: true\n", planned.toolchain, planned.workspace)
        assert "to compare it with what the model itself writes" in check.intention(wanted, 1).reason


class TestRequire:
    """What follows from a verdict."""

    @pytest.mark.parametrize("status", ["passed", "unchecked", "off"])
    def test_the_build_goes_on(self, planned: Plan, tmp_path: Path, status: str) -> None:
        check.require(Verdict(status, 2, "because"), request(planned, tmp_path, gpus=0))  # type: ignore[arg-type]

    def test_garbage(self, planned: Plan, tmp_path: Path) -> None:
        with pytest.raises(CheckFailed, match="it does not talk as it should: it wrote 1 1 1") as caught:
            check.require(Verdict("failed", 1, "it wrote 1 1 1"), request(planned, tmp_path, gpus=0))
        assert caught.value.verdict["status"] == "failed"
        assert f"The engine is kept in {tmp_path / 'built'}" in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "verdict", "enough"),
        [
            ("check: required\n", Verdict("unchecked", 0, "no GPU"), False),
            ("check: required\n", Verdict("passed", 2, "it talks"), True),
            ("check: {required: true, reference: true}\n", Verdict("passed", 2, "no torch"), False),
            ("check: {required: true, reference: true}\n", Verdict("passed", 3, "it talks"), True),
        ],
    )
    def test_required(self, planned: Plan, tmp_path: Path, text: str, verdict: Verdict, enough: bool) -> None:
        wanted = of(CONFIG + text, planned.toolchain, planned.workspace)
        if enough:
            check.require(verdict, request(wanted, tmp_path, gpus=0))
            return
        with pytest.raises(CheckFailed, match="could not be checked as the config requires"):
            check.require(verdict, request(wanted, tmp_path, gpus=0))
