"""Archives sent to a repository on the Hub, through huggingface_hub's own upload."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import MODEL_ID
from tests.integration.house import House
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.delivery import parse_destination
from trt_llm_pipeline.delivery.send import deliver_file
from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.hub.faults import Fault

# The client's own: it gives its HTTP library an open file in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_maywrite"
REPOSITORY = "acme/engines"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A Hub with the demo's model, and a private repository that one token may write."""
    models.make_demo_gpt2(tmp_path / "hub" / MODEL_ID)
    with HubServer(tmp_path / "hub", tokens=[TOKEN, "hf_another"]) as server:
        server.add_repository(REPOSITORY, {"README.md": b"# engines\n"}, private=True, granted=[TOKEN])
        yield server


@pytest.fixture
def house(hub: HubServer, tmp_path: Path) -> House:
    return House(hub, tmp_path / "house-folder")


def files(hub: HubServer) -> dict[str, bytes]:
    repository = hub.repository(REPOSITORY)
    assert repository is not None
    commit = repository.resolve("main")
    assert commit is not None
    return {path: blob.open().read() for path, blob in commit.files.items()}


def build(house: House, destination: str, token: str = TOKEN, *more: str) -> Result:
    house.folder.mkdir(exist_ok=True)
    config = house.config(check="off")
    env = {**os.environ, **house.env, "HF_TOKEN": token}
    argv = ["build", config, "--destination", destination, "--json", *more]
    return CliRunner().invoke(app, argv, env=env)


def test_the_archive_and_its_statement_are_committed_beside_what_is_there(
    hub: HubServer, house: House
) -> None:
    done = build(house, f"hf://{REPOSITORY}/tiny/engine.tar.gz")
    assert done.exit_code == 0, done.stdout + done.stderr
    record = json.loads(done.stdout)
    there = files(hub)
    assert sorted(there) == ["README.md", "tiny/engine.tar.gz", "tiny/engine.tar.gz.intoto.jsonl"]
    archive = there["tiny/engine.tar.gz"]
    assert hashlib.sha256(archive).hexdigest() == record["archive"]["sha256"]
    assert record["archive"]["address"] == f"hf://{REPOSITORY}/tiny/engine.tar.gz"
    assert not list(house.workspace.rglob("engine.tar.gz"))
    assert TOKEN not in done.stdout + done.stderr
    place = f"hf://{REPOSITORY}/tiny/engine.tar.gz"
    for token, code in ((TOKEN, 0), ("hf_another", 2)):  # it can be read from there, by whom it is for
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": token}
        verified = CliRunner().invoke(app, ["verify", place], env=env)
        assert verified.exit_code == code, verified.stdout + verified.stderr
    assert TOKEN not in (house.workspace / "builds" / record["build_id"] / "build.json").read_text()


@pytest.mark.parametrize("token", ["hf_another", ""])
def test_a_repository_that_may_not_be_written_is_said_before_the_first_step(house: House, token: str) -> None:
    done = build(house, f"hf://{REPOSITORY}/engine.tar.gz", token)
    assert done.exit_code == 7, done.stdout + done.stderr
    assert f"has no repository {REPOSITORY} that this token may write" in json.loads(done.stdout)["error"]
    assert "step build" not in done.stderr
    assert not (house.workspace / "engine").exists()


@pytest.mark.slow
def test_a_hub_that_fails_while_it_takes_the_archive_keeps_the_engine(hub: HubServer, house: House) -> None:
    hub.faults.add(Fault("status", "*/commit/*", times=10, method="POST", status=400))
    done = build(house, f"hf://{REPOSITORY}/engine.tar.gz")
    assert done.exit_code == 7, done.stdout + done.stderr
    error = json.loads(done.stdout)["error"]
    assert "answers HTTP 400" in error
    assert f"The engine is kept in {house.workspace}/engine: build again to send it" in error
    assert sorted(files(hub)) == ["README.md"]
    hub.faults.clear()
    again = build(house, f"hf://{REPOSITORY}/")
    assert again.exit_code == 0, again.stdout
    assert json.loads(again.stdout)["steps"][0]["cached"]
    assert "engine.tar.gz" in files(hub)


@pytest.mark.slow  # the client itself asks again for twenty seconds
def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    place = parse_destination(f"hf://{REPOSITORY}/x.tar.gz", tmp_path).at_hub("http://127.0.0.1:9", TOKEN)
    assert TOKEN not in repr(place)
    with pytest.raises(DeliveryError, match="could not be reached"):
        deliver_file(tmp_path / "x.tar.gz", place)
