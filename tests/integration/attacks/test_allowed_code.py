"""Code of a stranger's that was allowed, in a step's sandbox: each way in, and each deed that it tries there.

What such a repository could do without the sandbox is shown once, so that the deeds are real ones.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.integration.attacks import hostile_models
from tests.integration.attacks.test_models import MODEL_ID, PICKLES, WITH_CODE, Victim, each
from tests.integration.house import wait_for
from trt_llm_pipeline.errors import TrtLlmPipelineError
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder

TOKEN = "hf_MarkedTokenThatNoCodeMaySee0123456789"
DEEDS = Path(__file__).with_name("deeds.py")
#: Finds the deeds in the model's own folder: pickles take no long statements.
STATEMENT = "exec(open(__import__('glob').glob('models/*/evil/deeds.txt')[0]).read(), {'__name__': 'deeds'})"


@dataclass
class Prey:
    """A service's machine: somebody's files, a process with the token, a server; `mark` marks survivors."""

    victim: Victim
    service: psutil.Process
    server: socket.socket
    mark: str

    def build(self, way: str, **env: str) -> dict[str, bool]:
        """Builds the repository with that way in; which deeds were done."""
        victim = self.victim
        facts = {
            "outside": str(victim.folder / "outside"),
            "workspace": str(victim.workspace),
            "service": self.service.pid,
            "port": self.server.getsockname()[1],
            "mark": self.mark,
        }
        files = {
            "config.json": b'{"model_type": "gpt2"}',
            "pytorch_model.bin": hostile_models.good_weights(),
            "deeds.txt": DEEDS.read_text().replace("FACTS = {}", f"FACTS = {facts}").encode(),
        }
        if way in WITH_CODE:
            files |= hostile_models.with_code(STATEMENT)[way]
        else:
            files["pytorch_model.bin"] = hostile_models.pickles(STATEMENT)[way]
        victim.hub.add_repository(MODEL_ID, files)
        log = Recorder()
        try:
            log.lines += victim.build("allow_repository_code: true", HF_TOKEN=TOKEN, **env)[1]
        except TrtLlmPipelineError as error:
            log.lines += [str(error)]
        told = "\n".join(log.lines)
        found = {line.split("DEED ")[1] for line in told.splitlines() if "DEED " in line}
        assert TOKEN not in told
        return {deed.split()[0]: deed.endswith(" done") for deed in found} or pytest.fail(told)

    def survivors(self) -> list[int]:
        return [p.pid for p in psutil.process_iter(["cmdline"]) if self.mark in (p.info["cmdline"] or ())]


@pytest.fixture(scope="module")
def one_hub() -> Iterator[HubServer]:
    with HubServer(tokens=[TOKEN]) as hub:
        yield hub


@pytest.fixture
def prey(one_hub: HubServer, tmp_path: Path) -> Iterator[Prey]:
    victim = Victim(one_hub, tmp_path)
    (tmp_path / "outside").mkdir()
    (victim.workspace / "models" / "victim").mkdir(parents=True)
    (victim.workspace / "models" / "victim" / "secret").write_text("secret")
    (victim.workspace / "notes.txt").write_text("mine")
    code = "import time; print('ready', flush=True); time.sleep(600)"
    env = {**os.environ, "HF_TOKEN": TOKEN}
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as service,
    ):
        assert service.stdout is not None
        service.stdout.readline()
        yield Prey(victim, psutil.Process(service.pid), server, f"survivor-{tmp_path.name}-{os.getpid()}")
        service.kill()


def test_without_the_sandbox_allowed_code_does_what_it_likes(prey: Prey) -> None:
    done = prey.build("reduce", TRT_LLM_SANDBOX="off")
    # A script is given no token, with the sandbox or without, and the supervisor ends what would live on.
    assert {name for name, was_done in done.items() if not was_done} == {"read_the_token"}
    assert (prey.victim.folder / "outside" / "planted").exists()
    assert prey.survivors() == []


@pytest.mark.parametrize("way", each([*WITH_CODE, *PICKLES]))
def test_in_the_sandbox_allowed_code_reaches_nothing(prey: Prey, way: str) -> None:
    workspace = prey.victim.workspace
    done = prey.build(way, TRT_LLM_SANDBOX="require")
    assert {name for name, was_done in done.items() if was_done} <= {"live_on"}
    wait_for(lambda: not prey.survivors(), "nothing lives on")
    assert prey.service.is_running()
    assert list((prey.victim.folder / "outside").iterdir()) == []
    assert (workspace / "notes.txt").read_text() == "mine"
    assert [path.name for path in (workspace / "models" / "victim").iterdir()] == ["secret"]
    assert not (workspace / "models" / MODEL_ID / "planted").exists()
