"""A real Ray cluster of several nodes on this machine, and a real S3 server, for the fleet's faults."""

from __future__ import annotations

import gc
import http.client
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import psutil
import ray.cluster_utils

from tests.integration.fleet.fleet_house import COMMAND_S, ENDS_WITHIN_S, FleetHouse
from tests.integration.house import STORE_SERVER, wait_for
from trt_llm_pipeline.testing.servers import ServerProcess, free_port

TOOLCHAIN = Path(__file__).parent / "toolchain"
BUCKET = "engines"
_AWS = {"AWS_ACCESS_KEY_ID": "AKIAFLEET", "AWS_SECRET_ACCESS_KEY": "fleet", "AWS_REGION": "us-east-1"}
# A node counts as dead after these: soon for a test, late enough for a busy machine.
_HEALTH = {
    "health_check_initial_delay_ms": 5000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 5,
}


class ClusterHouse(FleetHouse):
    """A house whose cells run on a cluster: a head without CPUs, and nodes that tests add and lose."""

    def __init__(self, hub: str, folder: Path, extra: Mapping[str, str]) -> None:
        # The scripts and the tests talk through files outside of any workspace.
        super().__init__(hub, folder, TOOLCHAIN, {"TRT_LLM_SANDBOX": "off", **extra})
        self.nodes: dict[str, Any] = {}

    @contextmanager
    def running(self, *nodes: str, **head: Any) -> Iterator[ClusterHouse]:
        """Starts the cluster with these nodes, one CPU each; ends every process of it."""
        # Ports of its own, as another test's cluster may have Ray's usual ones: without the dashboard's, Ray
        # leaves a socket in an error that it logs; without its agent's, the cluster takes no job.
        ports = {"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}
        options = {"num_cpus": 0, "_system_config": _HEALTH, **ports, **head}
        with self._environment():
            self.cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=options)
        try:
            for name in nodes:
                self.add(name)
            yield self
        finally:
            self.end_what_was_started()
            for node in self.nodes.values():
                for process in self.processes_of(node):
                    process.send_signal(signal.SIGCONT)
            self.cluster.shutdown()
            del self.cluster
            gc.collect()  # within the test, which lets Ray's unclosed sockets pass
            self.assert_nothing_is_left()

    @contextmanager
    def _environment(self, **more: str) -> Iterator[None]:
        """What is started within has this house's environment."""
        before = dict(os.environ)
        os.environ.update({**self.env, **more})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def add(self, name: str, workspace: Path | None = None, **options: Any) -> None:
        """Adds a node with a workspace of its own."""
        place = workspace or self.folder / f"node-{name}"
        with self._environment(TRT_LLM_WORKSPACE=str(place), FLEET_NODE=name):
            self.nodes[name] = self.cluster.add_node(**{"num_cpus": 1, **options})

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def processes_of(self, node: Any) -> list[psutil.Process]:
        """The raylet of a node, if it lives."""
        infos = node.all_processes.get(ray._private.ray_constants.PROCESS_TYPE_RAYLET, [])
        pids = [info.process.pid for info in infos if info.process.poll() is None]
        return [psutil.Process(pid) for pid in pids]

    def raylet(self, name: str) -> psutil.Process:
        (process,) = self.processes_of(self.nodes[name])
        return process

    def write(self, cells: str, more: str = "", args: str = "", first: str = "") -> None:
        """Writes `fleet.yaml` with a cell for each name in `cells`."""
        convert = (
            "  convert_to_ft:\n    script: convert.py\n    output_dir: ./checkpoint\n    args:\n"
            f"      output_dir: ./checkpoint\n{first}"
            if first
            else ""
        )
        (self.folder / "fleet.yaml").write_text(
            "config:\n  model_id: sshleifer/tiny-gpt2\n  example_name: fleet\n"
            f"{convert}  build:\n    script: build.py\n    output_dir: ./engine\n    args:\n"
            "      output_dir: ./engine\n      cell: ${matrix.cell}\n"
            f"{args}matrix: {{cell: [{cells}]}}\n"
            f"destination: s3://{BUCKET}/{self.folder.name}/${{matrix.cell}}/engine.tar.gz\n{more}"
        )

    def hold(self, name: str) -> Path:
        """Holds a cell (`a`), or all that a node runs (`node NAME`), until the file is removed."""
        kind, _, rest = name.rpartition(" ")
        path = self.folder / (f"hold-node.{rest}" if kind else f"hold.{rest}")
        path.touch()
        return path

    def started(self, cell: str) -> list[str]:
        """The nodes on which a cell's build has been started, once for each time."""
        return [path.name.split(".")[2] for path in self.folder.glob(f"started.{cell}.*")]

    def wait_until_started(self, cell: str, times: int = 1) -> list[str]:
        return list(
            wait_for(
                lambda: self.started(cell) if len(self.started(cell)) >= times else None,
                f"{cell} was started {times} times",
                COMMAND_S,
            )
        )

    def wait_until_no_step_runs(self, within_s: float = ENDS_WITHIN_S) -> None:
        wait_for(lambda: not self.steps(), f"no step runs: {self.steps()}", within_s)


@dataclass
class Store:
    """An S3 server, and the environment that leads to it."""

    port: int
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {**_AWS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=_AWS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_AWS["AWS_SECRET_ACCESS_KEY"],
        )

    def objects(self, prefix: str) -> dict[str, int]:
        """Keys and sizes below a prefix."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        return bytes(self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read())


@contextmanager
def s3_server(folder: Path) -> Iterator[Store]:
    """An S3 server in a process of its own, with one bucket."""
    port = free_port()
    argv = [sys.executable, str(STORE_SERVER), str(port)]
    with ServerProcess(argv, port, cwd=folder, env=os.environ):
        store = Store(port)
        store.client().create_bucket(Bucket=BUCKET)
        yield store


@contextmanager
def faulty(store: Store, fails: Callable[[int], bool]) -> Iterator[dict[str, str]]:
    """A proxy before the store that answers some requests with 503; the environment that leads to it.

    Args:
        fails: whether the request of that number, from 1, fails.
    """
    numbers = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fails(next(numbers)):
                self.answer(503, b"<Error><Code>SlowDown</Code></Error>", {})
                return
            onward = http.client.HTTPConnection("127.0.0.1", store.port)
            onward.request(self.command, self.path, body, dict(self.headers))
            response = onward.getresponse()
            self.answer(response.status, response.read(), dict(response.getheaders()))
            onward.close()

        def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            dropped = ("transfer-encoding", "connection", "server", "date")
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in dropped and (
                    self.command == "HEAD" or name.lower() != "content-length"
                ):
                    self.send_header(name, value)
            if self.command != "HEAD" or status == 503:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815  the base class's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield {**store.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
