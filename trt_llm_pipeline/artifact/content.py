"""The digest of an archive's content: what the archive is, whatever it was compressed with.

The compressed bytes are no identity. The compressor chooses its code by the processor, finds other matches on
one without SSE 4.2, and may with another release; the files are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol


class NamedDigest(Protocol):
    """A file's name in the archive, and its SHA-256 in hexadecimal."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def content_sha256(files: Iterable[NamedDigest]) -> str:
    """One SHA-256, in hexadecimal, for files of these names with this content, in whatever order.

    It is what in-toto calls `dirHash` (https://github.com/in-toto/attestation, `spec/v1/digest_set.md`): the
    SHA-256 of the lines that `sha256sum` prints for the files, sorted by the bytes of their names. In a
    folder with nothing but the extracted archive:

        find . -type f | cut -c3- | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum
    """
    digest = hashlib.sha256()
    for name, sha256 in sorted((file.name.encode("utf-8", "surrogateescape"), file.sha256) for file in files):
        digest.update(sha256.encode() + b"  " + name + b"\n")
    return digest.hexdigest()
