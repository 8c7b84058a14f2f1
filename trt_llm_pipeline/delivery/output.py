"""A copy of a finished archive where the user wants it on this machine, with its statement beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from trt_llm_pipeline.delivery.attesting import beside
from trt_llm_pipeline.errors import BadArgument
from trt_llm_pipeline.files import appearing

_CHUNK = 1 << 20
# How the name of an archive ends, by `compression`; the first is the usual one.
_ENDINGS = {"gzip": (".tar.gz", ".tgz"), "none": (".tar",)}


def check_output(path: Path) -> None:
    """Looks, before a build, whether a file can be put at `path`.

    Raises:
        BadArgument: it cannot; says why.
    """
    folder = path.absolute().parent
    if path.is_dir():
        problem = "is a directory; name a file in it"
    elif path.is_file() and path.stat().st_size and not _is_archive(path):
        problem = "is there already and is no archive, so it is not replaced; name another file"
    elif not folder.is_dir():
        problem = f"has no directory to lie in; make {folder}"
    elif not os.access(folder, os.W_OK):
        problem = f"cannot be written, because {folder} is not yours to write"
    else:
        return
    raise BadArgument(f"the output {path} {problem}")


def _is_archive(path: Path) -> bool:
    """Whether a file begins as a gzip or as a tar does; see tar(5) for the magic of the latter."""
    try:
        with path.open("rb") as file:
            head = file.read(262)
    except OSError:
        return True  # what cannot be read is told of where it is written
    return head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar"


def check_named(path: Path, compression: str) -> None:
    """Looks whether an archive that is compressed so may have the name of `path`.

    Raises:
        BadArgument: it would say something else; says which name would do.
    """
    said = [kind for kind, ending in _ENDINGS.items() if path.name.lower().endswith(ending)]
    if said and said != [compression]:
        raise BadArgument(
            f"the output {path} would hold what its name does not say: the config has compression: "
            f"{compression}; name it {path.name[: path.name.lower().rfind('.t')]}{_ENDINGS[compression][0]}"
        )


def put_output(archive: Path, path: Path) -> None:
    """Copies an archive to `path`, whole or not at all, and the statement about it, if there is one.

    Raises:
        DiskFull: there is no room.
        ArtifactError: it cannot be written for another reason.
    """
    for source, target in ((beside(archive), beside(path)), (archive, path)):
        if source.is_file():
            with source.open("rb") as file, appearing(target) as sink:
                shutil.copyfileobj(file, sink, _CHUNK)
