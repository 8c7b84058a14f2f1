"""The statement about an archive: made, signed, and put wherever the archive goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trt_llm_pipeline.artifact import statement as stated
from trt_llm_pipeline.artifact.dsse import Envelope, SigningKey, load_signing_key
from trt_llm_pipeline.delivery.destination import Destination
from trt_llm_pipeline.delivery.send import deliver_file
from trt_llm_pipeline.errors import ArtifactError, PipelineError, SigningError
from trt_llm_pipeline.files import appearing, read_regular

_Warn = Callable[[str], None]


class Attesting:
    """Puts the statement about one build's archive beside it.

    Args:
        directory: the build's, below `builds/`, where the statement always stays.
        destination: where the archive goes; None to keep it in `directory`.
        key: signs the statement; None leaves it unsigned.
    """

    def __init__(
        self,
        directory: Path,
        destination: Destination | None,
        key: SigningKey | None,
    ) -> None:
        self._directory = directory
        self._destination = destination
        self._key = key

    def put(self, archive_name: str, statement: Mapping[str, Any], warn: _Warn) -> dict[str, Any]:
        """Writes a statement beside the archive, and sends it after it.

        Args:
            archive_name: the archive's file name.
            statement: see `artifact.statement`.
            warn: is told where the statement could not follow the archive, which is finished by then.

        Returns:
            What `build.json` says of it: `path`, `address` where it was sent, `keyid` or None.

        Raises:
            ArtifactError, DiskFull: it cannot be written.
        """
        payload = stated.encoded(statement)
        if self._key is None:
            envelope = Envelope(stated.PAYLOAD_TYPE, payload)
        else:
            envelope = self._key.sign(stated.PAYLOAD_TYPE, payload)
        return self._put(archive_name, envelope, warn)

    def again(self, earlier: Path, sha256: str) -> Callable[[_Warn], dict[str, Any]] | None:
        """Puts the statement of an earlier build's archive beside the same archive.

        Args:
            earlier: the archive there.
            sha256: what it was when it was made.

        Returns:
            What does so once the archive is there; None where the earlier build left no statement that would
            be signed now as it was then.
        """
        try:
            envelope = Envelope.parse(read_regular(beside(earlier), stated.LARGEST_STATEMENT))
            about = stated.subject_of(stated.decoded(envelope.payload))
        except (OSError, ArtifactError):
            return None
        key = self._key
        as_now = not envelope.signatures if key is None else key.public().signed(envelope)
        return (
            partial(self._put, earlier.name, envelope) if as_now and about.get("sha256") == sha256 else None
        )

    def _put(self, archive_name: str, envelope: Envelope, warn: _Warn) -> dict[str, Any]:
        path = beside(self._directory / archive_name)
        with appearing(path) as sink:
            sink.write(envelope.as_json_line())
        told: dict[str, Any] = {"path": str(path)}
        if self._destination is not None:
            told |= self._send(path, self._destination, warn)
        keyids = [signature.keyid for signature in envelope.signatures]
        return {**told, "keyid": keyids[0] if keyids else None}

    def _send(self, path: Path, destination: Destination, warn: _Warn) -> dict[str, str]:
        """An archive that has arrived is not lost with its statement: then that stays where it is."""
        place = destination.beside(stated.STATEMENT_SUFFIX)
        if place is None:
            warn(
                f"the statement about the archive stays at {path}: the archive's signed address does not "
                "hold for a second file"
            )
            return {}
        try:
            deliver_file(path, place)
        except PipelineError as error:
            warn(f"the statement about the archive stays at {path}: {error}")
            return {}
        return {"address": place.address}


def signing_key(path: Path | None, workspace: Path) -> SigningKey | None:
    """The key that signs statements; None without a path.

    Raises:
        SigningError: it cannot be used, or lies in the workspace, where every step can read it.
    """
    if path is None:
        return None
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(workspace)):
        raise SigningError(f"the signing key {path} lies in the workspace, where steps read; move it")
    try:
        return load_signing_key(path)
    except SigningError as problem:
        raise SigningError(f"TRT_LLM_SIGNING_KEY: {problem}") from None


def beside(archive: Path) -> Path:
    """Where the statement about an archive lies."""
    return archive.with_name(archive.name + stated.STATEMENT_SUFFIX)
