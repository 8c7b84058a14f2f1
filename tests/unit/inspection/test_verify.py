"""Verifying an archive: each field of statement, envelope, manifest and archive, changed once, is refused."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from trt_llm_pipeline.artifact import pack_engine
from trt_llm_pipeline.artifact.dsse import Envelope, SigningKey, load_signing_key
from trt_llm_pipeline.artifact.entries import Entry
from trt_llm_pipeline.artifact.statement import (
    CONFIG_NAME,
    PAYLOAD_TYPE,
    Run,
    Subject,
    encoded,
    make_statement,
    model_reference,
    toolchain_reference,
)
from trt_llm_pipeline.artifact.writer import write_archive
from trt_llm_pipeline.errors import ArtifactError
from trt_llm_pipeline.inspection.verify import Verification, verify

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"a": 1}', "rank0.engine": bytes(range(256)) * 999, "sub/tokenizer.json": b"{}"}
CONFIG = {
    "model_id": "owner/name",
    "example_name": "gpt",
    "build": {"script": "build.py", "output_dir": "/src/out", "args": {"rate": "0.50", "flag": None}},
}
MANIFEST = {
    "schema": 1,
    "model_id": "owner/name",
    "revision": COMMIT,
    "source": "hub",
    "toolchain": {"name": "tensorrt_llm", "version": "0.7.1", "follows": ["0.7.1"]},
    "gpus": [{"name": "NVIDIA H200", "compute_capability": "9.0"}],
    "steps": [{"name": "build", "argv": ["python", "$TRTLLM_DIR/build.py", "--rate", "0.50"]}],
}
Path_ = tuple[Any, ...]
Change = Callable[[tarfile.TarInfo, bytes], tuple[str, bytes] | None]


@dataclass(frozen=True)
class Built:
    """An archive, the statement about it and the key that signed that."""

    archive: bytes
    statement: dict[str, Any]
    key: SigningKey

    def envelope(self, statement: dict[str, Any] | None = None) -> bytes:
        return self.key.sign(PAYLOAD_TYPE, encoded(statement or self.statement)).as_json_line()

    def unsigned(self, statement: dict[str, Any] | None = None) -> bytes:
        return Envelope(PAYLOAD_TYPE, encoded(statement or self.statement)).as_json_line()

    def check(
        self, *, archive: bytes | None = None, envelope: bytes | None = None, **how: Any
    ) -> Verification:
        """Verifies with the key, unless told otherwise."""
        given = self.envelope() if envelope is None else envelope
        how.setdefault("key", self.key.public())
        return verify(io.BytesIO(self.archive if archive is None else archive), given, label="it", **how)


def make_key(folder: Path, name: str = "key.pem") -> SigningKey:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / name).write_bytes(pem)
    return load_signing_key(folder / name)


def make(
    folder: Path, *, manifest: dict[str, Any] = MANIFEST, config: Any = CONFIG, **files: bytes
) -> tuple[bytes, Subject]:
    """Packs an archive, as a build does."""
    engine = folder / "engine"
    for name, data in (FILES | files).items():
        (engine / name).parent.mkdir(parents=True, exist_ok=True)
        (engine / name).write_bytes(data)
    extra = {CONFIG_NAME: yaml.safe_dump(config).encode()}
    packed = pack_engine(engine, folder / "engine.tar.gz", extra=extra, manifest=manifest)
    return packed.path.read_bytes(), Subject(packed.name, packed.sha256, packed.content_sha256)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    archive, subject = make(folder)
    made_from = [
        {**model_reference(MANIFEST, CONFIG), "annotations": {"files": {"config.json": "sha256:00"}}},
        {**toolchain_reference(MANIFEST), "digest": {"dirHash": "11"}},
        {"name": "service", "uri": "pkg:generic/trt-llm-pipeline@1", "digest": {"dirHash": "22"}},
    ]
    run = Run("20260101T000000.000000Z-0000", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "1")
    config = yaml.safe_dump(CONFIG).encode()
    return Built(archive, make_statement(subject, MANIFEST, config, made_from, run), make_key(folder))


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The path of every text, number and null in a JSON value."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


def changed(value: Any, path: Path_, change: Callable[[Any], Any]) -> Any:
    """A copy of a JSON value with what lies at `path` changed."""
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change(place[path[-1]])
    return copy


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return 7 if value is None else value + 1


def problems(found: Verification) -> set[str]:
    return {check.name for check in found.checks if check.status == "problem"}


# The fixture's statement, for its fields' names: those are needed before anything is built.
SHAPE = make_statement(
    Subject("engine.tar.gz", "0", "0"),
    MANIFEST,
    yaml.safe_dump(CONFIG).encode(),
    [
        {**model_reference(MANIFEST, CONFIG), "annotations": {"files": {"config.json": "x"}}},
        {**toolchain_reference(MANIFEST), "digest": {"dirHash": "x"}},
        {"name": "service", "uri": "x", "digest": {"dirHash": "x"}},
    ],
    Run("x", "x", "x", "x"),
)
FIELDS = list(leaves(SHAPE))
DEFINITION = ("predicate", "buildDefinition")
#: What an archive's own files say too, so that even an unsigned statement cannot say otherwise.
KNOWN_FROM_THE_ARCHIVE = [
    path
    for path in FIELDS
    if path[0] in ("_type", "predicateType")
    or (path[0] == "subject" and "digest" in path)
    or (path[:2] == DEFINITION and path[2] in ("buildType", "externalParameters", "internalParameters"))
    or (path[2:4] == ("resolvedDependencies", 0) and path[4] in ("name", "uri", "digest"))
    or (path[2:4] == ("resolvedDependencies", 1) and path[4] in ("name", "uri"))
]


def named(path: Path_) -> str:
    return ".".join(map(str, path))


def test_what_was_built_is_verified(built: Built) -> None:
    found = built.check()
    assert {check.status for check in found.checks} == {"ok"}
    assert found.holds
    assert found.signed_by == built.key.keyid
    assert f"verified: the holder of key {built.key.keyid} says so" in found.as_text()
    told = found.as_json()
    assert (told["verified"], told["signed_by"]) == (True, built.key.keyid)
    assert told["statement"] == built.statement
    assert told["content_sha256"] == built.statement["subject"][0]["digest"]["dirHash"]


class TestStatement:
    """One field after the other."""

    def test_the_fields_are_those_of_the_fixture(self, built: Built) -> None:
        assert list(leaves(built.statement)) == FIELDS
        assert len(FIELDS) > 30
        assert len(KNOWN_FROM_THE_ARCHIVE) > 20

    @pytest.mark.parametrize("path", FIELDS, ids=named)
    def test_a_changed_field_ends_the_signature(self, built: Built, path: Path_) -> None:
        line = json.loads(built.envelope())
        statement = changed(built.statement, path, other)
        line["payload"] = base64.b64encode(encoded(statement)).decode()
        found = built.check(envelope=json.dumps(line).encode())
        assert found.signed_by is None
        assert problems(found) & {"signature", "statement"}
        assert "REFUSED" in found.as_text()

    @pytest.mark.parametrize("path", FIELDS, ids=named)
    def test_a_removed_field_ends_the_signature(self, built: Built, path: Path_) -> None:
        line = json.loads(built.envelope())
        statement = json.loads(json.dumps(built.statement))
        place = statement
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        line["payload"] = base64.b64encode(encoded(statement)).decode()
        found = built.check(envelope=json.dumps(line).encode())
        assert found.signed_by is None
        assert problems(found) & {"signature", "statement"}

    @pytest.mark.parametrize("path", KNOWN_FROM_THE_ARCHIVE, ids=named)
    def test_unsigned_too_what_the_archive_says_otherwise(self, built: Built, path: Path_) -> None:
        statement = changed(built.statement, path, other)
        found = built.check(envelope=built.unsigned(statement), key=None)
        assert problems(found), path
        assert not found.holds

    def test_a_changed_field_signed_by_another_is_refused(self, built: Built, tmp_path: Path) -> None:
        stranger = make_key(tmp_path)
        found = built.check(envelope=replace(built, key=stranger).envelope())
        assert problems(found) == {"signature"}
        assert stranger.keyid in found.as_text()

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda said: said | {"subject": []}, "content"),
            (lambda said: said | {"subject": said["subject"] * 2}, "content"),
            (lambda said: said | {"subject": [7]}, "content"),
            (lambda said: said | {"predicate": {}}, "statement"),
            (lambda said: said | {"predicate": []}, "statement"),
            (lambda said: changed(said, (*DEFINITION, "resolvedDependencies"), lambda _: None), "build"),
            (lambda said: changed(said, (*DEFINITION, "resolvedDependencies"), lambda _: [1, []]), "build"),
            (lambda said: changed(said, (*DEFINITION, "externalParameters"), lambda _: [1]), "build"),
        ],
    )
    def test_other_shapes(self, built: Built, change: Callable[[Any], Any], problem: str) -> None:
        found = built.check(envelope=built.envelope(change(built.statement)))
        assert problem in problems(found)

    def test_what_is_said_twice_is_not_read(self, built: Built) -> None:
        payload = encoded(built.statement).replace(b'"subject":', b'"subject":[],"subject":', 1)
        found = built.check(envelope=built.key.sign(PAYLOAD_TYPE, payload).as_json_line())
        assert problems(found) == {"statement"}
        assert "says one thing twice" in found.as_text()


class TestEnvelope:
    """The statement's wrapping."""

    @pytest.mark.parametrize("path", [("payloadType",), ("signatures", 0, "keyid"), ("signatures", 0, "sig")])
    def test_a_changed_field(self, built: Built, path: Path_) -> None:
        line = changed(
            json.loads(built.envelope()), path, lambda text: ("B" if text[0] == "A" else "A") + text[1:]
        )
        found = built.check(envelope=json.dumps(line).encode())
        assert problems(found) & {"signature", "statement"}
        assert found.signed_by is None

    def test_without_a_signature_where_one_is_demanded(self, built: Built) -> None:
        found = built.check(envelope=built.unsigned())
        assert problems(found) == {"signature"}
        assert "it is unsigned, and one by key" in found.as_text()

    def test_unsigned_and_none_demanded_says_so(self, built: Built) -> None:
        found = built.check(envelope=built.unsigned(), key=None)
        assert found.holds
        assert found.signed_by is None
        assert "unsigned: whoever changes it leaves no trace" in found.as_text()
        assert "no signature was checked" in found.as_text()

    def test_signed_and_no_key_given_says_that_it_was_not_checked(self, built: Built) -> None:
        found = built.check(key=None)
        assert found.holds
        assert found.signed_by is None
        assert f"signed by {built.key.keyid}, which was not checked" in found.as_text()

    @pytest.mark.parametrize("count", [0, 2])
    def test_other_than_one_line(self, built: Built, count: int) -> None:
        found = built.check(envelope=built.envelope() * count + b"\n")
        assert problems(found) == {"statement"}
        assert f"it has {count} envelopes" in found.as_text()

    def test_an_archive_from_before_there_were_statements(self, built: Built) -> None:
        found = verify(io.BytesIO(built.archive), None, label="it")
        assert problems(found) == {"statement"}
        assert "If the archive is older than statements are, build it again" in found.as_text()
        assert found.checks[0].status == "ok"


