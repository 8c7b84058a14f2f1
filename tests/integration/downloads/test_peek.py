"""A model's config.json alone: from the disk where it is there, else one short question to the Hub."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import ModelAccessDenied, ModelNotFound, ModelSourceError, ModelUnavailable
from trt_llm_pipeline.model_source import ModelRequest, fetch, peek_config, read_config
from trt_llm_pipeline.testing.hub import Fault, HubServer

CONFIG = {"model_type": "llama", "hidden_size": 64}
FILES: dict[str, Path | bytes] = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": b"\2\0\0\0\0\0\0\0{}",
}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(tokens=["hf_granted"]) as server:
        server.add_repository("owner/model", FILES)
        server.add_repository("owner/gated", FILES, gated=True, granted=["hf_granted"])
        yield server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def peek(hub: HubServer, models: Path, model_id: str = "owner/model", **options: object) -> dict[str, object]:
    token = options.pop("token", None)
    env = {"HF_ENDPOINT": hub.url, **options.pop("env", {})}  # type: ignore[dict-item]
    request = ModelRequest(model_id, **options)  # type: ignore[arg-type]
    return peek_config(request, models, token=token, env=env)  # type: ignore[arg-type]


class TestFromTheHub:
    """One request, nothing written."""

    def test_only_that_file_is_asked_for(self, hub: HubServer, models: Path) -> None:
        assert peek(hub, models) == CONFIG
        assert [request.path.rpartition("/")[2] for request in hub.requests] == ["config.json"]
        assert not models.exists()

    def test_at_the_revision_that_was_asked_for(self, hub: HubServer, models: Path) -> None:
        other = {**FILES, "config.json": json.dumps({"model_type": "other"}).encode()}
        hub.add_repository("owner/model", other, revision="experiment")
        assert peek(hub, models, revision="experiment") == {"model_type": "other"}
        assert peek(hub, models) == CONFIG

    def test_a_gated_model_needs_a_token(self, hub: HubServer, models: Path) -> None:
        with pytest.raises(ModelAccessDenied, match="gated"):
            peek(hub, models, "owner/gated")
        assert peek(hub, models, "owner/gated", token="hf_granted") == CONFIG

    def test_a_model_that_is_not_there(self, hub: HubServer, models: Path) -> None:
        with pytest.raises(ModelNotFound):
            peek(hub, models, "no/such")

    def test_a_hub_that_fails_is_not_asked_again(self, hub: HubServer, models: Path) -> None:
        hub.faults.add(Fault("status", status=503, times=9))
        with pytest.raises(ModelSourceError):
            peek(hub, models)
        assert len(hub.requests) == 1

    @pytest.mark.slow
    def test_a_hub_that_says_nothing_is_not_waited_for(self, hub: HubServer, models: Path) -> None:
        hub.faults.add(Fault("stall", after=0, seconds=120))
        started = time.monotonic()
        with pytest.raises(ModelUnavailable, match="did not answer"):
            peek(hub, models)
        assert time.monotonic() - started < 60

    @pytest.mark.parametrize("content", [b"<html>", b"[]", b"[" * 100_000, b""])
    def test_what_is_no_object_is_refused(self, hub: HubServer, models: Path, content: bytes) -> None:
        hub.add_repository("owner/odd", {**FILES, "config.json": content})
        with pytest.raises(ModelSourceError, match="no JSON object"):
            peek(hub, models, "owner/odd")

    def test_what_is_far_too_large_is_not_read_to_its_end(self, hub: HubServer, models: Path) -> None:
        hub.add_repository("owner/large", {**FILES, "config.json": b" " * (5 << 20)})
        with pytest.raises(ModelUnavailable, match="far too large"):
            peek(hub, models, "owner/large")


class TestFromTheDisk:
    """Without a question where it is there."""

    def test_a_model_that_was_downloaded(self, hub: HubServer, models: Path) -> None:
        fetch(
            ModelRequest("owner/model"), models, token=None, log=lambda _: None, env={"HF_ENDPOINT": hub.url}
        )
        before = len(hub.requests)
        assert peek(hub, models) == CONFIG
        assert len(hub.requests) == before

    def test_another_revision_than_was_downloaded_is_asked_for(self, hub: HubServer, models: Path) -> None:
        fetch(
            ModelRequest("owner/model"), models, token=None, log=lambda _: None, env={"HF_ENDPOINT": hub.url}
        )
        other = {**FILES, "config.json": json.dumps({"model_type": "other"}).encode()}
        hub.add_repository("owner/model", other, revision="experiment")
        assert peek(hub, models, revision="experiment") == {"model_type": "other"}

    def test_the_user_s_own_model_whatever_else_is_said(self, hub: HubServer, models: Path) -> None:
        folder = models / "owner" / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "mine"}')
        assert peek(hub, models, env={"HF_HUB_OFFLINE": "1"}) == {"model_type": "mine"}
        assert hub.requests == ()

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"env": {"HF_HUB_OFFLINE": "1"}}, "HF_HUB_OFFLINE"),
            ({"tar_url": "http://x/m.tar"}, "comes in a tar"),
        ],
    )
    def test_what_is_not_there_and_cannot_be_asked_for(
        self, hub: HubServer, models: Path, options: dict[str, object], reason: str
    ) -> None:
        with pytest.raises(ModelUnavailable, match=reason):
            peek(hub, models, **options)
        assert hub.requests == ()

    def test_a_folder_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(ModelSourceError, match=r"its config\.json cannot be read"):
            read_config(tmp_path)
