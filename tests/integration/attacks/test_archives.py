"""Scripts that try to have the service read, write or remove something outside the workspace.

Without the sandbox, in which a step cannot put anything where these traps go: the service must not step into
them even where it is off.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.house import House, members
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

SECRET = b"the secret that nobody but its owner may have\n"


class Outside:
    """A folder that belongs to somebody else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "folder").mkdir(parents=True)
        (folder / "logs").mkdir()
        (folder / "sshleifer" / "tiny-gpt2").mkdir(parents=True)
        for name in ("secret.txt", "examples", "build.json", "engine.tar.gz", "made.json", "folder/kept"):
            (folder / name).write_bytes(SECRET)
        for name in (
            "tokenizer.json",
            "rank0.engine",
            "logs/build.log",
            "sshleifer/tiny-gpt2/tokenizer.json",
        ):
            (folder / name).write_bytes(SECRET)
        for name in (".half.partial", "half.partial", "x.part"):
            (folder / name).write_bytes(SECRET)
        config = {"pretrained_config": {"note": SECRET.decode().strip()}}
        (folder / "config.json").write_text(json.dumps(config))
        self.before = self.now()

    def now(self) -> dict[str, tuple[int, bytes]]:
        """Every file and folder with the time at which it was changed."""
        return {
            str(path.relative_to(self.folder)): (
                path.lstat().st_mtime_ns,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in [self.folder, *self.folder.rglob("*")]
        }


@pytest.fixture(scope="module")
def house(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> House:
    folder = tmp_path_factory.mktemp("attacks")
    return House(hub, folder, {"RELIABILITY_OUTSIDE": str(folder / "outside"), "TRT_LLM_SANDBOX": "off"})


@pytest.fixture
def outside(house: House) -> Outside:
    folder = house.folder / "outside"
    shutil.rmtree(folder, ignore_errors=True)
    return Outside(folder)


@pytest.fixture(autouse=True)
def _fresh_workspace(house: House) -> None:
    """Traps of one test are none of another's; links are removed, not followed."""
    for path in house.workspace.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in house.workspace.glob(".trt*"):
        path.unlink() if path.is_symlink() else shutil.rmtree(path)


EACH = [
    "file", "folder", "engine", "config", "pipe", "output", "parent",
    "archive", "newest", "record", "report", "log", "logs", "build", "builds",
    "state", "ledger", "heartbeat", "holder", "lock", "hashes", "import", "cache", "datasets",
    "tokenizer", "model", "models", "weights",
]  # fmt: skip
PLACES = ["first", "last", "failing"]  # in the first of two steps, in the last, in a step that fails

#: Which traps are set together, and what the first and the second build after that must end with.
TELLING = {
    ("last", "file"): "extra.txt is a symbolic link that leads out of the directory",
    ("last", "pipe"): "pipe.engine is a FIFO",
    ("last", "output"): "made a link of its output directory",
    ("last", "archive newest record report ledger heartbeat holder hashes parent"): "",
    ("failing", "build"): "has changed the service's own directories",
    ("last", "state"): "has changed the service's own directories",
    ("failing", "model"): "has changed the service's own directories",
    ("first", "import cache datasets"): "has changed the service's own directories",
    ("first", "logs"): "has changed the service's own directories",
    ("first", "log tokenizer weights lock"): "",
}
#: The quick half's: in the output, in its place, harmless, and in the service's own directories.
QUICK = [("last", "file"), ("last", "output"), ("first", "log tokenizer weights lock"), ("failing", "build")]


class TestTrapsOfAScript:
    """A step puts links where the service reads, writes and removes."""

    @pytest.mark.parametrize(
        ("place", "traps"),
        [pytest.param(*both, marks=() if both in QUICK else pytest.mark.slow) for both in TELLING],
    )
    def test_trap_is_named_or_harmless(
        self, house: House, server: CogServer, outside: Outside, place: str, traps: str
    ) -> None:
        prediction = set_and_step_in(house, server, outside, place, traps)
        expected = TELLING[place, traps]
        if expected:
            assert prediction["status"] == "failed"
            assert expected in prediction["error"]
            assert ("exited with code 1" in prediction["error"]) == (place == "failing")
        else:
            assert prediction["status"] == "succeeded", prediction["error"]

    @pytest.mark.slow
    @pytest.mark.parametrize("trap", EACH)
    @pytest.mark.parametrize("place", PLACES)
    def test_each_trap_in_each_place(
        self, house: House, server: CogServer, outside: Outside, trap: str, place: str
    ) -> None:
        set_and_step_in(house, server, outside, place, trap)


def set_and_step_in(
    house: House, server: CogServer, outside: Outside, place: str, traps: str
) -> dict[str, Any]:
    """Builds with the traps, then without; the first prediction. Either way nothing outside is touched."""
    listed = f"traps: [{', '.join(traps.split())}]" + ("\nlinger: 2.5" if traps == "state" else "")
    if place == "first":
        text = Path(house.config(first="plants.py")).read_text()
        option = "    output_dir: ./checkpoint"
        config = house.text(text.replace(option, f"{option}\n    traps: [{', '.join(traps.split())}]", 1))
    else:
        config = house.config("plants.py", listed + ("\nfail:" if place == "failing" else ""))
    first = server.predict(config=config)
    second = server.predict(config=house.config(first="behaves.py"))
    assert outside.now() == outside.before
    for prediction in (first, second):
        assert "Traceback" not in (prediction.get("error") or "")
        assert "[Errno" not in (prediction.get("error") or "")
        assert SECRET.decode().strip() not in prediction["logs"]
        if prediction["status"] == "succeeded":
            for name, data in members(prediction).items():
                assert SECRET.strip() not in data, name
    return first
