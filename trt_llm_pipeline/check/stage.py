"""The stage: puts together what the archive will hold, asks, judges, and says what came out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trt_llm_pipeline.check import judging
from trt_llm_pipeline.check.asking import (
    CPU_TOOLCHAIN,
    PROGRAMS,
    Asker,
    NoAnswerError,
    ParserOptions,
    find_script,
    make_asker,
)
from trt_llm_pipeline.check.judging import Suspicion
from trt_llm_pipeline.check.options import CannotAskError
from trt_llm_pipeline.check.referring import Comparison, compare
from trt_llm_pipeline.check.supervised import Supervision, environment, sandbox
from trt_llm_pipeline.check.verdict import Answer, Verdict, in_quotes
from trt_llm_pipeline.errors import CheckFailed, PipelineError
from trt_llm_pipeline.files import walk
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.process import Layers, Usage
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.workspace import Workspace

PROMPTS = (
    "The capital of France is",
    "In the morning she opened the window and",
    "Water boils when it is",
)
TOKENS = 16
DEFAULT_TIMEOUT_S = 3600.0
_SCRATCH = "check-"
_LEFT_OUT = "the engine will not be checked"

_CAUSES = {
    "load": (
        "too little free GPU memory, another GPU or TensorRT than it was built with, or a damaged engine file"
    ),
    "vocabulary": "a tokenizer, or a vocab_size, of another model",
    "degenerate": (
        "weights that the conversion has not found or not read, a type too narrow for them (float16 for a "
        "bfloat16 model gives NaN), or a quantisation with wrong scales"
    ),
    "other": (
        "options of the conversion that do not fit the model (heads, rotary embedding, norms), a "
        "quantisation too coarse or with wrong scales, or a KV cache of a type that the model does not bear"
    ),
    "tokenizer": "tokenizer files in the engine's directory, or a tokenizer_class, that are another model's",
}


@dataclass(frozen=True)
class CheckRequest:
    """What is to be checked, and with what.

    Attributes:
        plan: the build's.
        engine_dir: the build step's output.
        beside: what the archive will hold beside it, by name; an engine file of the same name wins.
        model_dir: the Hugging Face model.
        gpus: how many GPUs are at hand.
        env: the service's environment.
        layers: what can be held of a sandbox here.
        redactor: knows the secrets.
        log_file: gets what the programs print.
        default_timeout: seconds for each program where the config does not say; None for an hour.
        options: asks the parser of a command's script what options it has.
        lock, each_second: see `Supervision`.
    """

    plan: Plan
    engine_dir: Path
    beside: Mapping[str, Path | bytes]
    model_dir: Path
    gpus: int
    env: Mapping[str, str]
    layers: Layers
    redactor: Redactor
    log_file: Path
    default_timeout: float | None
    options: ParserOptions
    lock: Callable[[], AbstractContextManager[int]]
    each_second: Callable[[Usage], None]


@dataclass(frozen=True)
class Intention:
    """Whether a build's engine will be checked, and why, in one sentence."""

    planned: bool
    reason: str

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def intention(plan: Plan, gpus: int) -> Intention:
    """What a build will do about its engine, told before there is one.

    Args:
        plan: the build's.
        gpus: how many GPUs are at hand.
    """
    wanted = plan.config.check
    if not wanted.enabled:
        return Intention(False, f"{_LEFT_OUT}: the config says check: off")
    try:
        script = find_script(plan.toolchain, plan.steps[-1].example)
    except CannotAskError as reason:
        return Intention(False, f"{_LEFT_OUT}: {reason}")
    if plan.toolchain.name != CPU_TOOLCHAIN and not gpus:
        return Intention(False, f"{_LEFT_OUT}: there is no GPU here to load it")
    where = (
        ""
        if plan.toolchain.name == CPU_TOOLCHAIN
        else f", if {gpus} GPU{'s' * (gpus != 1)} are enough for its ranks"
    )
    level = "to compare it with what the model itself writes" if wanted.reference else "to see that it talks"
    asked = f"the engine will be given {len(PROMPTS)} prompts through {script.name}"
    return Intention(True, f"{asked}, {level}{where}")


