"""What came out of checking an engine, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "unchecked", "off"]

_SHOWN_TOKENS = 16
_SHOWN_CHARS = 200


@dataclass(frozen=True)
class Answer:
    """What an engine wrote after one prompt.

    Attributes:
        prompt: the prompt's text.
        prompt_tokens: its token ids, or None where `run.py` tells texts only.
        tokens: the ids that were generated, the end-of-text token included where it came; or None likewise.
        text: what they say.
        cut: how many of the prompt's tokens were left out, because the engine takes no more.
    """

    prompt: str
    prompt_tokens: tuple[int, ...] | None
    tokens: tuple[int, ...] | None
    text: str
    cut: int = 0

    def shown(self) -> str:
        """The tokens, or without them the text, short enough for a sentence."""
        if self.tokens is None:
            return in_quotes(self.text)
        return " ".join(map(str, self.tokens[:_SHOWN_TOKENS])) or "nothing"


@dataclass(frozen=True)
class Compared:
    """How one answer compares with what the Hugging Face model would have written.

    Attributes:
        prompt: the prompt's text.
        common: how many tokens, from the first on, the model would have chosen too, or all but chosen.
        tokens, text: what the model itself writes.
    """

    prompt: str
    common: int
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Reference:
    """The Hugging Face model's side of level 3.

    Attributes:
        by: what computed it: `transformers 4.44.0, torch 2.4.0, float32 on cpu`.
        prompts: prompt by prompt.
    """

    by: str
    prompts: tuple[Compared, ...]


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        status: `passed`; `failed`; `unchecked`: it could not be asked, `reason` says why; `off`: the config
            says so.
        level: the highest level that it has passed: 0 to 3.
        reason: one sentence, for people.
        world_size: ranks that were asked together; 0 where none were.
        script: which script was asked, such as `run.py`; None where none was.
        precision: by which level 3 is lenient: `float16`, `int8`.
        answers: what it wrote.
        reference: what the model itself writes, where that was asked.
        notes: what else a reader should know, in sentences.
    """

    status: Status
    level: int
    reason: str
    world_size: int = 0
    script: str | None = None
    precision: str | None = None
    answers: tuple[Answer, ...] = ()
    reference: Reference | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All of it, for `build.json`."""
        return asdict(self)

    def line(self) -> str:
        """One line for the log."""
        passed = f"passed level {self.level} of 3"
        words = {
            "passed": passed,
            "failed": "failed",
            "unchecked": "the engine is not checked",
            "off": "left out",
        }
        return f"check: {words[self.status]}: {self.reason}"


def covers(kept: object, *, reference: bool) -> bool:
    """Whether a verdict that an earlier record holds makes another check of the same engine needless.

    Args:
        kept: the record's `check`, as it was read from JSON.
        reference: whether level 3 is wanted.
    """
    if not isinstance(kept, Mapping) or kept.get("status") != "passed":
        return False
    level = kept.get("level")
    return isinstance(level, int) and level >= (3 if reference else 2)


def in_quotes(text: str) -> str:
    """A text on one line, quoted, and cut where it is long."""
    shown = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown) + '"'
