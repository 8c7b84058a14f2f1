"""A token, wherever it comes from, shows nowhere: all that a build leaves behind is searched for it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import House, members
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT
from trt_llm_pipeline.testing.webhooks import WebhookReceiver

TOKEN = "hf_MarkedTokenThatNobodyMaySee0123456789"
KEY = "MarkedKeyThatNobodyMaySee+0123456789/abcd"
REFUSED = "hf_RefusedTokenThatNobodyMaySee987654321"
WAYS = ("input", *(pytest.param(way, marks=pytest.mark.slow) for way in ("config", "environment")))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A Hub whose model only the token opens."""
    root = tmp_path_factory.mktemp("gated")
    models.make_demo_gpt2(root / "model")
    with HubServer(tokens=[TOKEN]) as hub:
        hub.add_repository(MODEL_ID, root / "model", gated=True, granted=[TOKEN])
        yield hub


class Place:
    """A server's whole surroundings, so that they can be searched."""

    def __init__(self, hub: HubServer, folder: Path, way: str) -> None:
        self.way = way
        self.hub = hub
        for name in ("home", "tmp", "own"):
            (folder / name).mkdir()
        extra = {"HF_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        extra |= {"HF_TOKEN": TOKEN} if way == "environment" else {}
        extra["AWS_SECRET_ACCESS_KEY"] = KEY
        extra["TRT_LLM_STEP_ENV"] = "RELIABILITY_* AWS_*"  # so that there is something to hide
        self.house = House(hub, folder, extra)
        self.seen_in_command_lines = False

    def inputs(self, script: str, args: str = "", token: str = TOKEN) -> dict[str, str]:
        """The prediction's inputs. The config is served by the Hub, so that Cog fetches it."""
        keys = {"hf_token": token} if self.way == "config" else {}
        written = Path(self.house.config(script, args, cache="false", allowed="token", **keys))
        text = written.read_bytes()
        written.unlink()
        address = self.hub.add_file(f"{self.house.mark}.yaml", text)
        return {"config": address, **({"hf_token": token} if self.way == "input" else {})}

    @contextmanager
    def watched(self, token: str = TOKEN) -> Iterator[None]:
        """Looks at every process's command line while it is entered."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.03):
                for entry in Path("/proc").iterdir():
                    if not entry.name.isdigit() or int(entry.name) == os.getpid():
                        continue
                    try:
                        line = (entry / "cmdline").read_bytes()
                    except OSError:
                        continue
                    self.seen_in_command_lines |= token.encode() in line

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def places_with(self, token: str) -> list[str]:
        """Every file below the folder that holds the token, compressed or not."""
        found = []
        for path in self.house.folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            if token.encode() in data:
                found.append(str(path))
        return found


@pytest.mark.parametrize("way", WAYS)
def test_token_shows_nowhere(gated: HubServer, tmp_path: Path, way: str) -> None:
    place = Place(gated, tmp_path, way)
    with place.house.server() as cog, WebhookReceiver() as webhooks, place.watched():
        good = cog.predict(**place.inputs("tells_secrets.py"))
        failed = cog.predict(**place.inputs("tells_secrets.py", "fail:"))
        named = cog.predict(**place.inputs("tells_secrets.py", "name:"))
        body = {"input": place.inputs("tells_secrets.py", "quiet:"), "webhook": webhooks.url}
        cog.wait_until_ready()
        _, answer = cog.request("POST", "/predictions", body, headers={"Prefer": "respond-async"})
        events = [answer]
        while events[-1]["status"] not in ("succeeded", "failed", "canceled"):
            events.append(webhooks.events.get(timeout=30))
        printed = cog.output()
    assert good["status"] == "succeeded", good["error"]
    assert "[secret]" in good["logs"]
    assert failed["status"] == "failed"
    assert "no access with [secret]" in failed["error"]
    assert named["status"] == "failed"
    assert "in engine/[secret]" in named["error"]
    assert events[-1]["status"] == "succeeded", events[-1]["error"]

    for name, data in members(good).items():
        assert TOKEN.encode() not in data, name
    assert TOKEN not in json.dumps(good)
    assert TOKEN not in json.dumps(failed)
    assert TOKEN not in json.dumps(named)
    for event in events:
        assert TOKEN not in json.dumps(event)
    assert TOKEN not in printed
    assert KEY not in printed
    assert not place.seen_in_command_lines
    assert place.places_with(TOKEN) == []
    assert place.places_with(KEY) == []


@pytest.mark.parametrize("way", ["input", "config"])
def test_refused_token_shows_nowhere(gated: HubServer, tmp_path: Path, way: str) -> None:
    place = Place(gated, tmp_path, way)
    with place.house.server() as cog, place.watched(REFUSED):
        prediction = cog.predict(**place.inputs("behaves.py", token=REFUSED))
        printed = cog.output()
    assert prediction["status"] == "failed"
    assert "token" in prediction["error"]
    assert REFUSED not in json.dumps(prediction)
    assert REFUSED not in printed
    assert not place.seen_in_command_lines
    assert place.places_with(REFUSED) == []


def test_token_of_the_environment_at_the_command_line(gated: HubServer, tmp_path: Path) -> None:
    place = Place(gated, tmp_path, "environment")
    config = place.house.config("tells_secrets.py", allowed="token")
    command = [
        sys.executable,
        "-c",
        "from trt_llm_pipeline.cli import main; main()",
        "build",
        config,
        "--json",
    ]
    with place.watched():
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env={**os.environ, **place.house.env}, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert "[secret]" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not place.seen_in_command_lines
    assert place.places_with(TOKEN) == []
    with tarfile.open(place.house.workspace / "engine.tar.gz") as tar:
        assert "manifest.json" in tar.getnames()


@pytest.mark.parametrize(
    "user",
    [
        "bob:Sup3rSecretPw",
        pytest.param("t0kenThatStandsAlone", marks=pytest.mark.slow),
        pytest.param("bob:word", marks=pytest.mark.slow),
    ],
)
def test_what_is_before_the_host_of_the_hub_is_written_nowhere(
    hub: HubServer, tmp_path: Path, user: str
) -> None:
    """Not into the record of the model either, which a step may read."""
    secret = user.rpartition(":")[2]
    place = Place(hub, tmp_path, "input")
    endpoint = hub.url.replace("://", f"://{user}@")
    env = {**os.environ, **place.house.env, "HF_ENDPOINT": endpoint}
    command = [sys.executable, "-m", "trt_llm_pipeline.cli", "build", place.house.config(check="off")]
    for _ in range(2):  # the second finds the model there
        done = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"{secret}@" not in done.stdout + done.stderr
    assert place.places_with(f"{secret}@") == []
    (record,) = place.house.workspace.rglob("snapshot.json")
    assert json.loads(record.read_text())["origin"] == hub.url


MATRIX = """
config: ./{config}
matrix: {{seed: [1, 2]}}
destination: file://{folder}/engines/${{matrix.seed}}/engine.tar.gz
"""


@pytest.mark.parametrize(
    ("command", "token"),
    [
        ("build", b"hf_odd\xffShapeless"),
        *(
            pytest.param(command, token, marks=pytest.mark.slow)
            for command in ("build", "plan", "validate", "cache lookup", "fleet plan")
            for token in (
                b"hf_odd\nShapeless",
                b"hf_odd\tShapeless",
                "hf_odd\u043dShapeless".encode(),
                b"Shapeless",
            )
        ),
    ],
)
def test_a_token_of_odd_shape_at_the_command_line(
    gated: HubServer, tmp_path: Path, command: str, token: bytes
) -> None:
    house = House(gated, tmp_path)
    argument = Path(house.config())
    if command.startswith("fleet"):
        matrix = tmp_path / "matrix.yaml"
        matrix.write_text(MATRIX.format(config=argument.name, folder=tmp_path))
        argument = matrix
    env = {
        **os.environb,
        **{os.fsencode(k): os.fsencode(v) for k, v in house.env.items()},
        b"HF_TOKEN": token,
    }
    argv = [sys.executable, "-m", "trt_llm_pipeline.cli", *command.split(), str(argument)]
    done = subprocess.run(argv, env=env, capture_output=True, check=False, timeout=120)
    told = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 2, told
    assert "error: HF_TOKEN " in told
    assert "so it cannot be a token" in told
    assert "Traceback" not in told
    assert "Shapeless" not in told
