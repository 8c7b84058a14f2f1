"""The rules by which answers are judged. Pure: no process, no file.
 Level 3 goes by the Hugging Face model's own logits along the engine's answer. As long as each token of an
answer is the model's first choice, it is what the model itself writes; so the tokens up to the first that
is not are their common prefix. A lower precision may turn two choices around that are nearly equal, and a
random model has many that are. So a token counts as the model's choice too where the model's logit for it
is below the highest by no more than a part of the logits' standard deviation (`Leniency.tie`). A wrong
engine's tokens are as good as random to the model, and those lie three standard deviations and more below
the highest, in any vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trt_llm_pipeline.check.verdict import Answer

_NO_TEXT = "\ufffd"
_CUT_OFF = 3  # of a character's bytes, the last of an answer may lack some
_SEVERAL = 4


@dataclass(frozen=True)
class Leniency:
    """What level 3 forgives a precision.

    Attributes:
        tie: in standard deviations of the logits: choices that close are equal.
        share: of an answer's tokens, so many must be common, taking all prompts together.
    """

    tie: float
    share: float


#: By precision. Float types and int8 were measured, see docs/reliability.md; fp8 and int4, which the embedded
#: toolchain does not build, are estimates that no engine has been tried with.
LENIENCY = {
    "float32": Leniency(0.05, 1.0),
    "float16": Leniency(0.15, 0.9),
    "bfloat16": Leniency(0.25, 0.75),
    "fp8": Leniency(0.6, 0.6),
    "int8": Leniency(0.6, 0.6),
    "int4": Leniency(1.0, 0.5),
}


@dataclass(frozen=True)
class Suspicion:
    """Something about an answer that a good engine seldom writes.

    Attributes:
        what: a few words: `one token over and over`.
        answer: which.
    """

    what: str
    answer: Answer


def out_of_range(answers: Sequence[Answer], vocab_size: int | None) -> Suspicion | None:
    """Level 1: the first answer with a token id that the vocabulary lacks."""
    for answer in answers:
        for token in answer.tokens or ():
            if token < 0 or (vocab_size is not None and token >= vocab_size):
                return Suspicion(f"token {token}, beyond the vocabulary of {vocab_size}", answer)
    return None


def suspicions(answers: Sequence[Answer]) -> list[Suspicion]:
    """Level 2: everything that looks degenerate."""
    found = []
    for answer in answers:
        if what := _degenerate(answer):
            found.append(Suspicion(what, answer))
    written = {answer.tokens if answer.tokens is not None else answer.text for answer in answers}
    if len(answers) > 1 and len(written) == 1 and not any(s.what == _EMPTY for s in found):
        found.append(Suspicion("the same for every prompt", answers[0]))
    return found


_EMPTY = "nothing"


def _degenerate(answer: Answer) -> str | None:
    if not answer.text.strip():
        return _EMPTY
    units: Sequence[object] = answer.tokens if answer.tokens is not None else answer.text.split()
    if len(units) >= _SEVERAL and len(set(units)) == 1:
        return "one token over and over" if answer.tokens is not None else "one word over and over"
    if _NO_TEXT in answer.text[:-_CUT_OFF]:
        return "bytes that are no text"
    return None


def common_prefix(gaps: Sequence[float], tie: float) -> int:
    """How many tokens of an answer, from the first on, the model would have chosen too.

    Args:
        gaps: for each token, how far its logit is below the highest, in standard deviations.
        tie: so close they count as equal. A gap that is no number never does.
    """
    for count, gap in enumerate(gaps):
        if not gap <= tie:
            return count
    return len(gaps)


def agrees(common: Sequence[int], lengths: Sequence[int], leniency: Leniency) -> bool:
    """Whether enough of all answers is common."""
    return sum(common) >= leniency.share * sum(lengths)
