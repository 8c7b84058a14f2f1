"""What is asked of a model source, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

WeightFormat = Literal["safetensors", "bin", "pt"]
Kind = Literal["model", "dataset"]
Source = Literal["hub", "tar", "local"]


@dataclass(frozen=True)
class ModelRequest:
    """What the config asks for: a model, or a dataset.

    Attributes:
        model_id: `owner/name`; a dataset's likewise.
        revision: branch, tag or commit; None is the repository's `main`.
        weight_format: None takes safetensors where there are any, then bin, then pt.
        tar_url: http(s) address of a .tar or .tar.gz that is used instead of the Hub.
        kind: which of the two. A dataset is downloaded whole, whatever its files are.
    """

    model_id: str
    revision: str | None = None
    weight_format: WeightFormat | None = None
    tar_url: str | None = None
    kind: Kind = "model"


@dataclass(frozen=True)
class RemoteFile:
    """A file of the model: its path in the repository, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class DownloadPlan:
    """What a fetch would do.

    Attributes:
        model_id: as asked for.
        revision: the commit; for a tar its address's ETag or what is known of it; empty for a local folder.
        source: where it comes from.
        files: what is still to be fetched; empty when all is there. A tar is one file; its size is 0 where
            the server does not tell.
        total_bytes: size of the whole model, or of the tar.
        missing_bytes: of that, what is not on the disk yet.
    """

    model_id: str
    revision: str
    source: Source
    files: tuple[RemoteFile, ...]
    total_bytes: int
    missing_bytes: int


@dataclass(frozen=True)
class CodeFile:
    """A file of the model that runs code, or makes something else run it.

    Attributes:
        path: in the model's folder.
        what: why it is one, in a few words.
        sha256: of its content; None where that has not been read.
    """

    path: str
    what: str
    sha256: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A model that is on the disk, complete.

    Attributes:
        model_id: as asked for.
        revision: the commit; `sha256:...` of the tar's bytes; empty for a local folder.
        path: the folder. What belongs to the model is told by `model_source.model_files`.
        source: where it came from.
        downloaded_bytes: what this fetch took from the network; 0 where nothing was missing.
        warnings: sentences that the user should read.
        code: the files of it that run code, which somebody has allowed.
    """

    model_id: str
    revision: str
    path: Path
    source: Source
    downloaded_bytes: int
    warnings: tuple[str, ...]
    code: tuple[CodeFile, ...] = ()


class Progress(Protocol):
    """Is told, a few times a second and in the caller's thread, how far a download is.

    It may raise: the download is stopped and the exception goes on.
    """

    def __call__(self, done_bytes: int, total_bytes: int | None) -> None: ...
