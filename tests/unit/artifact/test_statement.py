"""Statements: what they say of a model by where it came from, and what cannot be one."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.artifact.statement import (
    decoded,
    encoded,
    external_parameters,
    model_reference,
    subject_of,
)
from trt_llm_pipeline.errors import ArtifactError


def test_a_model_of_the_hub_is_named_by_its_commit() -> None:
    manifest = {"source": "hub", "model_id": "owner/name", "revision": "a" * 40}
    assert model_reference(manifest, {}) == {
        "name": "model",
        "uri": f"pkg:huggingface/owner/name@{'a' * 40}",
        "digest": {"gitCommit": "a" * 40},
    }


def test_a_model_of_a_tar_is_named_by_its_address_and_hash() -> None:
    manifest = {"source": "tar", "model_id": "owner/name", "revision": "sha256:" + "b" * 64}
    config = {"model_tar_url": "https://example.com/model.tar"}
    assert model_reference(manifest, config) == {
        "name": "model",
        "uri": "https://example.com/model.tar",
        "digest": {"sha256": "b" * 64},
    }


def test_a_folder_has_no_name_that_anybody_else_knows() -> None:
    assert model_reference({"source": "local", "revision": ""}, {}) == {"name": "model"}


def test_what_was_encoded_is_decoded() -> None:
    said = {"a": ["é", "\ud800", None, 1.5], "b": {}}
    assert decoded(encoded(said)) == said
    assert encoded(said).isascii()


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"\xff", b"[" * 99_999, b'{"a":1,"a":1}', b'{"b":{"a":1,"a":2}}']
)
def test_what_is_no_statement(payload: bytes) -> None:
    with pytest.raises(ArtifactError, match="its statement is"):
        decoded(payload)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"subject": None},
        {"subject": []},
        {"subject": [1]},
        {"subject": [{}]},
        {"subject": [{"digest": 1}]},
        {"subject": [{"digest": {}}, {"digest": {}}]},
    ],
)
def test_a_statement_is_about_one_archive(said: dict[str, object]) -> None:
    assert subject_of({"subject": [{"digest": {"sha256": "x"}}]}) == {"sha256": "x"}
    with pytest.raises(ArtifactError, match="is not one archive with digests"):
        subject_of(said)


@pytest.mark.parametrize("config", [b"a: [", b"\xff\xfe\xff", b"!!python/object:os.system {}", b"[" * 9999])
def test_a_config_that_is_no_yaml(config: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"cog-trt-llm-config.yaml is not valid YAML"):
        external_parameters(config)
