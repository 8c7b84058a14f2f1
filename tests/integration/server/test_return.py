"""What a prediction returns: the archive, or the record that says where it is."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import TOOLCHAIN, Service
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

CONFIG = "./examples/gpt/config.yaml"


def record_of(prediction: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(base64.b64decode(prediction["output"].partition(",")[2]))
    return record


@pytest.fixture(scope="module")
def cautious(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Iterator[tuple[CogServer, Path]]:
    """A server that inlines nothing above 1 kB, and its workspace."""
    workspace = tmp_path_factory.mktemp("cautious")
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(workspace)}
    with CogServer({**env, "TRT_LLM_INLINE_LIMIT": "1kB"}) as server:
        yield server, workspace


@pytest.mark.slow
def test_archive_above_the_limit_stays_in_the_workspace(cautious: tuple[CogServer, Path]) -> None:
    server, _ = cautious
    prediction = server.predict(config=CONFIG)
    assert prediction["status"] == "succeeded", prediction["error"]
    archive = record_of(prediction)["archive"]
    assert hashlib.sha256(Path(archive["path"]).read_bytes()).hexdigest() == archive["sha256"]
    assert "returning build.json" in prediction["logs"]
    assert "TRT_LLM_INLINE_LIMIT" in prediction["logs"]


def test_server_with_an_upload_url_is_given_the_archive(hub: HubServer, tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_WORKSPACE": str(tmp_path / "ws")}
    # Nothing listens there: Cog's upload fails, but which file was returned is in the log.
    upload = ("--upload-url", "http://127.0.0.1:9/")
    with CogServer({**env, "TRT_LLM_INLINE_LIMIT": "1kB"}, arguments=upload) as server:
        server.predict(config=CONFIG)
        assert "it is uploaded, as the server was started with --upload-url" in server.output()


def test_archive_goes_to_a_file_destination(service: Service) -> None:
    prediction = service.cog.predict(config=CONFIG, destination="file:///src/sent/gpt.tar.gz")
    assert prediction["status"] == "succeeded", prediction["error"]
    sent = service.workspace / "sent" / "gpt.tar.gz"
    assert hashlib.sha256(sent.read_bytes()).hexdigest() == record_of(prediction)["archive"]["sha256"]


def test_file_that_no_build_made_is_not_replaced(service: Service) -> None:
    mine = service.workspace / "mine.tar.gz"
    mine.write_bytes(b"mine")
    prediction = service.cog.predict(config=CONFIG, destination="file:///src/mine.tar.gz")
    assert "is there already, and no build made it" in prediction["error"]
    assert mine.read_bytes() == b"mine"


def test_archive_that_a_build_sent_is_replaced(service: Service) -> None:
    for _ in range(2):
        prediction = service.cog.predict(config=CONFIG, destination="file:///src/sent/again.tar.gz")
        assert prediction["status"] == "succeeded", prediction["error"]


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("ftp://host/x", "s3://"),
        ("file:///etc/engine.tar.gz", "workspace"),
        ("s3:///key", "names no bucket"),
        ("file:///src/models/x.tar.gz", "models"),
    ],
)
def test_destination_that_cannot_be_used_is_refused_before_anything_is_asked_for(
    service: Service, destination: str, words: str
) -> None:
    asked = len(service.hub.requests)
    prediction = service.cog.predict(config=CONFIG, destination=destination)
    assert prediction["status"] == "failed"
    assert words in prediction["error"]
    assert len(service.hub.requests) == asked
