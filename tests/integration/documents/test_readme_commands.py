"""Every command of the README, and of the pages that continue it, run as it stands there.

But for what needs Docker, a GPU, an account or a large download, and says so.

Ports are replaced by free ones, and the Hub by one on loopback. What would run this suite again is run as
far as collecting the tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.dockerfile import tracked_files
from tests.integration.house import wait_for
from tests.readme import ROOT, Block, blocks
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import free_port
from trt_llm_pipeline.testing.webhooks import WebhookReceiver

PAGES = [ROOT / "README.md", ROOT / "docs" / "server.md", ROOT / "docs" / "container.md"]
BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
RUNNABLE = [block for block in SHELL if block.needs is None]

WHERE = attrgetter("where")

SERVERS = ("http.server", "cog.server.http", "script/server", "testing.hub")
SUITE = ("script/test", "script/lint")
SLOW = ("script/demo",)
WORDS = {"configs": "http.server 8", "hub": "testing.hub"}
PORTS = {"5000": "cog", "8002": "hub", "8003": "configs", "8004": "webhook"}


def kind(block: Block) -> str:
    """How a block that can be run is run: as a server, a part of this suite, a request or a command."""
    if any(name in block.text for name in SERVERS) and "curl" not in block.text:
        return "server"
    if block.first.split()[0] in SUITE or "pytest" in block.text:
        return "suite"
    if block.first.split()[0] in SLOW:
        return "slow"
    return "request" if "curl" in block.text or " submit " in block.text else "command"


def of(wanted: str) -> list[Block]:
    return [block for block in RUNNABLE if kind(block) == wanted]


FLEET = [block for block in of("command") if "fleet run" in block.text]


def one(text: str) -> Block:
    """The first block that can be run and has `text` in it."""
    return next(block for block in RUNNABLE if text in block.text)


class Machine:
    """A clone on a machine that has been set up, and the shell of somebody who follows the README."""

    def __init__(self, clone: Path, hub: str) -> None:
        self.clone = clone
        self.ports: dict[str, int] = {}
        drop = ("TRTLLM_DIR", "TRTLLM_PYTHON", "TRT_LLM_WORKSPACE", "VIRTUAL_ENV", "PYTHONPATH")
        self.env = {name: value for name, value in os.environ.items() if name not in drop}
        # A reader's shell stays activated from one block to the next.
        path = f"{clone}/.venv/bin{os.pathsep}{os.environ['PATH']}"
        self.env |= {"HF_ENDPOINT": hub, "PATH": path}
        for name in PORTS.values():
            self.new_port(name)

    def new_port(self, name: str) -> int:
        """Another free port for a server that is about to start."""
        self.ports[name] = free_port()
        if name == "cog":
            self.env["PORT"] = str(self.ports[name])
        return self.ports[name]

    def shell(self, block: Block, more: str = "") -> list[str]:
        """The argv that runs a block, with its ports replaced."""
        text = re.sub(
            r"(localhost:|--port |http\.server )(\d{4})\b",
            lambda match: match[1] + str(self.ports[PORTS[match[2]]]),
            block.text.rstrip("\n"),
        )
        return ["bash", "-euo", "pipefail", "-c", text + more]

    def run(self, block: Block, more: str = "") -> str:
        """Runs a block; what it printed. Its exit code is 0, or what a comment in it says."""
        says = re.search(r"^# Exits with code (\d+)", block.text, re.MULTILINE)
        done = subprocess.run(
            self.shell(block, more), cwd=self.clone, env=self.env, capture_output=True, text=True, timeout=240
        )
        code = int(says[1]) if says else 0
        assert done.returncode == code, f"{block.where}\n{block.text}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Machine:
    """A clone in a scratch directory, with this environment as its .venv."""
    clone = tmp_path_factory.mktemp("clone")
    for name in tracked_files("--others"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    environment = clone / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = next(environment.glob("lib/python3*/site-packages"))
    (site / "clone.pth").write_text(f"{clone}\n{sysconfig.get_path('purelib')}\n")
    installed = Path(sys.executable).parent / "trt-llm-pipeline"
    _, _, program = installed.read_text().partition("\n")
    command = environment / "bin" / installed.name
    command.write_text(f"#!{environment}/bin/python\n{program}")
    command.chmod(0o755)
    # It is set up already: this suite runs in it.
    (clone / "script" / "setup").write_text("#!/bin/sh\n")
    return Machine(clone, hub.url)


@pytest.fixture(scope="class")
def both(machine: Machine) -> Iterator[Machine]:
    """The machine with both servers running."""
    configs = Started(machine, one("http.server"))
    cog = Started(machine, one("script/server"))
    with configs, cog:
        wait_for(lambda: health(cog.port) == "READY", "the server is READY")
        yield machine


class TestBlocks:
    """The pages' own bookkeeping."""

    def test_what_needs_docker_a_gpu_or_the_network_says_so(self) -> None:
        for block in RUNNABLE:
            for word in ("docker", "make -C", "apt-get", "git lfs", "cog build", "submodule", "REPLICATE"):
                assert word not in block.text, f"{block.where} needs a '# Needs ...' line"

    def test_what_says_that_it_needs_something_does(self) -> None:
        tells = r"git clone|docker|make -C|apt-get|git checkout|cog build|REPLICATE|script/bench"
        tells += r"|TRTLLM_DIR=\$HOME|llama-2"
        for block in SHELL:
            if block.needs is not None:
                assert re.search(tells, block.text), f"{block.where} could be run"

    def test_every_kind_of_block_is_there(self) -> None:
        assert {kind(block) for block in RUNNABLE} == {"server", "suite", "slow", "request", "command"}
        assert len(RUNNABLE) > 12

    @pytest.mark.parametrize("block", SHELL, ids=WHERE)
    def test_is_valid_shell(self, block: Block) -> None:
        # <image id> stands for what the reader puts there.
        text = re.sub(r"<[\w -]+>", "placeholder", block.text)
        done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_python_blocks_compile(self) -> None:
        found = [block for block in BLOCKS if block.language == "python"]
        assert found
        for block in found:
            compile(block.text, block.where, "exec")


