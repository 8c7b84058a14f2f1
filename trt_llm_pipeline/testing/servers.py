"""Real servers on loopback, for tests and for the demo: Cog's, and one that serves configs by HTTP.

Each runs as a process of its own, in its own process group, on a free port, and is ended on leaving the
context.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, TypeVar

import psutil

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
_START_S = 60.0
_STOP_S = 5.0


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on, kept for whoever names it.

    A connection that this end has closed first stays in TIME_WAIT, which is 60 s on Linux. For as long the
    kernel gives the port to nobody who asks for any, while a server that names it can listen on it, as
    servers do that set SO_REUSEADDR. Without that, a server that takes seconds to start would find another
    one where its own was to be.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        address: tuple[str, int] = listener.getsockname()
        client.connect(address)
        accepted, _ = listener.accept()
        accepted.close()
        client.recv(1)  # the end of the stream, and only then may the client close
    return address[1]


_Server = TypeVar("_Server", bound="ServerProcess")


class ServerProcess:
    """A server in a process of its own. Use as a context manager."""

    def __init__(self, argv: list[str], port: int, *, cwd: Path, env: Mapping[str, str]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._argv = argv
        self._cwd = cwd
        self._env = dict(env)
        self._log: IO[bytes]

    def __enter__(self: _Server) -> _Server:
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self._argv,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        family = self.family()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            psutil.wait_procs(family, timeout=_STOP_S)
            family = [process for process in family if process.is_running()]
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        self.process.wait()
        self._log.close()

    def family(self) -> list[psutil.Process]:
        """The server and every process below it."""
        with suppress(psutil.Error):
            server = psutil.Process(self.process.pid)
            return [server, *server.children(recursive=True)]
        return []

    def output(self) -> str:
        """What the server has printed so far."""
        self._log.flush()
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def ready(self) -> bool:
        """True once the server accepts connections."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while not self.ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with code {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server was not ready after {_START_S:.0f} s:\n{self.output()}")
            time.sleep(0.05)


class ConfigServer(ServerProcess):
    """Serves the files of a directory, as `python3 -m http.server` does."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
        super().__init__(argv, port, cwd=directory, env=os.environ)


class CogServer(ServerProcess):
    """The prediction server of this project.

    Args:
        env: variables to add to this process's environment.
        arguments: more arguments for `python -m cog.server.http`.
        cwd: the directory with predict.py.
        guarded: whether the server is started by its guard, as `script/server` and the image do.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        arguments: tuple[str, ...] = (),
        cwd: Path = PROJECT_ROOT,
        guarded: bool = False,
    ) -> None:
        port = free_port()
        program = "trt_llm_pipeline.server.guard" if guarded else "cog.server.http"
        argv = [sys.executable, "-m", program, "--host", "127.0.0.1", *arguments]
        # Cog starts its worker as `python`, whichever that is on PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        own = {
            "PORT": str(port),
            "PATH": path,
            "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        }
        super().__init__(argv, port, cwd=cwd, env={**os.environ, **own, **env})

    def ready(self) -> bool:
        """True once the server is READY for a prediction; raises RuntimeError if it never will be."""
        with suppress(OSError, ValueError, KeyError):  # whatever else answers there is not the server
            status = self.health()
            if status in ("SETUP_FAILED", "DEFUNCT"):
                raise RuntimeError(f"the server is {status}:\n{self.output()}")
            return status == "READY"
        return False

    def health(self) -> str:
        """What /health-check says: READY, BUSY, ..."""
        _, body = self.request("GET", "/health-check", timeout=5)
        return str(body["status"])

    def predict(self, timeout: float = 120, **inputs: Any) -> dict[str, Any]:
        """POSTs a prediction and waits for its end; the response's JSON.

        Cog frees its slot a moment after it has answered, so the server is waited for first.
        """
        self.wait_until_ready()
        _, body = self.request("POST", "/predictions", {"input": inputs}, timeout=timeout)
        return body

    def start(self, prediction_id: str, webhook: str | None = None, **inputs: Any) -> None:
        """Starts a prediction, once the server is READY, and returns at once.

        Raises:
            RuntimeError: the server has not taken it.
        """
        self.wait_until_ready()
        headers = {"Prefer": "respond-async"}
        body = {"input": inputs, **({"webhook": webhook} if webhook else {})}
        status, answer = self.request("PUT", f"/predictions/{prediction_id}", body, headers=headers)
        if status != HTTPStatus.ACCEPTED:
            raise RuntimeError(f"prediction {prediction_id} was answered with {status}: {answer}")

    def cancel(self, prediction_id: str) -> int:
        """Cancels a prediction; the HTTP status."""
        status, _ = self.request("POST", f"/predictions/{prediction_id}/cancel", {})
        return status

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> tuple[int, dict[str, Any]]:
        """One HTTP request: its status and the JSON of its answer ({} where there is none)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)  # noqa: S310  loopback
        request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read())

    def wait_until_ready(self, timeout: float = 60) -> None:
        """Waits until the server takes predictions again."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() > deadline:
                said = f"{self.health()}:\n{self.output()[-3000:]}"
                raise TimeoutError(f"the server is still not READY after {timeout} s, but {said}")
            time.sleep(0.05)


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {"value": value}
