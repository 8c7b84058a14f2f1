"""Everything that can go wrong, split by whose fault it is.

TrtLlmPipelineError             base; its text is meant for the user as it stands
├── ConfigError                 the config's: names every mistake with its line
├── ModelSourceError            the model source's: the Hub, a tar URL, a folder
│   ├── ModelNotFound           no such repository, revision or address
│   ├── ModelAccessDenied       gated or private, and the token is missing or refused
│   ├── RepositoryCodeRefused   it comes with code, and nobody has allowed that to be run
│   └── ModelUnavailable        the source failed, or went on failing when asked again
├── StepFailed                  the step's script: exit code, last lines, what it left behind
│   ├── StepTimeout             it ran longer than it was allowed to
│   └── StepOutputError         it exited 0 without what it promised
├── CheckFailed                 the engine's: it was built, and what it writes is garbage
└── PipelineError               ours, or the machine's
    ├── WorkspaceError          a directory that must not be touched, or is in use
    ├── ToolchainError          no usable toolchain, or not the required release
    ├── DiskFull                not enough room
    ├── ArtifactError           an archive that cannot be written or read
    │   └── ContentChanged      a file changed while the archive was made of it
    ├── DeliveryError           an archive that could not be sent to its destination
    ├── SigningError            a key that cannot be read or used
    └── FleetError              a fleet of builds that could not be begun or finished
        ├── FleetInfeasible     cells that no node can run
        ├── FleetBusy           somebody else runs the same fleet
        ├── CellsFailed         some cells have failed; the others are delivered
        └── FleetCancelled      it was asked to stop
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MAX_SHOWN = 50
_MAX_MESSAGE_CHARS = 2000


class TrtLlmPipelineError(Exception):
    """Base of every error that this library raises on purpose."""


def add_note(error: BaseException, note: str) -> None:
    """Attaches what went wrong later to the error that came first, as Python 3.11's own `add_note` does."""
    error.__notes__ = [*notes_of(error), note]  # type: ignore[attr-defined]


def notes_of(error: BaseException) -> tuple[str, ...]:
    """What `add_note` has attached to an error."""
    return tuple(getattr(error, "__notes__", ()))


@dataclass(frozen=True)
class Mistake:
    """One mistake in a config.

    Attributes:
        message: what is wrong and what to do about it, one sentence or two.
        line: 1-based line in the config's text, or None where no line is to blame.
        key: dotted path of the key (`build.args.max_batch_size`), or None.
    """

    message: str
    line: int | None = None
    key: str | None = None

    def render(self, source: str) -> str:
        """`config.yaml:12: build.args.x: message`, leaving out what is unknown."""
        where = source if self.line is None else f"{source}:{self.line}"
        return ": ".join(_shortened(part) for part in (where, self.key, self.message) if part)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE_CHARS else f"{text[:_MAX_MESSAGE_CHARS]}..."


class ConfigError(TrtLlmPipelineError):
    """The config is wrong. Carries every mistake that was found, in the order of the file."""

    def __init__(self, mistakes: Sequence[Mistake], source: str = "config") -> None:
        self.mistakes = tuple(mistakes)
        self.source = source
        lines = [mistake.render(source) for mistake in self.mistakes[:_MAX_SHOWN]]
        if len(self.mistakes) > _MAX_SHOWN:
            lines.append(f"and {len(self.mistakes) - _MAX_SHOWN} more")
        head = "" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes in {source}:\n"
        super().__init__(head + "\n".join(lines))


class ModelSourceError(TrtLlmPipelineError):
    """The model could not be obtained from where the config says it is."""


class ModelNotFound(ModelSourceError):
    """No such repository, revision or address."""


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


class StepFailed(TrtLlmPipelineError):
    """A step's script failed.

    Attributes:
        step: the step's name (`convert_to_ft`, `quantize`, `build`).
        exit_code: the script's exit code; negative for a signal; None where it did not exit by itself.
        tail: the last lines that it printed.
    """

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


class CheckFailed(TrtLlmPipelineError):
    """The engine was built, but does not talk as it should, or could not be asked though it had to be.

    Attributes:
        verdict: what `build.json` would say of it: prompts, tokens, texts and the reason, as JSON values.
    """

    def __init__(self, message: str, *, verdict: Mapping[str, Any]) -> None:
        self.verdict = verdict
        super().__init__(message)


class PipelineError(TrtLlmPipelineError):
    """Ours, or the machine's: nothing in the config or the model is to blame."""


class WorkspaceError(PipelineError):
    """A directory that must not be touched, or a workspace that is in use."""


class ToolchainError(PipelineError):
    """No usable toolchain, or not the release that the config requires."""


class DiskFull(PipelineError):
    """Not enough room on the disk."""


class ArtifactError(PipelineError):
    """An archive that cannot be written or read."""


class ContentChanged(ArtifactError):
    """A file was changed between the moment a build looked at it and the moment it was packed."""


class DeliveryError(PipelineError):
    """An archive that could not be sent to its destination."""


class SigningError(PipelineError):
    """A key, for signing or for checking a signature, that cannot be read or used."""


class FleetError(PipelineError):
    """A fleet that could not be begun or finished."""

    exit_code = 1


class FleetInfeasible(FleetError):
    """Cells that no node can run."""

    exit_code = 3


class CellsFailed(FleetError):
    """Some cells have failed; the others are delivered."""

    exit_code = 4


class FleetCancelled(FleetError):
    """It was asked to stop; what was delivered stays."""

    exit_code = 5


class FleetBusy(FleetError):
    """Somebody else runs the same fleet."""

    exit_code = 6
