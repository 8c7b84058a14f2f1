"""What is in an archive, and whether cog-triton can serve it: one streaming pass, nothing written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trt_llm_pipeline.artifact import ArchiveContents, read_archive
from trt_llm_pipeline.artifact.engine_files import engine_entries, extra_entry
from trt_llm_pipeline.artifact.entries import Entry
from trt_llm_pipeline.engine.tokenizer_files import is_vocabulary
from trt_llm_pipeline.inspection import readiness
from trt_llm_pipeline.inspection.checks import Check, Verdict, settings, table, verdict, verdict_lines
from trt_llm_pipeline.inspection.readiness import ArchiveFacts
from trt_llm_pipeline.inspection.tokenizer_trial import try_tokenizer
from trt_llm_pipeline.net.addresses import Reach, shown
from trt_llm_pipeline.printable import printable
from trt_llm_pipeline.records import read_record
from trt_llm_pipeline.units import in_words
from trt_llm_pipeline.workspace import RECORD_NAME
from trt_llm_pipeline.workspace.shapes import KEPT

_LARGEST_READ = 64 << 20
_UNKNOWN_END = ("end of sequence", "unknown")


@dataclass(frozen=True)
class Inspection:
    """An archive that was looked at.

    Attributes:
        label: what to call it.
        contents: what it holds.
        checks: its readiness table.
        talk: what the engine wrote when it was checked, from the `build.json` beside the archive; or None.
    """

    label: str
    contents: ArchiveContents
    checks: tuple[Check, ...]
    talk: Mapping[str, Any] | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether cog-triton can serve it."""
        return verdict(self.checks)

    def as_json(self) -> dict[str, Any]:
        """Everything that was found, as JSON values."""
        return {
            "verdict": self.verdict,
            "ready": self.verdict == "ready",
            "archive": self.label,
            "size": self.contents.size,
            "sha256": self.contents.sha256,
            "content_sha256": self.contents.content_sha256,
            "compression": self.contents.compression,
            "strict": self.contents.strict,
            "files": [asdict(file) for file in self.contents.files],
            "manifest": self.contents.manifest,
            "check": self.talk,
            "checks": [asdict(check) for check in self.checks],
            "settings": settings(self.checks),
        }

    def as_text(self) -> str:
        """Verdict, manifest in short, every file's SHA-256 and the readiness table, for a terminal."""
        contents = self.contents
        packed = "not compressed" if contents.compression == "none" else contents.compression
        lines = [
            *verdict_lines(self.checks),
            "",
            f"{self.label}: {in_words(contents.size)}, {packed}, sha256 {contents.sha256}",
            "",
            *_summary(contents.manifest or {}),
            *_talk(self.talk),
            "files",
            *(f"  {file.sha256}  {file.size:>14,}  {file.name}" for file in contents.files),
            "",
            "cog-triton",
            *table(self.checks),
        ]
        return "\n".join(map(printable, lines))


def inspect(
    source: str | BinaryIO,
    *,
    label: str | None = None,
    serve_on: str | None = None,
    trt_llm: str | None = None,
    world_size: int | None = None,
    python: str | None = None,
    env: Mapping[str, str] | None = None,
    reach: Reach = Reach(),  # noqa: B008  frozen
) -> Inspection:
    """Read an archive from its first byte to its last and judge it.

    Args:
        source: a path, an http(s) address, or a binary stream at its start.
        label: what to call it; needed for a stream.
        serve_on, trt_llm, world_size: what will serve it; see `readiness.readiness`.
        python: an interpreter to load the tokenizer with, if it has transformers; None leaves that out.
        env: that interpreter's environment.
        reach: which addresses may be connected to.

    Raises:
        ArtifactError: it cannot be read, or is no tar or tar.gz.
        ValueError: `serve_on` or `trt_llm` is not readable.
    """
    label = label or _label(source)
    contents = read_archive(
        source, keep=lambda name, _size: readiness.matters(name), label=label, reach=reach
    )
    facts = ArchiveFacts(
        name=label,
        files={file.name: file.size for file in contents.files},
        contents=contents.kept,
        manifest=contents.manifest,
        problems=contents.problems,
        strict=contents.strict,
    )
    checks = readiness.readiness(facts, serve_on, trt_llm, world_size)
    if python is not None and any(is_vocabulary(name) for name in contents.kept):
        loaded = try_tokenizer(contents.kept, python, env or {})
        after = [check.name for check in checks].index("tokenizer") + 1
        rest = checks[after:]
        if loaded.status == "ok":  # then what the files do not tell is known after all
            rest = tuple(check for check in rest if (check.name, check.status) != _UNKNOWN_END)
        checks = (*checks[:after], loaded, *rest)
    beside = _record_beside(source, contents.sha256) if isinstance(source, str) else {}
    return Inspection(label, contents, checks, beside.get("check"))


