"""Ray: which nodes there are, and one task a cell. The only module that imports it.

Labels and resources are Ray's own: https://docs.ray.io/en/latest/ray-core/scheduling/labels.html. A node's
GPU type is its label `ray.io/accelerator-type`, which Ray sets by itself on nodes with a GPU; its release is
the label `trt-llm-release`, which whoever starts the node sets.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray
import ray.exceptions

from trt_llm_pipeline.errors import BadArgument, FleetError
from trt_llm_pipeline.fleet import attempt, nodes
from trt_llm_pipeline.fleet.attempt import Job, Outcome
from trt_llm_pipeline.fleet.cells import Fleet, Resources
from trt_llm_pipeline.fleet.drive import Ended
from trt_llm_pipeline.fleet.driving import Driving
from trt_llm_pipeline.fleet.nodes import NodeInfo
from trt_llm_pipeline.fleet.records import Records

GPU_LABEL = "ray.io/accelerator-type"
NODE_LABEL = "ray.io/node-id"
RELEASE_LABEL = "trt-llm-release"
_CLIENT_FORM = "ray://HOST:10001"
_ADDRESS = re.compile(r"(?:ray://)?(\[[0-9A-Fa-f:.]+\]|[^\s/:]+):(\d{1,5})(?:/.*)?")
_LAST_PORT = 65535
_LISTENS_WITHIN_S = 10.0
_JOBS_WITHIN_S = 120.0  # a cluster that has just begun takes none yet, and a busy one begins slowly
_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.RaySystemError,
)


@contextmanager
def connected(address: str | None) -> Iterator[RayRunner]:
    """Connects to a cluster, or starts Ray inside this machine.

    Args:
        address: `ray://host:10001`, `host:6379`, `auto`; None for $RAY_ADDRESS, and without that for Ray
            inside this machine, which ends with this process.

    Raises:
        BadArgument: it is no cluster's address.
        FleetError: the cluster cannot be reached.
    """
    named = "--address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS") or None
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        here = nodes.this_machine()  # what a plan without a cluster says of it
        options |= {"address": "local", "include_dashboard": False}
        options |= {"num_cpus": int(here.cpus), "_memory": int(here.memory)}
    else:
        _check_address(address, named)
        options |= {"address": address}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"the cluster at {address}" if address else "Ray in this machine"
        advice = f"; check {named}" if address else ""
        raise FleetError(f"{where} cannot be used: {_first_line(error)}{advice}") from None
    # Ray prints the last lines of a lost node's own log to stdout, which is for results; what a user needs to
    # know of it is in the events and the records.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # noqa: PTH123
        try:
            with _sigterm_as(on_sigterm):
                yield RayRunner()
        finally:
            ray.shutdown()


def _check_address(address: str, named: str) -> None:
    """Refuses what is no cluster's address, and one where nobody listens: Ray itself tries for minutes."""
    if address.startswith(("http://", "https://")):
        raise BadArgument(
            f"{named}: {address} is the address of a cluster's dashboard, which --detach takes; use "
            f"{_CLIENT_FORM}"
        )
    if address in ("auto", "local"):
        return
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[2]) > _LAST_PORT:
        raise BadArgument(f"{named}: {address} is no address of a cluster; use {_CLIENT_FORM}")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), _LISTENS_WITHIN_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise FleetError(
            f"the cluster at {address} cannot be used: nothing answers there ({reason}); check {named}, "
            f"which is {_CLIENT_FORM}"
        ) from None


