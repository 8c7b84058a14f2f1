"""The artifact: an engine directory, the tokenizer beside it and a manifest, as one reproducible archive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_llm_pipeline.artifact.engine_files import engine_entries, extra_entry
from trt_llm_pipeline.artifact.entries import (
    MANIFEST_NAME,
    ArchivedFile,
    Compression,
    Entry,
    FinishedArchive,
    Progress,
    Sink,
)
from trt_llm_pipeline.artifact.writer import write_archive
from trt_llm_pipeline.errors import ArtifactError, ContentChanged
from trt_llm_pipeline.files import appearing


def pack_engine(
    engine_dir: Path,
    archive: Path,
    *,
    extra: Mapping[str, Path | bytes],
    manifest: Mapping[str, Any],
    compression: Compression = "gzip",
    progress: Progress | None = None,
    expected: Mapping[str, str] | None = None,
) -> FinishedArchive:
    """Pack an engine directory into `archive`, which appears complete or not at all.

    Args:
        engine_dir: its regular files go to the archive's root, with their paths below it.
        archive: the file to write; replaced when it is there. Its folder must exist.
        extra: further files by their name in the archive; an engine file of the same name wins.
        manifest: facts about the build, written as the last file, `manifest.json`, with `files` added: for
            each other file, by name, its `size` in bytes and its `sha256`.
        compression: `gzip`, or `none` for a plain tar.
        progress: called with bytes packed so far and their total.
        expected: the SHA-256 that files must have, by name; the one reading that packs them checks it.

    Raises:
        ArtifactError: something in the directory cannot be archived, or the archive cannot be written.
        ContentChanged: a file is not what `expected` says.
        DiskFull: there is no room for the archive.
    """
    with appearing(archive) as sink:
        written = write_artifact(
            engine_dir,
            sink,
            extra=extra,
            manifest=manifest,
            compression=compression,
            progress=progress,
            expected=expected,
        )
    return replace(written, name=archive.name, path=archive)


def write_artifact(
    engine_dir: Path,
    sink: Sink,
    *,
    extra: Mapping[str, Path | bytes],
    manifest: Mapping[str, Any],
    compression: Compression = "gzip",
    progress: Progress | None = None,
    threads: int | None = None,
    expected: Mapping[str, str] | None = None,
) -> FinishedArchive:
    """Like `pack_engine`, to any sink. Raises what that raises, and what the sink raises."""

    def complete(files: tuple[ArchivedFile, ...]) -> Entry:
        _check_content(files, expected or {})
        listed = {file.name: {"size": file.size, "sha256": file.sha256} for file in files}
        text = json.dumps({**manifest, "files": listed}, indent=2, ensure_ascii=False) + "\n"
        return Entry.of_bytes(MANIFEST_NAME, text.encode())

    with engine_entries(engine_dir) as engine:
        taken = {entry.name for entry in engine}
        folders = {name[:end] for name in taken for end, letter in enumerate(name) if letter == "/"}
        beside = [extra_entry(name, data) for name, data in extra.items() if name not in taken | folders]
        entries = sorted([*engine, *beside], key=lambda entry: entry.name)
        if any(entry.name == MANIFEST_NAME for entry in entries):
            raise ArtifactError(
                f"{engine_dir} already holds a {MANIFEST_NAME}, the name of the archive's own list of "
                "contents; have the build step write it under another name"
            )
        return write_archive(
            entries, sink, compression=compression, last=complete, progress=progress, threads=threads
        )


def _check_content(files: tuple[ArchivedFile, ...], expected: Mapping[str, str]) -> None:
    for file in files:
        if expected.get(file.name, file.sha256) != file.sha256:
            raise ContentChanged(
                f"{file.name} is not what it was when the build read it: something has changed it since. "
                "Let nothing else write to the model or the engine, and build again"
            )
