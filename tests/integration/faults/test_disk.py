"""Disks that are too small, or that fill while a build runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import House, lock_is_free, wait_for
from trt_llm_pipeline.testing.hub import Fault, HubServer
from trt_llm_pipeline.testing.servers import CogServer

MB = 1 << 20


@contextmanager
def small_disk(at: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `at`. Needs the right to mount, as root has it in most containers."""
    at.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.fixture(scope="module")
def house(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A workspace of 40 MB, of which the model takes three."""
    house = House(hub, tmp_path_factory.mktemp("disk"), {"TRT_LLM_DISK_CHECK": "off"})
    with small_disk(house.workspace, 40 * MB):
        yield house


def free(house: House) -> int:
    return shutil.disk_usage(house.workspace).free


class TestBefore:
    """Room is looked for before anything is downloaded."""

    def test_too_little_room_is_refused_with_both_numbers(self, hub: HubServer, tmp_path: Path) -> None:
        house = House(hub, tmp_path)
        hub.clear_requests()
        with small_disk(house.workspace, 6 * MB), house.server() as cog:
            prediction = cog.predict(config=house.config(first="behaves.py"))
            left = [p for p in (house.workspace / "models").rglob("*") if p.is_file()]
        assert prediction["status"] == "failed"
        numbers = re.search(
            r"has ([\d.]+ MB) free, but the build needs about ([\d.]+ MB)", prediction["error"]
        )
        assert numbers, prediction["error"]
        assert "2.9 MB to download" in prediction["error"]
        assert "TRT_LLM_DISK_CHECK=off" in prediction["error"]
        assert left == []
        assert not [r for r in hub.requests if "/resolve/" in r.path and not r.path.endswith("config.json")]


class TestMidway:
    """The disk fills while the build runs."""

    def test_in_the_download(self, house: House, server: CogServer, hub: HubServer) -> None:
        hub.faults.add(Fault("slow", match=f"/{MODEL_ID}/resolve/*/pytorch_model.bin", after=2_000_000))
        server.start("fills-while-downloading", config=house.config())
        seen = len(server.output())
        wait_for(
            lambda: house.parts_of_models(300_000),
            "the download has begun",
        )
        filler = house.workspace / "somebody-elses-file"
        _fill(filler)
        try:
            wait_for(lambda: "DiskFull" in server.output()[seen:], "the build fails for want of room")
            server.wait_until_ready()
            assert "free): pytorch_model.bin needs" in server.output()[seen:]
            assert "what has been downloaded is kept" in server.output()[seen:]
            assert lock_is_free(house.workspace)
        finally:
            filler.unlink()
        prediction = server.predict(config=house.config())
        assert prediction["status"] == "succeeded", prediction["error"]

    @pytest.mark.parametrize("args", ["talk: 200", "careless:"])
    def test_in_a_step(self, house: House, server: CogServer, args: str) -> None:
        assert server.predict(config=house.config())["status"] == "succeeded"
        before = free(house)
        archive = (house.workspace / "engine.tar.gz").stat().st_ino
        prediction = server.predict(config=house.config("fills_disk.py", args))
        assert prediction["status"] == "failed"
        assert f"the disk of {house.workspace} is full, so the " in prediction["error"]
        assert "that it had written are removed" in prediction["error"]
        assert free(house) > before - MB
        assert (house.workspace / "engine.tar.gz").stat().st_ino == archive
        assert house.partial_files() == []
        assert server.predict(config=house.config())["status"] == "succeeded"

    def test_in_packaging(self, house: House, server: CogServer) -> None:
        assert server.predict(config=house.config())["status"] == "succeeded"
        archives = house.archives()
        inode = (house.workspace / "engine.tar.gz").stat().st_ino
        prediction = server.predict(config=house.config(args=f"size: {22 * MB}"))
        assert prediction["status"] == "failed"
        assert "there is no room for" in prediction["error"]
        assert "DiskFull" in prediction["error"]
        assert house.archives() == archives
        assert (house.workspace / "engine.tar.gz").stat().st_ino == inode
        assert house.partial_files() == []
        assert server.predict(config=house.config())["status"] == "succeeded"


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 << 10))
        except OSError:
            os.fsync(file.fileno())
