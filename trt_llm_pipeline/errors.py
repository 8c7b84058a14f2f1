"""Everything that can go wrong, split by whose fault it is.

TrtLlmPipelineError             base; its text is meant for the user as it stands
├── ConfigError                 the config's: names every mistake with its line
│   ├── DoesNotFit              the machine's: this engine can be loaded or made on a larger one only
│   └── NoSuchModel             a ModelNotFound too: what it names is not at its source; with the line
├── BadArgument                 an argument beside the config: it is not there, or means nothing
├── ModelSourceError            the model source's: the Hub, a tar URL, a folder
│   ├── ModelNotFound           no such repository, revision or address, or no such weights there
│   ├── ModelAccessDenied       gated or private, and the token is missing or refused
│   ├── RepositoryCodeRefused   it comes with code, and nobody has allowed that to be run
│   └── ModelUnavailable        the source failed, or went on failing when asked again
├── StepFailed                  the step's script: exit code, last lines, what it left behind
│   ├── StepTimeout             it ran longer than it was allowed to
│   ├── StepOutputError         it exited 0 without what it promised
│   ├── StepOutOfMemory         it was killed for memory, or says itself that there was too little
│   └── StepDiskFull            it failed on a full disk
├── CheckFailed                 the engine's: it was built, and what it writes is garbage
└── PipelineError               ours, or the machine's
    ├── WorkspaceError          a directory that must not be touched
    │   └── WorkspaceBusy       another build uses the workspace
    ├── ToolchainError          no usable toolchain, or not the required release
    ├── DiskFull                not enough room
    ├── ProcessLimit            no more threads and processes are allowed
    ├── ArtifactError           an archive that cannot be written or read
    │   ├── ContentChanged      a file changed while the archive was made of it
    │   ├── ArchiveUnreachable  its address gives nothing
    │   ├── ArchiveMissing      there is nothing where it was said to be
    │   └── ArchiveDamaged      it was read, and is no archive or not what its manifest says
    ├── DeliveryError           an archive that could not be sent to its destination
    │   └── BadDestination      no address that an archive can be sent to
    ├── SigningError            a key that cannot be read or used
    ├── ServerError             a prediction server that cannot be used
    │   └── ServerBusy          it has other work
    ├── PredictionFailed        a build on a prediction server; its own words say why
    └── FleetError              a fleet of builds that could not be begun or finished
        ├── FleetInfeasible     cells that no node can run
        ├── FleetBusy           somebody else runs the same fleet
        ├── CellsFailed         some cells have failed; the others are delivered
        └── FleetCancelled      it was asked to stop

Each class has a `kind`: whose fault it is, in one word. The command line exits with the kind's code
(`EXIT_CODES`); `--json`, `build.json` and a fleet's records name the kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

Kind = Literal[
    "config",
    "model_source",
    "step",
    "check",
    "resources",
    "delivery",
    "cells",
    "busy",
    "interrupted",
    "internal",
]

#: The command line's exit code for each kind. 75 is `EX_TEMPFAIL` of sysexits.h, 130 a shell's for SIGINT.
EXIT_CODES: Mapping[Kind, int] = MappingProxyType(
    {
        "internal": 1,
        "config": 2,
        "model_source": 3,
        "step": 4,
        "check": 5,
        "resources": 6,
        "delivery": 7,
        "cells": 8,
        "busy": 75,
        "interrupted": 130,
    }
)

#: Stands for the line of a value that is not in the text but was given on the command line.
GIVEN = 0

_MAX_SHOWN = 50
_MAX_MESSAGE_CHARS = 2000


class TrtLlmPipelineError(Exception):
    """Base of every error that this library raises on purpose.

    Attributes:
        kind: whose fault it is.
        passing: another machine or another hour may do better.
    """

    kind: ClassVar[Kind] = "internal"
    passing: ClassVar[bool] = False


def kind_of(error: BaseException) -> Kind:
    """Whose fault an error is, be it one of this library's or not."""
    if isinstance(error, TrtLlmPipelineError):
        return error.kind
    return "internal" if isinstance(error, Exception) else "interrupted"


def add_note(error: BaseException, note: str) -> None:
    """Attaches what went wrong later to the error that came first, as Python 3.11's own `add_note` does."""
    set_notes(error, [*notes_of(error), note])


