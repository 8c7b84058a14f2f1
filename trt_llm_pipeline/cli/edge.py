"""What every command of the command line shares: options, and how an error leaves."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer

from trt_llm_pipeline import cli
from trt_llm_pipeline.cli.streams import TITLES, silence
from trt_llm_pipeline.errors import (
    EXIT_CODES,
    CheckFailed,
    ConfigError,
    Kind,
    PipelineError,
    PredictionFailed,
    RepositoryCodeRefused,
    StepFailed,
    TrtLlmPipelineError,
    notes_of,
)
from trt_llm_pipeline.files import refused
from trt_llm_pipeline.printable import printable_lines
from trt_llm_pipeline.process import limit
from trt_llm_pipeline.redaction import TOKEN_VARIABLES, Redactor, secrets_of, token_fault

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]

_TERMINATED = 143  # as a shell has it for SIGTERM
_UNREAD = 141  # as a shell has it for SIGPIPE
_ELSEWHERE = "send it where there is room for it, or leave out what redirects it"


@contextmanager
def failures(as_json: bool, kept: str | None = None) -> Iterator[None]:
    """Turns an error into its message and an exit code.

    Args:
        as_json: whether the message is JSON, on stdout.
        kept: what an interruption leaves for the next time, in words.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    early = signal.getsignal(signal.SIGINT)
    if early is cli.end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with outputs(), _told(as_json, kept), limit.translated():
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if early is cli.end_at_once:
            signal.signal(signal.SIGINT, early)


@contextmanager
def _told(as_json: bool, kept: str | None) -> Iterator[None]:
    """Says what has ended the block.

    Raises:
        typer.Exit: with the code of what was raised.
        OSError: stdout or stderr cannot be written, which is for `outputs`.
    """
    try:
        yield
    except TrtLlmPipelineError as error:
        _end_with(error, as_json)
        raise typer.Exit(EXIT_CODES[error.kind]) from None
    except OSError as error:
        if error.filename in TITLES.values():
            raise
        told = PipelineError(refused(error, "a file"))
        _end_with(told, as_json)
        raise typer.Exit(EXIT_CODES[told.kind]) from None
    except (KeyboardInterrupt, _Terminated) as error:
        kept = "; ".join(filter(None, [kept, *notes_of(error)])) or None
        by_user = isinstance(error, KeyboardInterrupt)
        if as_json:
            how = {"kind": "interrupted", "type": "KeyboardInterrupt" if by_user else "SIGTERM"}
            print_json({"error": "interrupted", **how, "kept": kept})
        else:
            say(f"interrupted; {kept}" if kept else "interrupted", err=True)
        raise typer.Exit(EXIT_CODES["interrupted"] if by_user else _TERMINATED) from None


@contextmanager
def outputs() -> Iterator[None]:
    """Ends the command where stdout or stderr cannot be written; what is still written there goes nowhere.

    Raises:
        typer.Exit: 141 where the reader has had enough, as `head` has; else 1, and stderr says why.
        OSError: what the block raised, where it is about something else.
    """
    try:
        yield
    except OSError as error:
        if error.filename not in TITLES.values():
            raise
        silence(error.filename)
        if error.errno == errno.EPIPE:
            raise typer.Exit(_UNREAD) from None
        try:
            say(f"error: {error.filename} cannot be written: {error.strerror}; {_ELSEWHERE}", err=True)
        except OSError as other:
            silence(other.filename)
        raise typer.Exit(EXIT_CODES[PipelineError.kind]) from None


def leave(kind: Kind) -> NoReturn:
    """Ends the command after its answer, with the exit code of `kind`."""
    raise typer.Exit(EXIT_CODES[kind])


def _end_with(error: TrtLlmPipelineError, as_json: bool) -> None:
    fields = tell(error, quiet=as_json)
    if as_json:
        print_json(fields)


class _Terminated(SystemExit):
    """SIGTERM was sent."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated(_TERMINATED)


def tell(error: TrtLlmPipelineError, *, quiet: bool = False) -> dict[str, Any]:
    """Says an error on stderr, unless `quiet`; what `--json` prints of it."""
    if not quiet:
        lines = [f"error: {error}", *(f"also: {note}" for note in notes_of(error))]
        say("\n".join(lines), err=True)
    fields: dict[str, Any] = _redactor().values(_error_fields(error))
    return fields


def _error_fields(error: TrtLlmPipelineError) -> dict[str, Any]:
    fields: dict[str, Any] = {"error": str(error), "kind": error.kind, "type": type(error).__name__}
    if notes := notes_of(error):
        fields["also"] = list(notes)
    if isinstance(error, ConfigError):
        fields["valid"] = False
        fields["mistakes"] = [asdict(mistake) for mistake in error.mistakes]
    if isinstance(error, CheckFailed):
        fields["check"] = error.verdict
    if isinstance(error, RepositoryCodeRefused):
        fields["files"] = list(error.files)
    if isinstance(error, PredictionFailed):
        fields["cause"] = error.cause
    if isinstance(error, StepFailed):
        fields["step"] = error.step
        fields["exit_code"] = error.exit_code
        fields["tail"] = list(error.tail)
    return fields


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Prints something for people: the one place where the command line does so.

    Names, errors and what scripts print are anyone's text, so it is made one that does nothing to a terminal.

    Args:
        text: of one line or several.
        err: to stderr, where secrets of the environment are masked; else to stdout.
        nl: whether the line ends with it.
    """
    words = str(text)
    typer.echo(printable_lines(_redactor()(words) if err else words), err=err, nl=nl)


def _redactor() -> Redactor:
    """Knows the secrets of this process's environment, as errors of any kind may repeat them."""
    tokens = [os.environ.get(name, "") for name in TOKEN_VARIABLES]
    return Redactor([*secrets_of(os.environ), *(token for token in tokens if not token_fault(token))])


def print_json(value: Any) -> None:
    """Prints a value as JSON, which knows no NaN and nothing infinite: these are null."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=2, allow_nan=False)
    typer.echo(text)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