def run(request: CheckRequest) -> Verdict:
    """Checks an engine.

    Returns:
        The verdict. See `require` for what follows from it.

    Raises:
        PipelineError: a program could not be started.
    """
    wanted = request.plan.config.check
    if not wanted.enabled:
        return Verdict("off", 0, "the config says check: off")
    state = request.plan.workspace.state
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=state, ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the programs may run as another user
        archived, scratch = folder / "engine", folder / "scratch"
        _put_together(request.engine_dir, request.beside, archived)
        supervision = Supervision(
            cwd=scratch,
            env=environment(request.env, request.layers, scratch),
            sandbox=sandbox(
                request.layers,
                request.plan.toolchain,
                request.env,
                scratch,
                shown=[PROGRAMS, archived, *_targets(archived), *_targets(request.model_dir)],
            ),
            redactor=request.redactor,
            log_file=request.log_file,
            timeout=wanted.timeout or request.default_timeout or DEFAULT_TIMEOUT_S,
            lock=request.lock,
            each_second=request.each_second,
        )
        try:
            asker = make_asker(
                archived,
                toolchain=request.plan.toolchain,
                example=request.plan.steps[-1].example,
                gpus=request.gpus,
                options=request.options,
                run=supervision.run,
                scratch=scratch,
                tokens=TOKENS,
                search_path=request.env.get("PATH"),
            )
        except CannotAskError as reason:
            return Verdict("unchecked", 0, f"{reason}")
        verdict = Verdict(
            "failed",
            0,
            "",
            world_size=asker.world_size,
            script=_shown(asker.script, request.plan),
            precision=asker.limits.precision,
        )
        try:
            answers = asker.ask(PROMPTS)
        except CannotAskError as reason:
            return replace(verdict, status="unchecked", reason=f"{reason}", world_size=0)
        except NoAnswerError as problem:
            quoted = "".join(f"\n  | {line}" for line in problem.tail)
            advice = "raise check.timeout" if problem.timed_out else _usual("load")
            return replace(verdict, reason=f"{problem}; {advice}{quoted}")
        verdict = replace(verdict, answers=tuple(answers))
        return judge(verdict, asker, request.model_dir, reference=wanted.reference)