@contextmanager
def _sigterm_as(handler: Any) -> Iterator[None]:
    """Lets SIGTERM have the effect that `handler` gives it.

    Ray has put its own handler in its place, and turns whatever a handler raises while it waits into
    `SystemExit(1)`; only `KeyboardInterrupt` comes through.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def interrupt(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    rays = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if came and callable(handler):
            handler(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, rays)


def submit_driver(fleet: Fleet, address: str | None, *, wait: bool, take_over: bool) -> str:
    """Leaves the driver running as a job of the cluster.

    The plan is written first; the job is `fleet resume`, on a node that has this package and the store's
    credentials.

    Args:
        fleet: what to build.
        address: the dashboard's, `http://host:8265`, or any that `connected` takes; None for $RAY_ADDRESS.
        wait, take_over: as for `drive.run`.

    Returns:
        The job's id.

    Raises:
        BadArgument: there is no cluster to leave it on.
        FleetBusy: another driver lives, and is not to be replaced.
        FleetError: it takes no jobs.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        raise BadArgument(
            "--detach: name a cluster with --address, because Ray in this machine ends with the command"
        )
    records = Records(fleet)
    listing = records.listing()
    Driving(records, listing, take_over).check()
    records.write_plan()
    if listing.cancelled:
        records.uncancel()  # here, so that the job heeds whoever cancels it before it has begun
    command = ["python", "-m", "trt_llm_pipeline.cli", "fleet", "resume", fleet.records.address]
    command += [
        "--address",
        "auto",
        "--unless-cancelled",
        *(["--wait"] if wait else []),
        *(["--take-over"] if take_over else []),
    ]
    deadline = time.monotonic() + _JOBS_WITHIN_S
    while True:
        try:
            return _submit(address, shlex.join(command), fleet)
        except FleetError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def _submit(address: str, command: str, fleet: Fleet) -> str:
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        job: str = client.submit_job(
            entrypoint=command,
            metadata={"fleet": fleet.fleet_id, "records": fleet.records.address},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise FleetError(f"the cluster at {address} takes no job: {str(error).splitlines()[0]}") from None
    return job


class RayRunner:
    """Runs cells as Ray's tasks. Used while connected."""

    def nodes(self) -> list[NodeInfo]:
        """The nodes that are alive."""
        return [_info(node) for node in _nodes() if node["Alive"]]

    def missing(self, needs: Sequence[Resources]) -> dict[Resources, str]:
        """What no node has of those needs that none can ever fulfil."""
        return nodes.missing(self.nodes(), needs)

    def able(self, need: Resources) -> list[NodeInfo]:
        """The nodes that could run it."""
        return [node for node in self.nodes() if not node.lacks(need)]

    def submit(self, job: Job, needs: Resources, avoid: Sequence[str]) -> ray.ObjectRef[Any]:
        """Starts a task, not on the nodes of `avoid` if there are others that could run it."""
        options: dict[str, Any] = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "max_retries": 0,  # a try is counted and recorded, so it is the driver that tries again
            "name": f"{job.fleet.fleet_id}/{job.cell.name}#{job.attempt}",
        }
        if needs.memory is not None:
            options["memory"] = needs.memory
        labels = {}
        if needs.gpu_type is not None:
            labels[GPU_LABEL] = needs.gpu_type
        able = self.able(needs)
        if needs.trt_llm is not None and any(node.release for node in able):
            labels[RELEASE_LABEL] = needs.trt_llm
        if avoid and any(node.node_id not in avoid for node in able):
            labels[NODE_LABEL] = f"!in({','.join(sorted(set(avoid)))})"
        if labels:
            options["label_selector"] = labels
        return _task.options(**options).remote(job)

    def wait(self, handles: Sequence[ray.ObjectRef[Any]], timeout_s: float) -> list[Ended]:
        """Those that have ended, after at most that long."""
        if not handles:
            return []
        ready, _ = ray.wait(list(handles), num_returns=1, timeout=timeout_s)
        if ready and len(handles) > 1:
            ready, _ = ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return [_ended(handle) for handle in ready]

    def dead_nodes(self) -> set[str]:
        """The ids of nodes that were in the cluster and are dead, or cut off from it."""
        return {str(node["NodeID"]) for node in _nodes() if not node["Alive"]}

    def cancel(self, handle: ray.ObjectRef[Any], *, force: bool) -> None:
        """Interrupts a task, or kills its process."""
        ray.cancel(handle, force=force, recursive=True)


@ray.remote
def _task(job: Job) -> Outcome:
    """One try, on a node."""
    context = ray.get_runtime_context()
    where = {
        "node": context.get_node_id(),
        "host": platform.node(),
        "gpu_ids": [str(number) for number in ray.get_gpu_ids()],
    }
    return attempt.run(job, where)


def _ended(handle: ray.ObjectRef[Any]) -> Ended:
    try:
        return Ended(handle, outcome=ray.get(handle))
    except ray.exceptions.TaskCancelledError:
        return Ended(handle, cancelled=True)
    except ray.exceptions.OutOfMemoryError as error:
        return Ended(handle, kind="resources", message=_first_line(error))
    except _LOST as error:
        return Ended(handle, lost=f"its node or its worker is gone: {_first_line(error)}")
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KeyboardInterrupt | ray.exceptions.TaskCancelledError):
            return Ended(handle, cancelled=True)
        return Ended(handle, kind="internal", message=repr(error.cause))
    except ray.exceptions.RayError as error:
        return Ended(handle, kind="internal", message=f"{type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _nodes() -> list[dict[str, Any]]:
    nodes: Any = ray.nodes
    return list(nodes())


def _info(node: dict[str, Any]) -> NodeInfo:
    has, labels = node["Resources"], node.get("Labels") or {}
    return NodeInfo(
        node["NodeID"],
        node["NodeManagerHostname"],
        has.get("GPU", 0.0),
        has.get("CPU", 0.0),
        has.get("memory", 0.0),
        labels.get(GPU_LABEL),
        labels.get(RELEASE_LABEL),
    )
