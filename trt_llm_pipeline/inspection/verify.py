"""Whether an archive is what its statement says, and who says so: one streaming pass, nothing written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from trt_llm_pipeline.artifact import statement as stated
from trt_llm_pipeline.artifact.dsse import Envelope, VerifyingKey
from trt_llm_pipeline.artifact.reader import ArchiveContents, read_archive
from trt_llm_pipeline.errors import ArtifactError
from trt_llm_pipeline.inspection.checks import Check, table, verdict
from trt_llm_pipeline.printable import printable

_LARGEST_CONFIG = 4 << 20
_MOST_SHOWN = 4
_LONGEST_SHOWN = 80
_NO_STATEMENT = (
    "there is none, so nothing says who built the archive or from what. A build leaves one beside the "
    f"archive, named like it with {stated.STATEMENT_SUFFIX} at the end: copy it too, or name it with "
    "--statement. If the archive is older than statements are, build it again"
)


@dataclass(frozen=True)
class Verification:
    """What became of checking an archive.

    Attributes:
        label: what to call the archive.
        contents: what it holds.
        statement: what is said of it; None where nothing readable is.
        signed_by: the name of the key whose signature was checked and holds; None without one.
        checks: one line for each thing that was looked at; a `problem` refuses the archive.
    """

    label: str
    contents: ArchiveContents
    statement: Mapping[str, Any] | None
    signed_by: str | None
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """True where nothing contradicts the statement."""
        return verdict(self.checks) != "not ready"

    def as_json(self) -> dict[str, Any]:
        """Everything that was found, as JSON values."""
        return {
            "archive": self.label,
            "verified": self.holds,
            "signed_by": self.signed_by,
            "sha256": self.contents.sha256,
            "content_sha256": self.contents.content_sha256,
            "size": self.contents.size,
            "checks": [
                {key: value for key, value in asdict(check).items() if key != "settings"}
                for check in self.checks
            ],
            "statement": self.statement,
        }

    def as_text(self) -> str:
        """A line for each check, and what they come to, for a terminal."""
        lines = [self.label, *table(self.checks), "", self._verdict()]
        return "\n".join(map(printable, lines))

    def _verdict(self) -> str:
        if not self.holds and self.statement is None:
            return "REFUSED: nothing that can be used says how this archive was built"
        if not self.holds:
            return "REFUSED: do not use this archive for what the statement says"
        if self.signed_by is None:
            return "the archive is what its statement says, but no signature was checked"
        return f"verified: the holder of key {self.signed_by} says so"


def verify(
    source: BinaryIO,
    envelope: bytes | None,
    *,
    label: str,
    key: VerifyingKey | None = None,
    any_compression: bool = False,
) -> Verification:
    """Read an archive from its first byte to its last and compare it with what is said of it.

    Args:
        source: the archive, at its start. Only read forward.
        envelope: the text of the statement's file; None where there is none.
        label: what to call the archive.
        key: whose signature is demanded; None looks at none.
        any_compression: whether the same content in other compressed bytes passes.

    Raises:
        ArtifactError: the archive cannot be read, or is no tar or tar.gz.
    """
    contents = read_archive(
        source, keep=lambda name, size: name == stated.CONFIG_NAME and size <= _LARGEST_CONFIG
    )
    checks = [_archive(contents)]
    if envelope is None:
        checks.append(Check("statement", "problem", _NO_STATEMENT))
        return Verification(label, contents, None, None, tuple(checks))
    try:
        enveloped, said = _statement(envelope)
    except ArtifactError as problem:
        checks.append(Check("statement", "problem", f"cannot be used: {problem}"))
        return Verification(label, contents, None, None, tuple(checks))
    checks.append(Check("statement", "ok", "an in-toto statement with SLSA provenance"))
    signature = _signature(enveloped, key)
    checks.append(signature)
    checks += _digests(said, contents, any_compression)
    checks.append(_build(said, contents))
    signed_by = key.keyid if key is not None and signature.status == "ok" else None
    return Verification(label, contents, said, signed_by, tuple(checks))


def _archive(contents: ArchiveContents) -> Check:
    problems = list(contents.problems)
    problems += [f"{file.name!r} is no file name" for file in contents.files if not file.name.isprintable()]
    if problems:
        return Check("archive", "problem", _few(problems))
    return Check("archive", "ok", f"{len(contents.files)} files, as its manifest lists them")


def _statement(text: bytes) -> tuple[Envelope, dict[str, Any]]:
    """The envelope and its statement, of a kind that this service makes."""
    if len(text) > stated.LARGEST_STATEMENT:
        raise ArtifactError(f"it is larger than {stated.LARGEST_STATEMENT >> 20} MiB")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise ArtifactError(f"it has {len(lines)} envelopes, one to a line; there must be one")
    envelope = Envelope.parse(lines[0])
    if envelope.payload_type != stated.PAYLOAD_TYPE:
        raise ArtifactError(f"its payloadType is {_short(envelope.payload_type)}, not {stated.PAYLOAD_TYPE}")
    said = stated.decoded(envelope.payload)
    wanted = {
        ("_type",): stated.STATEMENT_TYPE,
        ("predicateType",): stated.PREDICATE_TYPE,
        ("predicate", "buildDefinition", "buildType"): stated.BUILD_TYPE,
    }
    for path, value in wanted.items():
        if (found := _at(said, *path)) != value:
            raise ArtifactError(f"its {'.'.join(path)} is {_short(found)}, not {value}")
    return envelope, said


def _signature(envelope: Envelope, key: VerifyingKey | None) -> Check:
    ids = [signature.keyid for signature in envelope.signatures]
    names = _few([_short(keyid) if keyid else "a key without a name" for keyid in ids])
    if key is None:
        found = f"signed by {names}, which was not checked" if ids else "unsigned"
        advice = "give the builder's public key with --key" if ids else "whoever changes it leaves no trace"
        return Check("signature", "warning", f"{found}: {advice}")
    if not ids:
        return Check("signature", "problem", f"it is unsigned, and one by key {key.keyid} is demanded")
    if key.signed(envelope):
        return Check("signature", "ok", f"by key {key.keyid}")
    return Check(
        "signature",
        "problem",
        f"none by key {key.keyid} holds (it names {names}): the statement was changed, or signed by another",
    )


def _digests(said: Mapping[str, Any], contents: ArchiveContents, any_compression: bool) -> list[Check]:
    try:
        digests = stated.subject_of(said)
    except ArtifactError as problem:
        return [Check("content", "problem", f"the statement cannot be compared: {problem}")]
    content, compressed = digests.get("dirHash"), digests.get("sha256")
    if content != contents.content_sha256:
        found = contents.content_sha256
        message = f"{found}, not {_short(content)}: another archive, or one that was altered"
        return [Check("content", "problem", message)]
    same = Check("content", "ok", contents.content_sha256)
    if compressed == contents.sha256:
        return [same, Check("bytes", "ok", f"sha256 {contents.sha256}")]
    differ = f"the same content, in bytes whose sha256 is {contents.sha256}, not {_short(compressed)}"
    if any_compression and contents.plain:
        return [same, Check("bytes", "warning", f"{differ}: compressed otherwise, or not at all")]
    if any_compression:
        advice = "its headers tell times, owners or rights, or spell names otherwise than a build's"
    else:
        advice = (
            "it is compressed otherwise or not at all, which --any-compression accepts, or was packed again"
        )
    return [same, Check("bytes", "problem", f"{differ}: {advice}")]


def _build(said: Mapping[str, Any], contents: ArchiveContents) -> Check:
    """Whether the statement says of the build what the archive's own files say of it."""
    manifest = contents.manifest or {}
    config = contents.kept.get(stated.CONFIG_NAME)
    if config is None:
        return Check("build", "problem", f"the archive has no {stated.CONFIG_NAME} to compare with")
    try:
        external = stated.external_parameters(config)
    except ArtifactError as problem:
        return Check("build", "problem", str(problem))
    definition = _at(said, "predicate", "buildDefinition")
    differing = []
    expected = {
        "externalParameters": external,
        "internalParameters": stated.internal_parameters(manifest),
    }
    for name, value in expected.items():
        found = _at(definition, name)
        if found != value:
            parts = [key for key in value if _at(found, key) != value[key]] or ["more than that"]
            differing += [f"{name}.{part}" for part in parts]
    parameters = external["config"] if isinstance(external["config"], dict) else {}
    dependencies = _by_name(_at(definition, "resolvedDependencies"))
    references = (
        stated.model_reference(manifest, parameters),
        *stated.dataset_references(manifest),
        stated.toolchain_reference(manifest),
    )
    for wanted in references:
        found = dependencies.get(wanted["name"], {})
        differing += [
            f"resolvedDependencies.{wanted['name']}.{key}" for key in wanted if found.get(key) != wanted[key]
        ]
    if differing:
        return Check("build", "problem", f"the archive's own files say otherwise: {_few(differing)}")
    return Check("build", "ok", "model, toolchain, commands and config are as the archive says")


def _by_name(entries: Any) -> dict[str, Mapping[str, Any]]:
    listed = entries if isinstance(entries, list) else []
    return {str(entry.get("name")): entry for entry in listed if isinstance(entry, dict)}


def _at(value: Any, *path: str) -> Any:
    """What lies at a path of nested objects; None where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    """A value of somebody's statement, so that it can be shown."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _few(texts: list[str]) -> str:
    more = len(texts) - _MOST_SHOWN
    return "; ".join(texts[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
