"""Trying an engine: one prompt, what it writes, and how fast."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from trt_llm_pipeline.check.asking import PROGRAMS, NoAnswerError, ParserOptions, make_asker
from trt_llm_pipeline.check.limits import Limits, limits
from trt_llm_pipeline.check.options import CannotAskError
from trt_llm_pipeline.check.supervised import Supervision, environment, sandbox
from trt_llm_pipeline.check.verdict import Answer
from trt_llm_pipeline.engine.layout import LayoutError, check_engine
from trt_llm_pipeline.errors import ArchiveDamaged, BadArgument, CheckFailed, ToolchainError
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.toolchain import Toolchain

# No two loadings take the same time; a rate from less than this, or this share of one, would only say that.
_SHORTEST_S = 0.5
_SHARE_OF_LOADING = 0.25


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        text: what the engine wrote.
        tokens: how many it generated; None where `run.py` tells texts only.
        seconds: how long loading and generating took.
        tokens_per_second: of generating alone; None where that cannot be told.
        room: how many tokens the engine has room for after the prompt, where no fewer were asked for.
        ended: whether the engine ended its text before it had generated as many as it might.
    """

    text: str
    tokens: int | None
    seconds: float
    tokens_per_second: float | None
    room: int | None = None
    ended: bool = False

    def in_words(self) -> str:
        """Tokens and times in one line."""
        took = f"in {self.seconds:.1f} s with loading"
        if self.tokens is None:
            return f"text {took}; run.py does not tell its tokens"
        counted = f"{self.tokens} token{'' if self.tokens == 1 else 's'} {took}"
        if self.room is not None and self.tokens >= self.room:
            counted += "; the engine has room for no more after this prompt"
        if self.tokens_per_second is not None:
            return f"{counted}, {self.tokens_per_second:.1f} tokens/s after it"
        if self.tokens <= 1:
            return counted
        short = "too short beside the loading to measure a rate"
        if self.ended:
            return f"{counted}; the engine ended its text there, which is {short}"
        more = ": give more --tokens" if self.room is None else ""
        return f"{counted}; that is {short}{more}"


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
        tokens: to generate at most; fewer where the engine has no room for so many after the prompt.
        toolchain, example, gpus, options: see `make_asker`.
        env: the service's environment.
        layers: what can be held of a sandbox here.
        redactor: knows the secrets.
        timeout: seconds that loading and generating may take.

    Raises:
        BadArgument: the prompt is empty, no text, or longer than what the engine takes.
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
                tokens=1,
                search_path=env.get("PATH"),
            )
            started = time.monotonic()
            (first,) = asker.ask([prompt])
            loaded = time.monotonic()
            _refuse_cut(first)
            room = _room(first, limits(engine_dir, tokens + 1))
            most = min(tokens, room)
            (answer,) = replace(asker, limits=replace(asker.limits, output_len=most)).ask([prompt])
            found = _trial(answer, loaded - started, time.monotonic() - loaded)
            ended = found.tokens is not None and found.tokens < most
            return replace(found, room=room if room <= tokens else None, ended=ended)
        except CannotAskError as problem:
            raise ToolchainError(f"the engine cannot be tried here: {problem}") from None
        except NoAnswerError as problem:
            quoted = "".join(f"\n  | {line}" for line in problem.tail)
            raise CheckFailed(f"the engine did not answer: {problem}{quoted}", verdict={}) from None


def check_prompt(prompt: str) -> None:
    """Refuses what no engine can go on from. Raises `BadArgument`."""
    if not prompt:
        raise BadArgument("the prompt is empty; give the text to go on from")
    try:
        prompt.encode()
    except UnicodeEncodeError:  # bytes of the command line that are not UTF-8 come as lone surrogates
        raise BadArgument("the prompt is not valid UTF-8 text; give it in UTF-8") from None


def require_engine(folder: Path, label: str) -> None:
    """Refuses an unpacked archive that holds no engine.

    Args:
        folder: where it is unpacked.
        label: what to call the archive in messages.

    Raises:
        ArchiveDamaged: it holds none, or not all of one.
    """
    try:
        check_engine(folder)
    except LayoutError as problem:
        said = str(problem).replace(f"{folder}/", "").replace(str(folder), label)
        raise ArchiveDamaged(f"{label} holds no engine that can be tried: {said}") from None


def _refuse_cut(answer: Answer) -> None:
    """What an engine writes after a part of the prompt is no answer to it."""
    if not answer.cut or answer.prompt_tokens is None:
        return
    taken = len(answer.prompt_tokens)
    raise BadArgument(
        f"the prompt has {taken + answer.cut:,} tokens, and the engine takes {taken:,} at most; shorten it"
    )


def _room(first: Answer, allowed: Limits) -> int:
    """How many tokens can be generated after a prompt, of those that are asked for."""
    if allowed.length is None or first.prompt_tokens is None:
        return allowed.output_len
    return max(1, min(allowed.output_len, allowed.length - len(first.prompt_tokens)))


def _trial(answer: Answer, first_s: float, all_s: float) -> Trial:
    count = None if answer.tokens is None else len(answer.tokens)
    generating = all_s - first_s
    measurable = generating > max(_SHORTEST_S, _SHARE_OF_LOADING * first_s)
    rate = (count - 1) / generating if count and count > 1 and measurable else None
    return Trial(answer.text, count, round(all_s, 3), None if rate is None else round(rate, 1))