def set_notes(error: BaseException, notes: Iterable[str]) -> None:
    """Puts `notes` in the place of what `add_note` has attached to an error."""
    error.__notes__ = list(notes)  # type: ignore[attr-defined]


def notes_of(error: BaseException) -> tuple[str, ...]:
    """What `add_note` has attached to an error."""
    return tuple(getattr(error, "__notes__", ()))


@dataclass(frozen=True)
class Mistake:
    """One mistake in a config.

    Attributes:
        message: what is wrong and what to do about it, one sentence or two.
        line: 1-based line in the config's text, `GIVEN` for what `--set` has given, or None where no line is
            to blame.
        key: dotted path of the key (`build.args.max_batch_size`), or None.
    """

    message: str
    line: int | None = None
    key: str | None = None

    def render(self, source: str) -> str:
        """`config.yaml:12: build.args.x: message`, leaving out what is unknown."""
        where = source if self.line is None else "--set" if self.line == GIVEN else f"{source}:{self.line}"
        return ": ".join(_shortened(part) for part in (where, self.key, self.message) if part)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE_CHARS else f"{text[:_MAX_MESSAGE_CHARS]}..."


class ConfigError(TrtLlmPipelineError):
    """The config is wrong. Carries every mistake that was found, in the order of the file."""

    kind: ClassVar[Kind] = "config"

    def __init__(self, mistakes: Sequence[Mistake], source: str = "config") -> None:
        self.mistakes = tuple(mistakes)
        self.source = source
        lines = [mistake.render(source) for mistake in self.mistakes[:_MAX_SHOWN]]
        if len(self.mistakes) > _MAX_SHOWN:
            lines.append(f"and {len(self.mistakes) - _MAX_SHOWN} more")
        head = "" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes in {source}:\n"
        super().__init__(head + "\n".join(lines))


class DoesNotFit(ConfigError):
    """The engine cannot be loaded or made on this machine: each mistake says what would be enough."""

    kind: ClassVar[Kind] = "resources"


class BadArgument(TrtLlmPipelineError):
    """What a command was given beside the config names nothing, or means nothing."""

    kind: ClassVar[Kind] = "config"


class ModelSourceError(TrtLlmPipelineError):
    """The model could not be obtained from where the config says it is."""

    kind: ClassVar[Kind] = "model_source"


RequestPart = Literal["name", "revision", "format", "address"]


class ModelNotFound(ModelSourceError):
    """No such repository, revision or address, or no such weights there.

    Attributes:
        part: what of the request is to blame.
    """

    def __init__(self, message: str, *, part: RequestPart = "name") -> None:
        self.part = part
        super().__init__(message)


class NoSuchModel(ConfigError, ModelNotFound):
    """The config names a model, a revision or a dataset that is not there, as its source says."""

    kind: ClassVar[Kind] = "model_source"


class ModelAccessDenied(ModelSourceError):
    """Gated or private, and the token is missing or refused."""


class RepositoryCodeRefused(ModelSourceError):
    """The model comes with code, and nobody has allowed that to be run.

    Attributes:
        files: paths in the model, of what would run code.
    """

    def __init__(self, message: str, *, files: Sequence[str] = ()) -> None:
        self.files = tuple(files)
        super().__init__(message)


class ModelUnavailable(ModelSourceError):
    """The source failed, or went on failing when asked again."""

    passing: ClassVar[bool] = True


class StepFailed(TrtLlmPipelineError):
    """A step's script failed.

    Attributes:
        step: the step's name (`convert_to_ft`, `quantize`, `build`).
        exit_code: the script's exit code; negative for a signal; None where it did not exit by itself.
        tail: the last lines that it printed.
    """

    kind: ClassVar[Kind] = "step"

    def __init__(
        self, step: str, message: str, *, exit_code: int | None = None, tail: Sequence[str] = ()
    ) -> None:
        self.step = step
        self.exit_code = exit_code
        self.tail = tuple(tail)
        quoted = "".join(f"\n  | {line}" for line in self.tail)
        super().__init__(f"step {step}: {message}{quoted}")


class StepTimeout(StepFailed):
    """The step ran longer than it was allowed to."""