class TestArchive:
    """What the statement is about."""

    def again(
        self, built: Built, change: Callable[[tarfile.TarInfo, bytes], tuple[str, bytes] | None]
    ) -> bytes:
        """The archive with its files changed and compressed as before; None leaves one out."""

        entries = []
        with tarfile.open(fileobj=io.BytesIO(built.archive)) as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                if (kept := change(member, content.read())) is not None:
                    entries.append(Entry.of_bytes(*kept))
        sink = io.BytesIO()
        write_archive(entries, sink)
        return sink.getvalue()

    def test_packing_again_changes_nothing(self, built: Built) -> None:
        archive = self.again(built, lambda member, data: (member.name, data))
        assert built.check(archive=archive, any_compression=True).holds

    @pytest.mark.parametrize("name", [*FILES, CONFIG_NAME, "manifest.json"])
    def test_a_changed_file(self, built: Built, name: str) -> None:
        archive = self.again(
            built,
            lambda member, data: (member.name, data[:-1] + b"\n\n" if member.name == name else data),
        )
        for how in ({}, {"any_compression": True}):
            assert "content" in problems(built.check(archive=archive, **how))

    @pytest.mark.parametrize("name", [*FILES, CONFIG_NAME, "manifest.json"])
    def test_a_missing_file(self, built: Built, name: str) -> None:
        archive = self.again(built, lambda member, data: None if member.name == name else (member.name, data))
        assert {"archive", "content"} <= problems(built.check(archive=archive, any_compression=True))

    @pytest.mark.parametrize("name", [*FILES, CONFIG_NAME, "manifest.json"])
    def test_a_renamed_file(self, built: Built, name: str) -> None:
        archive = self.again(built, lambda member, data: (member.name + "x" * (member.name == name), data))
        assert {"archive", "content"} <= problems(built.check(archive=archive, any_compression=True))

    @pytest.mark.parametrize("path", list(leaves(MANIFEST)), ids=named)
    def test_a_changed_field_of_the_manifest(self, built: Built, tmp_path: Path, path: Path_) -> None:
        archive, _ = make(tmp_path, manifest=changed(MANIFEST, path, other))
        found = built.check(archive=archive, any_compression=True)
        assert "content" in problems(found)
        assert "archive" not in problems(found)

    @pytest.mark.parametrize("path", list(leaves(CONFIG)), ids=named)
    def test_a_changed_field_of_the_config(self, built: Built, tmp_path: Path, path: Path_) -> None:
        archive, _ = make(tmp_path, config=changed(CONFIG, path, other))
        assert {"content", "build"} <= problems(built.check(archive=archive, any_compression=True))

    @pytest.mark.parametrize("config", [b"a: [", b"\xff", b"- 1", b"&a [*a]", b"a: " + b"[" * 9999])
    def test_a_config_that_is_none(self, built: Built, config: bytes) -> None:
        archive = self.again(
            built, lambda member, data: (member.name, config if member.name == CONFIG_NAME else data)
        )
        assert {"content", "build"} <= problems(built.check(archive=archive))

    def test_another_archive(self, built: Built, tmp_path: Path) -> None:
        archive, _ = make(tmp_path, **{"rank1.engine": b"more"})
        found = built.check(archive=archive)
        assert problems(found) == {"content"}
        assert "another archive, or one that was altered" in found.as_text()


