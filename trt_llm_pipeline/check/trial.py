"""Trying an engine: one prompt, what it writes, and how fast."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from trt_llm_pipeline.check.asking import PROGRAMS, NoAnswerError, ParserOptions, make_asker
from trt_llm_pipeline.check.options import CannotAskError
from trt_llm_pipeline.check.supervised import Supervision, environment, sandbox
from trt_llm_pipeline.check.verdict import Answer
from trt_llm_pipeline.errors import BadArgument, CheckFailed, ToolchainError
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.toolchain import Toolchain

# What a shorter time would say is how busy the machine is.
_SHORTEST_S = 0.05


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        text: what the engine wrote.
        tokens: how many it generated; None where `run.py` tells texts only.
        seconds: how long loading and generating took.
        tokens_per_second: of generating alone; None where that cannot be told.
    """

    text: str
    tokens: int | None
    seconds: float
    tokens_per_second: float | None

    def in_words(self) -> str:
        """Tokens and times in one line."""
        took = f"in {self.seconds:.1f} s with loading"
        if self.tokens is None:
            return f"text {took}; run.py does not tell its tokens"
        counted = f"{self.tokens} token{'' if self.tokens == 1 else 's'} {took}"
        if self.tokens_per_second is not None:
            return f"{counted}, {self.tokens_per_second:.1f} tokens/s after it"
        return f"{counted}; too few to measure a rate after it" if self.tokens > 1 else counted


def generate(
    engine_dir: Path,
    prompt: str,
    *,
    tokens: int,
    toolchain: Toolchain,
    example: Path,
    gpus: int,
    env: Mapping[str, str],
    layers: Layers,
    redactor: Redactor,
    options: ParserOptions,
    timeout: float,
) -> Trial:
    """Has an engine go on from a prompt, greedily, in the sandbox that a build's check has.

    The engine is asked twice, for one token and for all: the difference is what generating takes.

    Args:
        engine_dir: the engine and its tokenizer.
        prompt: the text.
        tokens: to generate at most.
        toolchain, example, gpus, options: see `make_asker`.
        env: the service's environment.
        layers: what can be held of a sandbox here.
        redactor: knows the secrets.
        timeout: seconds that loading and generating may take.

    Raises:
        BadArgument: the prompt is empty.
        ToolchainError: the engine cannot be asked here.
        CheckFailed: it was asked and did not answer.
    """
    check_prompt(prompt)
    with tempfile.TemporaryDirectory(prefix="trt-llm-try-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the programs may run as another user
        scratch = folder / "scratch"
        supervision = Supervision(
            cwd=scratch,
            env=environment(env, layers, scratch),
            sandbox=sandbox(layers, toolchain, env, scratch, shown=[PROGRAMS, engine_dir]),
            redactor=redactor,
            log_file=folder / "try.log",
            timeout=timeout,
            lock=lambda: nullcontext(None),
            each_second=lambda _usage: None,
        )
        try:
            asker = make_asker(
                engine_dir,
                toolchain=toolchain,
                example=example,
                gpus=gpus,
                options=options,
                run=supervision.run,
                scratch=scratch,
                tokens=tokens,
                search_path=env.get("PATH"),
            )
            once = replace(asker, limits=replace(asker.limits, output_len=1))
            started = time.monotonic()
            once.ask([prompt])
            loaded = time.monotonic()
            (answer,) = asker.ask([prompt])
            return _trial(answer, loaded - started, time.monotonic() - loaded)
        except CannotAskError as problem:
            raise ToolchainError(f"the engine cannot be tried here: {problem}") from None
        except NoAnswerError as problem:
            quoted = "".join(f"\n  | {line}" for line in problem.tail)
            raise CheckFailed(f"the engine did not answer: {problem}{quoted}", verdict={}) from None


def check_prompt(prompt: str) -> None:
    """Refuses what no engine can go on from. Raises `BadArgument`."""
    if not prompt:
        raise BadArgument("the prompt is empty; give the text to go on from")


def _trial(answer: Answer, first_s: float, all_s: float) -> Trial:
    count = None if answer.tokens is None else len(answer.tokens)
    generating = all_s - first_s
    rate = (count - 1) / generating if count and count > 1 and generating > _SHORTEST_S else None
    return Trial(answer.text, count, round(all_s, 3), None if rate is None else round(rate, 1))