class StepOutputError(StepFailed):
    """The step exited 0 without what it promised."""


class StepOutOfMemory(StepFailed):
    """The step was killed for memory, or says itself that there was too little, on the host or a GPU."""

    kind: ClassVar[Kind] = "resources"


class StepDiskFull(StepFailed):
    """The step failed on a full disk."""

    kind: ClassVar[Kind] = "resources"
    passing: ClassVar[bool] = True


class CheckFailed(TrtLlmPipelineError):
    """The engine was built, but does not talk as it should, or could not be asked though it had to be.

    Attributes:
        verdict: what `build.json` would say of it: prompts, tokens, texts and the reason, as JSON values.
    """

    kind: ClassVar[Kind] = "check"

    def __init__(self, message: str, *, verdict: Mapping[str, Any]) -> None:
        self.verdict = verdict
        super().__init__(message)


class PipelineError(TrtLlmPipelineError):
    """Ours, or the machine's: nothing in the config or the model is to blame."""

    passing: ClassVar[bool] = True


class WorkspaceError(PipelineError):
    """A directory that must not be touched, or cannot be used."""


class WorkspaceBusy(WorkspaceError):
    """Another build uses the workspace."""

    kind: ClassVar[Kind] = "busy"


class ToolchainError(PipelineError):
    """No usable toolchain, or not the release that the config requires."""


class DiskFull(PipelineError):
    """Not enough room on the disk."""

    kind: ClassVar[Kind] = "resources"


class ProcessLimit(PipelineError):
    """No thread or process can be started: the user, the container or the machine has as many as it may."""

    kind: ClassVar[Kind] = "resources"


class ArtifactError(PipelineError):
    """An archive that cannot be written or read."""


class ContentChanged(ArtifactError):
    """A file was changed between the moment a build looked at it and the moment it was packed."""


class ArchiveUnreachable(ArtifactError):
    """The address of an archive, or of the statement about one, gives nothing."""

    kind: ClassVar[Kind] = "delivery"


class ArchiveMissing(ArtifactError):
    """There is nothing where an archive, or the statement about it, was said to be."""

    kind: ClassVar[Kind] = "config"
    passing: ClassVar[bool] = False


class ArchiveDamaged(ArtifactError):
    """An archive that was read, and is no archive, is cut off, or is not what its manifest says."""

    kind: ClassVar[Kind] = "check"
    passing: ClassVar[bool] = False


class DeliveryError(PipelineError):
    """An archive that could not be sent to its destination."""

    kind: ClassVar[Kind] = "delivery"


class BadDestination(DeliveryError):
    """No address that an archive can be sent to."""

    kind: ClassVar[Kind] = "config"
    passing: ClassVar[bool] = False


class SigningError(PipelineError):
    """A key, for signing or for checking a signature, that cannot be read or used."""


class ServerError(PipelineError):
    """A prediction server that cannot be reached, or refuses.

    Attributes:
        answered: whether it has answered at all.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        self.answered = answered
        super().__init__(message)


class ServerBusy(ServerError):
    """It has other work: try again later."""

    kind: ClassVar[Kind] = "busy"


class PredictionFailed(PipelineError):
    """A build on a prediction server has failed; the text is the server's.

    Attributes:
        kind: whose fault the server says it was.
        cause: the class of the server's error; None where it is none of this library's.
    """

    def __init__(self, message: str, *, kind: Kind = "internal", cause: str | None = None) -> None:
        self.kind = kind  # type: ignore[misc]  # this class alone does not know it beforehand
        self.cause = cause
        super().__init__(message)


class FleetError(PipelineError):
    """A fleet that could not be begun or finished."""


class FleetInfeasible(FleetError):
    """Cells that no node can run."""

    kind: ClassVar[Kind] = "resources"


class CellsFailed(FleetError):
    """Some cells have failed; the others are delivered."""

    kind: ClassVar[Kind] = "cells"


class FleetCancelled(FleetError):
    """It was asked to stop; what was delivered stays."""

    kind: ClassVar[Kind] = "interrupted"


class FleetBusy(FleetError):
    """Somebody else runs the same fleet."""

    kind: ClassVar[Kind] = "busy"