def readiness_of_build(
    engine_dir: Path, extra: Mapping[str, Path | bytes], manifest: Mapping[str, Any]
) -> tuple[Check, ...]:
    """What a server will find of an archive that is about to be packed; arguments as for `facts_of_build`."""
    return readiness.readiness(facts_of_build(engine_dir, extra, manifest))


def facts_of_build(
    engine_dir: Path, extra: Mapping[str, Path | bytes], manifest: Mapping[str, Any]
) -> ArchiveFacts:
    """The facts of an archive that is about to be packed; its engines are not read.

    Args:
        engine_dir, extra, manifest: as for `artifact.pack_engine`.

    Raises:
        ArtifactError: the directory holds what cannot be packed.
    """
    with engine_entries(engine_dir) as engine:
        beside = [extra_entry(name, data) for name, data in extra.items()]
        entries = {entry.name: entry for entry in [*beside, *engine]}  # an engine file of the same name wins
        contents = {
            name: _content(entry)
            for name, entry in entries.items()
            if readiness.matters(name) and entry.size <= _LARGEST_READ
        }
    files = {name: entry.size for name, entry in entries.items()}
    return ArchiveFacts("the engine", files, contents, manifest)


def _summary(manifest: Mapping[str, Any]) -> list[str]:
    """The manifest's facts in a few lines; whatever is not as expected is left out."""
    lines = []
    for key in ("model_id", "revision", "source"):
        if isinstance(manifest.get(key), str):
            lines.append(f"{key:10} {manifest[key]}")
    tools = manifest.get("toolchain")
    if isinstance(tools, dict):
        made = dict.fromkeys(str(tools.get(key)) for key in ("name", "version"))  # "cpu" is both
        lines.append(f"toolchain  {' '.join(made)}")
    gpus = manifest.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else []:
        if isinstance(gpu, dict):
            lines.append(f"GPU        {gpu.get('name')}, compute capability {gpu.get('compute_capability')}")
    if isinstance(gpus, str):
        lines.append(f"GPU        none ({gpus})")
    steps = manifest.get("steps")
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and isinstance(step.get("argv"), list):
            lines.append(f"step       {step.get('name')}: {' '.join(map(str, step['argv']))}")
    check = manifest.get("check")
    if isinstance(check, dict):
        lines.append(f"check      {check.get('status')}, level {check.get('level')} of 3")
    return [*lines, ""] if lines else []


def _record_beside(source: str, sha256: str) -> Mapping[str, Any]:
    """The `build.json` beside an archive, if it is one and about this archive; else nothing."""
    try:
        known = read_record(Path(source).parent / RECORD_NAME, KEPT)
    except OSError:
        return {}
    record: Mapping[str, Any] = {} if known is None else {**known}
    return record if record.get("archive", {}).get("sha256") == sha256 else {}


def _talk(talk: Mapping[str, Any] | None) -> list[str]:
    """What the engine wrote; whatever is not as expected is left out."""
    answers = (talk or {}).get("answers")
    lines = []
    for answer in answers if isinstance(answers, list | tuple) else []:
        if isinstance(answer, dict):
            lines.append(f"  {answer.get('prompt')!r} -> {answer.get('text')!r}")
            if isinstance(answer.get("tokens"), list):
                lines.append(f"    tokens {' '.join(map(str, answer['tokens']))}")
    return ["what it wrote when it was checked", *lines, ""] if lines else []


def _label(source: str | BinaryIO) -> str:
    """What to call the archive, if nobody has said."""
    if not isinstance(source, str):
        return "the stream"
    return shown(source) if source.startswith(("http://", "https://")) else source


def _content(entry: Entry) -> bytes:
    source = entry.open()
    try:
        content = bytearray(entry.size)
        filled = 0
        while filled < entry.size and (count := source.readinto(memoryview(content)[filled:])):
            filled += count
        return bytes(content[:filled])
    finally:
        source.close()
