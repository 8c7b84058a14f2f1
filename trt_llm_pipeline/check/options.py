"""Which of its options a release's `run.py` is asked with: those that its own parser has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_LIST = ("+", "*")
_BEAMS_AND_CHOICE = {"--num_beams": "1", "--top_k": "1"}


class Option(Protocol):
    """One option of a parser: its names, whether it must be given, and argparse's `nargs` as text."""

    @property
    def strings(self) -> tuple[str, ...]: ...

    @property
    def required(self) -> bool: ...

    @property
    def nargs(self) -> str | None: ...


class CannotAskError(Exception):
    """The engine cannot be asked here, through no fault of its own; the text says why."""


@dataclass(frozen=True)
class Dialect:
    """How one `run.py` wants to be asked.

    Attributes:
        engine, tokenizer, text, length: the names of the options for the engine's directory, the tokenizer's,
            the prompt and the most tokens to generate.
        several: whether it takes more than one prompt at a time.
        input_length: the option for the longest prompt in tokens; longer ones are cut. None without one.
        output: the option for a file of token ids, and the file's ending; None where it tells texts only.
        always: what is given every time: greedy decoding, no template around the prompt.
    """

    engine: str
    tokenizer: str
    text: str
    length: str
    several: bool
    input_length: str | None
    output: tuple[str, str] | None
    always: tuple[str, ...]

    def argv(
        self,
        engine_dir: Path,
        prompts: Sequence[str],
        *,
        tokens: int,
        input_length: int | None,
        output: Path | None,
    ) -> list[str]:
        """The arguments after the script; `output` without its ending."""
        words = [self.engine, str(engine_dir), self.tokenizer, str(engine_dir), self.length, str(tokens)]
        words += self.always
        if self.input_length and input_length is not None:
            words += [self.input_length, str(input_length)]
        if self.output and output is not None:
            words += [self.output[0], f"{output}{self.output[1]}"]
        if len(prompts) == 1:  # in one word, or a prompt that begins with "-" would be an option
            return [*words, f"{self.text}={prompts[0]}"]
        return [*words, self.text, *prompts]


def dialect(options: Sequence[Option], script: str) -> Dialect:
    """Finds out how a script wants to be asked.

    Args:
        options: what its parser has.
        script: what to call it in messages.

    Raises:
        CannotAskError: it lacks an option that is needed, or insists on one that nobody knows here.
    """
    by_name = {name: option for option in options for name in option.strings}

    def one_of(what: str, *names: str) -> str:
        for name in names:
            if name in by_name:
                return name
        raise CannotAskError(f"{script} has no option for {what} ({' or '.join(names)})")

    text = one_of("a prompt", "--input_text")
    always: list[str] = []
    for name, value in _BEAMS_AND_CHOICE.items():
        if name in by_name:
            always += [name, value]
    if "--no_prompt_template" in by_name:
        always.append("--no_prompt_template")
    outputs = [(name, name.replace("--output_", ".")) for name in ("--output_csv", "--output_npy")]
    found = Dialect(
        engine=one_of("the engine's directory", "--engine_dir"),
        tokenizer=one_of("the tokenizer", "--tokenizer_dir", "--tokenizer"),
        text=text,
        length=one_of("the number of tokens", "--max_output_len"),
        several=by_name[text].nargs in _LIST,
        input_length="--max_input_length" if "--max_input_length" in by_name else None,
        output=next((pair for pair in outputs if pair[0] in by_name), None),
        always=tuple(always),
    )
    given = {found.engine, found.tokenizer, found.text, found.length, *always}
    for option in options:
        if option.required and not given & set(option.strings):
            name = option.strings[0] if option.strings else "a positional argument"
            raise CannotAskError(f"{script} insists on {name}, which is not known here")
    return found
