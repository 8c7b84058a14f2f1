"""What every command of the command line shares: options, and how an error leaves."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer

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

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]

_TERMINATED = 143  # as a shell has it for SIGTERM
_UNREAD = 141  # as a shell has it for SIGPIPE


@contextmanager
def failures(as_json: bool, kept: str | None = None) -> Iterator[None]:
    """Turns an error into its message and an exit code.

    Args:
        as_json: whether the message is JSON, on stdout.
        kept: what an interruption leaves for the next time, in words.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except TrtLlmPipelineError as error:
        _end_with(error, as_json)
        raise typer.Exit(EXIT_CODES[error.kind]) from None
    except OSError as error:
        if error.errno == errno.EPIPE and _nobody_reads():
            raise typer.Exit(_UNREAD) from None
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
            typer.echo(f"interrupted; {kept}" if kept else "interrupted", err=True)
        raise typer.Exit(EXIT_CODES["interrupted"] if by_user else _TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _nobody_reads() -> bool:
    """Whether the reader of stdout or stderr has had enough, as `head` has.

    What is still written then goes nowhere.
    """
    watched = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            watched.register(stream.fileno(), 0)
    broken = [descriptor for descriptor, event in watched.poll(0) if event & select.POLLERR]
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in broken:
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return bool(broken)


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
        typer.echo("\n".join(lines), err=True)
    return _error_fields(error)


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


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
