"""An archive's files in a directory, for whoever wants to use them here."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from trt_llm_pipeline.errors import ArtifactError
from trt_llm_pipeline.files import disk_full, is_disk_full


def unpack(stream: BinaryIO, folder: Path, label: str) -> None:
    """Writes an archive's regular files below `folder`, in one pass; nothing outside it.

    Args:
        stream: the archive, a tar or tar.gz.
        folder: exists, and is empty.
        label: what to call the archive in messages.

    Raises:
        ArtifactError: it is none, is damaged, or holds what leads out of the folder.
        DiskFull: there is no room.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise ArtifactError(f"{label} holds {member.name!r}, which is no file; it is not used")
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as problem:
        raise ArtifactError(f"{label} cannot be unpacked: {problem}") from None
    except OSError as problem:
        if is_disk_full(problem):
            raise disk_full(folder, f"there is no room to unpack {label}") from problem
        raise ArtifactError(f"{label} cannot be unpacked: {problem.strerror or problem}") from None
