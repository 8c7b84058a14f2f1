"""Asking an engine: the toolchain's own `run.py` is given prompts, and what it writes is read back.

The releases differ. Up to 0.5 each example has a `run.py` of its own, which takes one prompt; from 0.7
there is `examples/run.py`, which takes several. Both write token ids to a file where they are asked to, and
then print no text. So the ids are taken where they are offered, and a program of ours, run by the same
interpreter, tells with the engine's tokenizer where the prompt ends and what the rest says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_llm_pipeline.check.limits import Limits, limits
from trt_llm_pipeline.check.options import CannotAskError, Dialect, Option, dialect
from trt_llm_pipeline.check.reading import UnreadableError, read_csv, read_npy, read_texts
from trt_llm_pipeline.check.verdict import Answer
from trt_llm_pipeline.engine import layout
from trt_llm_pipeline.files import read_json
from trt_llm_pipeline.process import ProcessResult
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.units import in_time

PROGRAMS = Path(__file__).parent / "programs"
CPU_TOOLCHAIN = "cpu"
_RUN = "run.py"
_UNLIMITED = 1 << 20


class NoAnswerError(Exception):
    """The engine was asked and did not answer as it must; the text says how.

    Attributes:
        tail: the last lines that `run.py` printed.
        timed_out: it was ended, because it took longer than it may.
    """

    def __init__(self, message: str, tail: Sequence[str] = (), *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.tail = tuple(tail)
        self.timed_out = timed_out


#: Runs a program; each line of its output also goes to the callable.
Runner = Callable[[Sequence[str], Callable[[str], None]], ProcessResult]
#: What the parser of a command's script has; a text where it cannot be asked says why.
ParserOptions = Callable[[Sequence[str]], "Sequence[Option] | str"]


@dataclass(frozen=True)
class Asker:
    """An engine that can be asked.

    Attributes:
        toolchain: whose `run.py`.
        script: that one; see `find_script`.
        dialect: how it wants to be asked.
        engine_dir: the engine and its tokenizer, in one directory, as in an archive.
        world_size: how many ranks the engine has.
        limits: of the engine.
        run: runs a program.
        scratch: an empty directory for what is exchanged.
        search_path: where `mpirun` is looked for, as in $PATH.
    """

    toolchain: Toolchain
    script: Path
    dialect: Dialect
    engine_dir: Path
    world_size: int
    limits: Limits
    run: Runner
    scratch: Path
    search_path: str | None = None
    _asked: list[int] = field(default_factory=list)

    def ask(self, prompts: Sequence[str]) -> list[Answer]:
        """What the engine writes after each prompt, at most `limits.output_len` tokens, greedily.

        Raises:
            CannotAskError: something is missing that is not the engine's.
            NoAnswerError: `run.py` failed, took too long, or has not written what it must.
        """
        at_once = self.limits.batch_size if self.dialect.several else 1
        if any(prompt.startswith("-") for prompt in prompts):
            at_once = 1  # among several it would be taken for an option
        parts = [prompts[start : start + at_once] for start in range(0, len(prompts), at_once)]
        if self.dialect.output is not None:
            answers = self._spelt(prompts, [row for part in parts for row in self._rows(part)])
            if answers is not None:
                return answers
        return [answer for part in parts for answer in self._texts(part)]

    def _rows(self, prompts: Sequence[str]) -> list[list[int]]:
        """The token ids of each prompt and what was generated after it."""
        self._asked.append(len(prompts))
        output = self.scratch / f"tokens-{len(self._asked)}"
        self._run(prompts, output)
        ending = self.dialect.output[1] if self.dialect.output else ""
        path = output.with_name(output.name + ending)
        try:
            rows = read_csv(path) if ending == ".csv" else read_npy(path)
        except UnreadableError as problem:
            raise NoAnswerError(f"{self.script.name} exited 0, but {problem}") from None
        if len(rows) != len(prompts):
            raise NoAnswerError(
                f"{self.script.name} was given {len(prompts)} prompts and answered {len(rows)} of them"
            )
        return rows

    def _spelt(self, prompts: Sequence[str], rows: list[list[int]]) -> list[Answer] | None:
        """The rows as answers; None where nobody here can read them."""
        longest = self.limits.input_len or _UNLIMITED
        request = {
            "folder": str(self.engine_dir),
            "prompts": list(prompts),
            "rows": rows,
            "input_length": longest,
            "tokens": self.limits.output_len,
        }
        report, _ = self.program(PROGRAMS / "spell.py", request)
        if report is None or not isinstance(report.get("answers"), list):
            return None
        return [
            Answer(
                prompt,
                tuple(told["prompt_tokens"]),
                tuple(told["tokens"]),
                str(told["text"]),
                int(told["cut"]),
            )
            for prompt, told in zip(prompts, report["answers"], strict=True)
        ]

    def _texts(self, prompts: Sequence[str]) -> list[Answer]:
        lines = self._run(prompts, None)
        texts = read_texts(lines)
        if len(texts) != len(prompts):
            raise NoAnswerError(
                f"{self.script.name} was given {len(prompts)} prompts and printed {len(texts)} answers",
                lines[-10:],
            )
        return [Answer(prompt, None, None, text) for prompt, text in zip(prompts, texts, strict=True)]

    def _run(self, prompts: Sequence[str], output: Path | None) -> list[str]:
        argv = [
            *self._launcher(),
            self.toolchain.python,
            str(self.script),
            *self.dialect.argv(
                self.engine_dir,
                prompts,
                tokens=self.limits.output_len,
                input_length=self.limits.input_len,
                output=output,
            ),
        ]
        lines: list[str] = []
        ran = self.run(argv, lines.append)
        if ran.timed_out:
            message = f"{self.script.name} did not answer within {in_time(ran.wall_s)}"
            raise NoAnswerError(message, ran.tail, timed_out=True)
        if ran.exit_code != 0:
            raise NoAnswerError(f"{self.script.name} exited with code {ran.exit_code}", ran.tail)
        return lines

    def _launcher(self) -> list[str]:
        if self.world_size == 1:
            return []
        mpirun = shutil.which("mpirun", path=self.search_path)
        if mpirun is None:
            raise CannotAskError(f"an engine of {self.world_size} ranks needs mpirun, which is not on PATH")
        return [mpirun, "-n", str(self.world_size)]

    def program(self, path: Path, request: Mapping[str, Any]) -> tuple[dict[str, Any] | None, ProcessResult]:
        """Runs a program that takes a request and leaves a report, both JSON, in the toolchain's interpreter.

        Returns:
            The report, or None where there is none; and how the program ended.
        """
        self._asked.append(0)
        question = self.scratch / f"request-{len(self._asked)}.json"
        answer = self.scratch / f"report-{len(self._asked)}.json"
        question.write_text(json.dumps(request))
        ran = self.run([self.toolchain.python, str(path), str(question), str(answer)], lambda _line: None)
        try:
            told = read_json(answer) if ran.exit_code == 0 else None
        except (OSError, ValueError):
            told = None
        return (told if isinstance(told, dict) else None), ran


def make_asker(
    engine_dir: Path,
    *,
    toolchain: Toolchain,
    example: Path,
    gpus: int,
    options: ParserOptions,
    run: Runner,
    scratch: Path,
    tokens: int,
    search_path: str | None,
) -> Asker:
    """Looks at an engine and at the toolchain's `run.py`, so that the one can be asked through the other.

    Args:
        engine_dir, run, scratch, search_path, toolchain: see `Asker`.
        example: the directory of the engine's example.
        gpus: how many there are.
        options: asks a script's parser.
        tokens: to generate at most.

    Raises:
        CannotAskError: it cannot be asked here.
    """
    script = find_script(toolchain, example)
    try:
        facts = layout.check_engine(engine_dir)
    except layout.LayoutError as problem:
        raise CannotAskError(f"{problem}") from None
    if any("/" in name for name in facts.rank_files):
        raise CannotAskError(
            "it is an encoder-decoder engine, and the prompts are for models that continue a text"
        )
    if toolchain.name != CPU_TOOLCHAIN and facts.world_size > gpus:
        have = f"{gpus} GPU{'s' * (gpus != 1)}" if gpus else "no GPU"
        raise CannotAskError(f"it has {facts.world_size} ranks, one for each GPU, and there is {have} here")
    return Asker(
        toolchain=toolchain,
        script=script,
        dialect=ask_dialect(toolchain, script, options),
        engine_dir=engine_dir,
        world_size=facts.world_size,
        limits=limits(engine_dir, tokens),
        run=run,
        scratch=scratch,
        search_path=search_path,
    )


def find_script(toolchain: Toolchain, example: Path) -> Path:
    """The `run.py` for an example's engines: the example's own, or the one for all.

    Args:
        toolchain: which.
        example: the example's directory.

    Raises:
        CannotAskError: there is neither.
    """
    for path in (example / _RUN, toolchain.examples / _RUN):
        if path.is_file():
            return path
    raise CannotAskError(
        f"the toolchain {toolchain.title} has no {_RUN}, neither for this example nor for all"
    )


def ask_dialect(toolchain: Toolchain, script: Path, options: ParserOptions) -> Dialect:
    """How a `run.py` wants to be asked, by its own parser.

    Raises:
        CannotAskError: its parser cannot be asked, or has not what is needed.
    """
    found = options([toolchain.python, str(script)])
    if isinstance(found, str):
        raise CannotAskError(f"the options of {script.name} could not be asked for: {found}")
    return dialect(found, script.name)
