"""A copy that hashes as it reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from trt_llm_pipeline.artifact.pack import PARTIAL_SUFFIX

_PIECE_BYTES = 4 << 20


def copy(source: Path, target: Path, progress: Callable[[int, int], None]) -> tuple[int, str]:
    """Copies a file, which appears at `target` complete or not at all.

    Args:
        source: a regular file; a link is not followed.
        target: the new file.
        progress: called with the bytes copied so far and all bytes.

    Returns:
        Size in bytes, and SHA-256.
    """
    partial = target.with_name(f".{target.name}{PARTIAL_SUFFIX}")
    digest = hashlib.sha256()
    done = 0
    try:
        with (
            os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as read,
            partial.open("wb") as write,
        ):
            total = os.fstat(read.fileno()).st_size
            while piece := read.read(_PIECE_BYTES):
                digest.update(piece)
                write.write(piece)
                done += len(piece)
                progress(done, total)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return done, digest.hexdigest()
