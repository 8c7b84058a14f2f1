"""Addresses that lead inside, given to a real server that strangers may use: none of them is connected to."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import House
from tests.unit.net.test_client import says, server
from trt_llm_pipeline.config.source import read
from trt_llm_pipeline.delivery import collect
from trt_llm_pipeline.errors import ArtifactError, ConfigError, ModelSourceError, ModelUnavailable
from trt_llm_pipeline.inspection import inspect
from trt_llm_pipeline.model_source import ModelRequest, fetch, peek_config, plan
from trt_llm_pipeline.net.addresses import ALLOW_PRIVATE, Reach
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

REFUSED = "the service connects to public ones only"


@pytest.fixture(scope="module")
def house(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> House:
    """As the image is: nothing is allowed that nobody has asked for."""
    return House(hub, tmp_path_factory.mktemp("house"), {ALLOW_PRIVATE: ""})


@pytest.fixture(scope="module")
def cog(house: House) -> Iterator[CogServer]:
    with house.server() as started:
        yield started


def test_the_hub_that_the_operator_names_may_be_inside(house: House, cog: CogServer) -> None:
    assert cog.predict(config=house.config())["status"] == "succeeded"


def test_a_model_from_a_tar_on_loopback_is_refused(house: House, cog: CogServer) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("config.json"))
    url = house.hub.add_file("inside.tar", packed.getvalue())
    asked = len(house.hub.requests)
    text = Path(house.config(model_tar_url=url)).read_text().replace(MODEL_ID, "somebody/inside")
    prediction = cog.predict(config=house.text(text))
    assert prediction["status"] == "failed"
    assert f"127.0.0.1 leads to a loopback address, and {REFUSED}" in prediction["error"]
    assert f"set {ALLOW_PRIVATE}=1" in prediction["error"]
    assert len(house.hub.requests) == asked


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:{port}/x", "https://169.254.169.254/x", "https://[::1]:{port}/x"]
)
def test_a_destination_inside_is_refused_before_the_build(house: House, cog: CogServer, place: str) -> None:
    with server(says("HTTP/1.1 200 OK\nContent-Length: 0\n\n")) as (url, heads):
        place = place.format(port=url.rpartition(":")[2])
        prediction = cog.predict(config=house.config(), destination=place)
        assert prediction["status"] == "failed"
        assert REFUSED in prediction["error"]
        assert "model " not in prediction["logs"]  # nothing was downloaded for it
        assert heads == []


def redirecting_hub(to: str) -> str:
    return f"HTTP/1.1 302 Found\nLocation: {to}\nContent-Length: 0\n\n"


@pytest.mark.parametrize("place", ["http://169.254.169.254/latest", "http://localhost:{port}/"])
def test_a_hub_that_redirects_to_others_inside_is_not_followed(tmp_path: Path, place: str) -> None:
    """The operator's own host is trusted by the name that the operator has written, and no other is."""
    with server(says("HTTP/1.1 200 OK\nContent-Length: 2\n\n{}")) as (inside, inside_heads):
        place = place.format(port=inside.rpartition(":")[2])
        with server(says(redirecting_hub(place))) as (hub, heads):
            request, env = ModelRequest("owner/model"), {"HF_ENDPOINT": hub}
            for ask in (
                lambda: plan(request, tmp_path, token="hf_s3cret", env=env),
                lambda: fetch(request, tmp_path, token="hf_s3cret", log=[].append, env=env),
                lambda: peek_config(request, tmp_path, token="hf_s3cret", env=env),
            ):
                with pytest.raises(ModelUnavailable, match=REFUSED):
                    ask()
            assert len(heads) == 3
        assert inside_heads == []


class StoredElsewhere(HubServer):
    """Keeps large files at another host's, as the public Hub does."""

    @property
    def storage_url(self) -> str:
        return super().storage_url.replace("127.0.0.1", "localhost")


def test_a_file_that_the_hub_keeps_with_others_inside_is_not_fetched(tmp_path: Path) -> None:
    with StoredElsewhere() as hub:
        hub.add_repository("owner/model", {"config.json": b"{}", "model.safetensors": b"weights"})
        request, env = ModelRequest("owner/model"), {"HF_ENDPOINT": hub.url}
        with pytest.raises(ModelSourceError, match=REFUSED):
            fetch(request, tmp_path, token=None, log=[].append, env=env)
        assert not [request for request in hub.requests if request.path.startswith("/storage")]
        fetch(request, tmp_path, token=None, log=[].append, env={**env, ALLOW_PRIVATE: "1"})


@pytest.mark.parametrize(("setting", "allowed"), [(None, True), ("1", True), ("0", False)])
def test_the_command_line_is_for_a_machine_with_one_owner(setting: str | None, allowed: bool) -> None:
    env = {name: value for name, value in os.environ.items() if name != ALLOW_PRIVATE}
    if setting is not None:
        env[ALLOW_PRIVATE] = setting
    with server(says("HTTP/1.1 200 OK\nContent-Length: 4\n\na: 1")) as (url, heads):
        command = [sys.executable, "-m", "trt_llm_pipeline.cli", "validate", f"{url}/c.yaml"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (len(heads) == 1) == allowed
        assert (REFUSED in done.stderr) != allowed
        assert ("a: is not a known key" in done.stderr) == allowed


def test_configs_and_archives_are_not_read_from_inside() -> None:
    with (
        server(says("HTTP/1.1 200 OK\nContent-Length: 4\n\na: 1")) as (inside, inside_heads),
        server(says(redirecting_hub(inside))) as (url, heads),
    ):
        with pytest.raises(ConfigError, match=REFUSED):
            read(f"{url}/c.yaml", Reach())
        with pytest.raises(ArtifactError, match=REFUSED), collect.opened(f"{url}/a.tar", Reach()):
            pass
        with pytest.raises(ArtifactError, match=REFUSED):
            collect.read_statement(f"{url}/a.tar", Reach())
        with pytest.raises(ArtifactError, match=REFUSED):
            inspect(f"{url}/a.tar")
        assert heads == inside_heads == []
