"""A download that is killed with -9 at a random moment, and then done again."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from trt_llm_pipeline.model_source import ModelRequest, fetch
from trt_llm_pipeline.model_source.record import record_path
from trt_llm_pipeline.testing.hub import HubServer, Link

NAME = "model.safetensors"
CONNECTIONS = 16
SCRIPT = (
    "import sys, pathlib; from trt_llm_pipeline.model_source import *; "
    "fetch(ModelRequest('owner/model'), pathlib.Path(sys.argv[1]), token=None, log=print, "
    "progress=lambda done, total: print('done', done, flush=True))"
)


def make_model(folder: Path, megabytes: int) -> str:
    """A repository with one file of random bytes; the file's SHA-256."""
    folder.mkdir()
    digest = hashlib.sha256()
    with (folder / NAME).open("wb") as file:
        for _ in range(megabytes):
            block = os.urandom(1_000_000)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def requested(hub: HubServer, size: int) -> list[tuple[int, int]]:
    """The ranges that the server was asked for, by its log."""
    found = []
    for request in hub.requests:
        if request.path.startswith("/storage/"):
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "bytes=0-"))
            assert match
            found.append((int(match[1]), int(match[2]) + 1 if match[2] else size))
    return found


def kill_and_repeat(hub: HubServer, models: Path, size: int, moment: float) -> str:
    """Kills a download after a share of its bytes, repeats it, and returns the file's SHA-256."""
    hub.clear_requests()
    command = [sys.executable, "-c", SCRIPT, str(models)]
    env = {**os.environ, "HF_ENDPOINT": hub.url}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("done") and int(line.split()[1]) >= moment * size:
                break
        process.kill()
    first = requested(hub, size)
    hub.clear_requests()
    books = record_path(models / "owner/model").parent
    (books / ".snapshot.json.0123456789ab.partial").touch()  # as a kill in the midst of writing it leaves
    snapshot = fetch(
        ModelRequest("owner/model"), models, token=None, log=[].append, env={"HF_ENDPOINT": hub.url}
    )
    second = requested(hub, size)
    again = [one for one in first if any(one[0] < other[1] and other[0] < one[1] for other in second)]
    assert len(again) <= CONNECTIONS, (moment, first, second)
    assert not list(books.glob(".snapshot.json*"))
    assert snapshot.downloaded_bytes <= (1 - moment) * size + CONNECTIONS * (1 << 20)
    with (snapshot.path / NAME).open("rb") as file:
        return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("megabytes", "kills", "rate"),
    [
        pytest.param(64, 3, 3e6, id="64 MB"),
        pytest.param(1000, 50, 60e6, id="1 GB", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_nothing_that_was_finished_is_fetched_twice(
    tmp_path: Path, megabytes: int, kills: int, rate: float
) -> None:
    digest = make_model(tmp_path / "repository", megabytes)
    chance = random.Random(megabytes)
    with HubServer(link=Link(bytes_per_second=rate)) as hub:
        hub.add_repository("owner/model", tmp_path / "repository")
        for number in range(kills):
            models = tmp_path / f"models-{number}"
            found = kill_and_repeat(hub, models, megabytes * 1_000_000, chance.uniform(0, 0.95))
            assert found == digest
            (models / "owner/model" / NAME).unlink()