def remove_leftovers(workspace: Workspace) -> None:
    """Removes what the check of a build that was killed has left. Called with the workspace locked."""
    for path in workspace.state.glob(f"{_SCRATCH}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def require(verdict: Verdict, request: CheckRequest) -> None:
    """Goes on, or not.

    Raises:
        CheckFailed: the engine has failed, or could not be asked where the config says `check: required`.
    """
    kept = f"The engine is kept in {request.engine_dir}, what was printed in {request.log_file}."
    if verdict.status == "failed":
        raise CheckFailed(
            f"the engine was built, but it does not talk as it should: {verdict.reason}\n{kept} To have it "
            "packed all the same, set check: off.",
            verdict=request.redactor.values(verdict.as_json()),
        )
    wanted = request.plan.config.check
    short = verdict.status == "unchecked" or (wanted.reference and verdict.level < 3)
    if wanted.enabled and wanted.required and short:
        raise CheckFailed(
            f"the engine was built, but it could not be checked as the config requires: {verdict.reason}\n"
            f"{kept} Leave required out to have it packed all the same.",
            verdict=request.redactor.values(verdict.as_json()),
        )


def judge(verdict: Verdict, asker: Asker, model_dir: Path, *, reference: bool) -> Verdict:
    """Judges what an engine has written.

    Args:
        verdict: with the answers.
        asker: has asked.
        model_dir: the Hugging Face model, asked where level 2 is suspicious or `reference` is true.
        reference: whether level 3 is wanted.
    """
    answers = list(verdict.answers)
    vocabulary = judging.out_of_range(answers, asker.limits.vocab_size)
    if vocabulary is not None:
        return replace(verdict, reason=f"{_wrote(vocabulary)}; {_usual('vocabulary')}")
    texts = ", ".join(in_quotes(answer.text) for answer in answers)
    suspicions = judging.suspicions(answers)
    if not suspicions and not reference:
        return replace(verdict, status="passed", level=2, reason=f"the engine wrote {texts}")
    verdict = replace(verdict, level=1 if suspicions else 2)
    compared = compare(asker, model_dir, answers, own_first=not reference)
    if isinstance(compared, str):
        return _without_reference(verdict, suspicions, texts, compared)
    verdict = replace(verdict, reference=compared.reference)
    if not compared.agrees:
        return replace(verdict, reason=_differs(answers, suspicions, compared))
    reason = f"the engine wrote {texts}, as the model itself does ({compared.reference.by})"
    notes = tuple(f"{_wrote(each)}; so does the model itself" for each in suspicions)
    return replace(verdict, status="passed", level=3, reason=reason, notes=notes)


def _without_reference(verdict: Verdict, suspicions: list[Suspicion], texts: str, why: str) -> Verdict:
    if suspicions:
        return replace(
            verdict,
            reason=f"{_wrote(suspicions[0])}; {_usual('degenerate')}. What the model itself writes could not "
            f"be found out: {why}",
        )
    note = f"not compared with what the model itself writes: {why}"
    return replace(verdict, status="passed", reason=f"the engine wrote {texts}; {note}", notes=(note,))


def _differs(answers: list[Answer], suspicions: list[Suspicion], compared: Comparison) -> str:
    if compared.misread is not None:
        answer, own = compared.misread
        mine = " ".join(map(str, answer.prompt_tokens or ()))
        return (
            f"the archive's tokenizer reads {in_quotes(answer.prompt)} as {mine}, the model's own as "
            f"{' '.join(map(str, own))}; {_usual('tokenizer')}"
        )
    pairs = list(zip(answers, compared.reference.prompts, strict=True))
    answer, theirs = min(pairs, key=lambda pair: pair[1].common)
    cause = "degenerate" if suspicions else "other"
    what = next((f" ({each.what})" for each in suspicions if each.answer is answer), "")
    return (
        f"after {in_quotes(answer.prompt)} it wrote {answer.shown()}{what}, where the model itself writes "
        f"{' '.join(map(str, theirs.tokens))} {in_quotes(theirs.text)}; the first {theirs.common} are "
        f"common; {_usual(cause)}"
    )


def _wrote(found: Suspicion) -> str:
    return f"after {in_quotes(found.answer.prompt)} it wrote {found.answer.shown()} ({found.what})"


def _usual(cause: str) -> str:
    return f"usual causes: {_CAUSES[cause]}"


def _shown(script: Path, plan: Plan) -> str:
    return str(script.relative_to(plan.toolchain.root))


def _targets(folder: Path) -> list[Path]:
    """A directory as it really is, and the files that links in it lead to."""
    links = (path for path in folder.rglob("*") if path.is_symlink() and path.is_file())
    return [Path(os.path.realpath(folder)), *(Path(os.path.realpath(path)) for path in links)]


def _put_together(engine_dir: Path, beside: Mapping[str, Path | bytes], folder: Path) -> None:
    """Makes a directory as the archive will be: the engine's files, by links, and the rest beside them."""
    folder.mkdir()
    try:
        for top, directories, files in walk(engine_dir):
            inside = folder / Path(top).relative_to(engine_dir)
            for name in directories:
                (inside / name).mkdir(exist_ok=True)
            for name in files:
                (inside / name).symlink_to(Path(top, name).resolve())
        for name, data in beside.items():
            place = folder / name
            if os.path.lexists(place):
                continue
            if isinstance(data, bytes):
                place.write_bytes(data)
            else:
                shutil.copyfile(data, place)
    except OSError as problem:
        raise PipelineError(
            f"{folder} cannot be filled for the check: {problem.strerror or problem}"
        ) from None