class TestCompression:
    """The content is what is signed; its compressed bytes are a check of the transport."""

    def test_compressed_again_passes_where_that_is_allowed(self, built: Built) -> None:
        again = gzip.compress(gzip.decompress(built.archive))
        assert again != built.archive
        found = built.check(archive=again)
        assert problems(found) == {"bytes"}
        assert "--any-compression" in found.as_text()
        allowed = built.check(archive=again, any_compression=True)
        assert allowed.holds
        assert allowed.signed_by == built.key.keyid
        assert built.check(archive=gzip.decompress(built.archive), any_compression=True).holds

    @pytest.mark.parametrize(
        "change",
        [{"mode": 0o4755}, {"mtime": 1}, {"uid": 1000}, {"gid": 1000}, {"uname": "root"}, {"gname": "wheel"}],
        ids=lambda change: next(iter(change)),
    )
    def test_but_not_with_headers_that_say_more(self, built: Built, change: dict[str, Any]) -> None:
        sink = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(built.archive)) as old,
            tarfile.open(fileobj=sink, mode="w") as new,
        ):
            for member in old:
                content = old.extractfile(member)
                new.addfile(member.replace(**change, deep=False), content)
        for how in ({}, {"any_compression": True}):
            found = built.check(archive=sink.getvalue(), **how)
            assert problems(found) == {"bytes"}

    def test_a_flipped_bit_never_passes(self, built: Built) -> None:
        data = bytearray(built.archive)
        for position in range(0, len(data), max(1, len(data) // 60)):
            data[position] ^= 4
            with suppress(ArtifactError):
                assert not built.check(archive=bytes(data)).holds, position
            data[position] ^= 4


def test_a_name_cannot_write_to_the_terminal(built: Built) -> None:
    statement = changed(built.statement, ("subject", 0, "digest", "dirHash"), lambda _: "\x1b[2J\n")
    found = built.check(envelope=built.unsigned(statement), key=None)
    assert "\x1b" not in found.as_text()
    assert len(found.as_text().splitlines()) == len(built.check().as_text().splitlines()) - 1


@pytest.mark.parametrize("envelope", [None, b"{}"])
def test_without_a_statement_the_verdict_is_not_about_one(built: Built, envelope: bytes | None) -> None:
    found = verify(io.BytesIO(built.archive), envelope, label="it")
    assert found.as_text().endswith("REFUSED: nothing that can be used says how this archive was built")
