"""What is said of an archive beside it: an in-toto Statement v1 with SLSA provenance v1.

https://github.com/in-toto/attestation, `spec/v1/statement.md`; https://slsa.dev/provenance/v1. What this
service means by each field, its `buildType`, is in docs/security.md.

The archive's manifest and config hold what the same build says every time; the statement repeats them in
SLSA's fields, so that it can be compared with the archive, and adds what varies: digests of what took part,
when and under which name the build ran.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from trt_llm_pipeline.errors import ArtifactError

LARGEST_STATEMENT = 16 << 20
STATEMENT_SUFFIX = ".intoto.jsonl"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:trt-llm-pipeline:build:1"
BUILDER_ID = "urn:trt-llm-pipeline:builder"
CONFIG_NAME = "cog-trt-llm-config.yaml"


@dataclass(frozen=True)
class Subject:
    """The archive that a statement is about.

    Attributes:
        name: the archive's file name.
        sha256: of its bytes, as they were sent.
        content_sha256: of its content; see `content`.
    """

    name: str
    sha256: str
    content_sha256: str


@dataclass(frozen=True)
class Run:
    """When and as what a build ran: its id, and its beginning and end in RFC 3339, UTC."""

    build_id: str
    started: str
    finished: str
    service_version: str


def make_statement(
    subject: Subject,
    manifest: Mapping[str, Any],
    config: bytes,
    dependencies: Sequence[Mapping[str, Any]],
    run: Run,
) -> dict[str, Any]:
    """The statement about a build's archive.

    Args:
        subject: the archive.
        manifest: what its `manifest.json` says of the build.
        config: the YAML that is packed as `cog-trt-llm-config.yaml`.
        dependencies: in-toto resource descriptors of what the build was made from.
        run: of the build.
    """
    digest = {"sha256": subject.sha256, "dirHash": subject.content_sha256}
    metadata = {"invocationId": run.build_id, "startedOn": run.started, "finishedOn": run.finished}
    version = {"trt-llm-pipeline": run.service_version}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject.name, "digest": digest}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": external_parameters(config),
                "internalParameters": internal_parameters(manifest),
                "resolvedDependencies": [dict(entry) for entry in dependencies],
            },
            "runDetails": {"builder": {"id": BUILDER_ID, "version": version}, "metadata": metadata},
        },
    }


def external_parameters(config: bytes) -> dict[str, Any]:
    """What whoever asked for the build has decided: the config, from the YAML that is packed."""
    try:
        return {"config": yaml.safe_load(config)}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        raise ArtifactError(f"{CONFIG_NAME} is not valid YAML ({type(problem).__name__})") from None


def internal_parameters(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the service has made of it: the steps' commands, and the GPUs that were there."""
    return {"steps": manifest.get("steps"), "gpus": manifest.get("gpus")}


def model_reference(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's name and what the manifest and the config say of its address and digest.

    A folder of the user's own has neither: its digest is the builder's to add.
    """
    found: dict[str, Any] = {"name": "model"}
    revision = str(manifest.get("revision"))
    if manifest.get("source") == "hub":
        found["uri"] = f"pkg:huggingface/{manifest.get('model_id')}@{revision}"
        found["digest"] = {"gitCommit": revision}
    elif manifest.get("source") == "tar":
        found["uri"] = config.get("model_tar_url")
        kind, _, digest = revision.partition(":")
        found["digest"] = {kind: digest}
    return found


def dataset_references(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each dataset's name, address and commit, as the manifest says them."""
    named = manifest.get("datasets")
    return [
        {
            "name": f"dataset {name}",
            "uri": f"pkg:huggingface/datasets/{facts.get('id')}@{facts.get('revision')}",
            "digest": {"gitCommit": str(facts.get("revision"))},
        }
        for name, facts in (named.items() if isinstance(named, dict) else ())
        if isinstance(facts, dict)
    ]


def toolchain_reference(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The toolchain's name and release, as the manifest says them."""
    tools = manifest.get("toolchain")
    tools = tools if isinstance(tools, dict) else {}
    return {"name": "toolchain", "uri": f"pkg:generic/{tools.get('name')}@{tools.get('version')}"}


def encoded(value: Mapping[str, Any]) -> bytes:
    """The statement as the payload of an envelope."""
    return json.dumps(value, separators=(",", ":")).encode()


def decoded(payload: bytes) -> dict[str, Any]:
    """Reads a payload; only its outermost form is looked at.

    Raises:
        ArtifactError: it is no JSON object, or says something twice, which readers understand differently.
    """
    try:
        value = json.loads(payload, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise ArtifactError("its statement is not valid JSON, or says one thing twice") from None
    if not isinstance(value, dict):
        raise ArtifactError("its statement is no JSON object")
    return value


def subject_of(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The digests of the one archive that a statement is about, by algorithm.

    Raises:
        ArtifactError: it is about several, or about none.
    """
    subjects = said.get("subject")
    (subject,) = subjects if isinstance(subjects, list) and len(subjects) == 1 else (None,)
    digest = subject.get("digest") if isinstance(subject, dict) else None
    if not isinstance(digest, dict):
        raise ArtifactError("its subject is not one archive with digests")
    return digest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found
