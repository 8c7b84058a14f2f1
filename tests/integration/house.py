"""A prediction server on the toolchain of faults, and the means to see what is left of it."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import secrets
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import MODEL_ID
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

STORE_SERVER = Path(__file__).with_name("store_server.py")
TOOLCHAIN = Path(__file__).parent / "faults" / "toolchain"
MARK = "RELIABILITY_MARK"
#: What is there at once on an idle machine may take so long on a busy one.
PATIENCE_S = 120.0
_POLL_S = 0.02
_LOOK_S = 0.05


@dataclass
class House:
    """Everything that a server needs to build with the scripts of `toolchain/examples/faults`.

    Attributes:
        hub: where models come from.
        folder: for configs and the workspace.
        extra: more of the server's environment.
        mark: a value of an environment variable that only what this server starts has.
    """

    hub: HubServer
    folder: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def env(self) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.hub.url,
            "TRTLLM_DIR": str(TOOLCHAIN),
            "TRT_LLM_WORKSPACE": str(self.workspace),
            "TRT_LLM_KEEP_BUILDS": "1000",
            "TRT_LLM_STEP_ENV": "RELIABILITY_*",
            MARK: self.mark,
            **self.extra,
        }

    def server(self) -> CogServer:
        """A prediction server; to be entered as a context manager."""
        return CogServer(self.env)

    def config(
        self,
        script: str = "behaves.py",
        args: str = "",
        *,
        first: str = "",
        timeout: str = "",
        allowed: str = "",
        **keys: str,
    ) -> str:
        """Writes a config; its path.

        Args:
            script: of the build step.
            args: more options, as YAML lines without indentation.
            first: script of a step before it.
            timeout: of the build step.
            allowed: keys that permit the build step something, such as "token".
            keys: more keys of the config.
        """
        lines = [f"model_id: {MODEL_ID}", "example_name: faults"]
        lines += [f"{key}: {value}" for key, value in keys.items()]
        if first:
            lines += ["convert_to_ft:", f"  script: {first}", "  output_dir: ./checkpoint"]
            lines += ["  args:", "    output_dir: ./checkpoint"]
        lines += ["build:", *([f"  timeout: {timeout}"] if timeout else [])]
        lines += [f"  {key}: true" for key in allowed.split()]
        lines += [f"  script: {script}", "  output_dir: ./engine", "  args:"]
        lines += ["    output_dir: ./engine", *(f"    {line}" for line in args.splitlines())]
        return self.text("\n".join(lines) + "\n")

    def text(self, text: str) -> str:
        """Writes a config of any text; its path."""
        path = self.folder / f"config-{secrets.token_hex(4)}.yaml"
        path.write_text(text)
        return str(path)

    def alive(self) -> dict[int, str]:
        """Every living process that carries the mark: its command line by its number."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found[process.pid] = " ".join(process.cmdline())
        return found

    def alive_below(self, server: CogServer) -> dict[int, str]:
        """Those of them that are neither the server nor its worker."""
        cog = {server.process.pid, worker_of(server).pid}
        return {pid: line for pid, line in self.alive().items() if pid not in cog}

    def parts_of_models(self, size: int) -> list[Path]:
        """Files of that many bytes and more below `models/`, while a download moves them."""
        found = []
        for path in self.files():
            with suppress(FileNotFoundError):
                if path.is_relative_to(self.workspace / "models") and path.stat().st_size >= size:
                    found.append(path)
        return found

    def archives(self) -> list[Path]:
        """Whatever looks like an archive or a part of one."""
        return [path for path in self.files() if "engine.tar.gz" in path.name]

    def partial_files(self) -> list[Path]:
        """Temporary files and parts of archives."""
        return [path for path in self.files() if path.name.endswith((".tmp", ".part", ".partial"))]

    def files(self) -> list[Path]:
        """Every file of the workspace, also while a step makes and removes directories."""
        return sorted(Path(folder, name) for folder, _, names in os.walk(self.workspace) for name in names)


def worker_of(server: CogServer) -> psutil.Process:
    """The process that runs predict()."""
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


class Watch:
    """How much memory the server and its worker use together, in bytes of their own (PSS).

    Attributes:
        most: the most at any look.
    """

    def __init__(self, server: CogServer) -> None:
        self._processes = [psutil.Process(server.process.pid), worker_of(server)]
        self._first = self.most = self._now()

    @property
    def grown(self) -> int:
        """How much more the most is than what they used at the beginning."""
        return self.most - self._first

    def _now(self) -> int:
        return sum(process.memory_full_info().pss for process in self._processes)

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        done = threading.Event()

        def look() -> None:
            while not done.wait(_LOOK_S):
                with suppress(psutil.Error):
                    self.most = max(self.most, self._now())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()


def wait_for(happens: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """Polls until `happens` returns something true; returns that.

    Raises:
        AssertionError: it did not happen within `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while not (value := happens()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(_POLL_S)
    return value


def start_until(server: CogServer, config: str, line: str, **inputs: Any) -> str:
    """Starts a prediction and waits until it has logged `line`; the prediction's id."""
    prediction_id = f"p{secrets.token_hex(6)}"
    seen = len(server.output())  # the server prints what a prediction logs
    server.start(prediction_id, config=config, **inputs)
    wait_for(lambda: line in server.output()[seen:], f"the log says {line!r}")
    return prediction_id


def members(prediction: Mapping[str, Any]) -> dict[str, bytes]:
    """The files in the archive that a prediction returned."""
    data = base64.b64decode(prediction["output"].partition(",")[2])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def lock_is_free(workspace: Path) -> bool:
    """Whether nobody holds the workspace's lock."""
    descriptor = os.open(workspace / ".trt-llm-pipeline" / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def memory_group(limit: int) -> Iterator[Callable[[int], object]]:
    """A control group whose processes may use `limit` bytes together; yields what adds a process to it.

    Raises:
        OSError: this machine lets nobody make one.
    """
    mount, setting = Path("/sys/fs/cgroup"), "memory.max"
    if not (mount / "cgroup.controllers").exists():
        mount, setting = mount / "memory", "memory.limit_in_bytes"
    group = mount / f"reliability-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        (group / setting).write_text(str(limit))
        yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (mount / "cgroup.procs").write_text(pid)
        group.rmdir()