class TestCommands:
    """The command line, in the order of the README."""

    def test_quick_start_ends_with_text_from_the_engine(self, machine: Machine) -> None:
        printed = [machine.run(block) for block in of("command") if block not in FLEET]
        assert "config.yaml: OK for cpu toolchain (build.py of " in "".join(printed)
        assert "a model compiled for the machine that will run it." in "".join(printed)
        assert "wrote serving/config.yaml\nwrote serving/fill_template_values\n" in "".join(printed)
        assert (machine.clone / "workspace" / "engine.tar.gz").is_file()

    @pytest.mark.slow
    def test_fleet_delivers_every_cell(self, machine: Machine) -> None:
        (block,) = FLEET
        assert machine.run(block).count("delivered") > 1

    @pytest.mark.slow
    @pytest.mark.parametrize("block", of("suite"), ids=WHERE)
    def test_suite_accepts_its_arguments(self, machine: Machine, block: Block) -> None:
        for line in block.text.strip().split("\n"):
            command = replace(block, text=line)
            if line.startswith("script/lint"):
                assert os.access(machine.clone / line, os.X_OK)
                continue
            where = "" if "tests/" in line else " tests/integration/documents/test_submodules.py"
            printed = machine.run(command, f" --collect-only -q{where}")
            assert re.search(r"\d+ tests? collected|\d+/\d+ tests collected", printed), printed

    @pytest.mark.slow
    @pytest.mark.parametrize("block", of("slow"), ids=WHERE)
    def test_demo_writes_its_sentence(self, machine: Machine, block: Block) -> None:
        assert "as it should" in machine.run(block)


class TestServers:
    """The servers, each started as the README says, and the requests to them."""

    @pytest.mark.parametrize("block", of("server"), ids=WHERE)
    def test_answers_on_its_port(self, machine: Machine, block: Block) -> None:
        with Started(machine, block) as server:
            assert fetch(f"http://127.0.0.1:{server.port}/")[0] in (200, 404)


class TestRequests:
    """Every curl, against both servers."""

    @pytest.mark.parametrize("block", of("request"), ids=WHERE)
    def test_is_answered(self, both: Machine, block: Block) -> None:
        # What was cancelled ends a moment after the answer.
        wait_for(lambda: health(both.ports["cog"]) == "READY", "the server is READY")
        if "webhook" in block.text:
            self.webhooks_arrive(both, block)
            return
        if "cancel" in block.text:
            both.run(block)
            return
        if " submit " in block.text:
            both.run(block)
            assert tarfile.is_tarfile(both.clone / "submitted.tar.gz")
            return
        if "received.tar.gz" in block.text:
            assert "manifest.json" in both.run(block).splitlines()
            return
        answer: dict[str, Any] = json.loads(both.run(block))
        assert answer["status"] in ("READY", "succeeded"), answer.get("error")
        if answer["status"] == "succeeded":
            assert answer["output"].startswith("data:")

    def webhooks_arrive(self, machine: Machine, block: Block) -> None:
        with WebhookReceiver() as receiver:
            machine.ports["webhook"] = int(receiver.url.rstrip("/").rpartition(":")[2].split("/")[0])
            machine.run(block)
            seen = []
            while not seen or seen[-1]["status"] not in ("succeeded", "failed", "canceled"):
                seen.append(receiver.events.get(timeout=120))
        assert seen[-1]["status"] == "succeeded", seen[-1]
        assert seen[0]["status"] in ("starting", "processing")
        assert "toolchain cpu" in seen[-1]["logs"]
        assert seen[-1]["id"] == "my-build"


class Started:
    """A block that is a server, running."""

    def __init__(self, machine: Machine, block: Block) -> None:
        self._machine = machine
        self._block = block
        name = next((name for name, word in WORDS.items() if word in block.text), "cog")
        self.port = machine.new_port(name)

    def __enter__(self) -> Started:
        self._process = subprocess.Popen(
            self._machine.shell(self._block),
            cwd=self._machine.clone,
            env=self._machine.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_for(lambda: fetch(f"http://127.0.0.1:{self.port}/")[0] > 0, "the server answers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        family = [psutil.Process(self._process.pid)]
        family += family[0].children(recursive=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in family:
                if process.is_running():
                    process.send_signal(number)
            _, family = psutil.wait_procs(family, timeout=5)
        self._process.wait()


def fetch(url: str) -> tuple[int, bytes]:
    """A GET: status and body; status 0 where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def health(port: int) -> str:
    status, body = fetch(f"http://127.0.0.1:{port}/health-check")
    return str(json.loads(body)["status"]) if status == 200 else ""
