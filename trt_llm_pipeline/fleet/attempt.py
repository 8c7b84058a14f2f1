"""One try at one cell, on the node where it runs: build, send, decide. Knows nothing of Ray.

The archive goes to a place of the attempt's own first. Then `cell.json` is put if absent: the first attempt
to do so has delivered, and only its archive is moved to the destination.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from trt_llm_pipeline.artifact.statement import LARGEST_STATEMENT
from trt_llm_pipeline.config import examine
from trt_llm_pipeline.delivery import beside
from trt_llm_pipeline.delivery.send import deliver_file
from trt_llm_pipeline.errors import DeliveryError, TrtLlmPipelineError
from trt_llm_pipeline.files import read_regular
from trt_llm_pipeline.fleet.cells import Cell, Fleet
from trt_llm_pipeline.fleet.node import Node
from trt_llm_pipeline.fleet.records import Records, now
from trt_llm_pipeline.fleet.watch import AttemptVoice, Watch
from trt_llm_pipeline.observer import Observer
from trt_llm_pipeline.preflight import Validated, validate_loaded
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.settings import Settings

State = Literal["delivered", "failed", "cancelled", "superseded", "taken"]
NODE_LOST = "node_lost"


class Built(Protocol):
    """What a cell wants of a finished build; see `pipeline.BuildResult`."""

    @property
    def build_id(self) -> str:
        """The build's name."""

    @property
    def archive(self) -> Path | None:
        """The packed engine."""

    @property
    def sha256(self) -> str:
        """The archive's, hexadecimal."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What `build.json` says."""


Build = Callable[[Validated, Settings, Observer], Built]


@dataclass(frozen=True)
class Job:
    """What a node is asked to do.

    Attributes:
        fleet: with this one cell only.
        attempt: the number of the try.
        mark: unlike that of any other try.
        build: makes the archive of a checked config: `pipeline.build`. The node imports it by its name.
        workspace: the node's, where the driver decides it; None for `$TRT_LLM_WORKSPACE` of the node.
    """

    fleet: Fleet
    attempt: int
    mark: str
    build: Build
    workspace: str | None = None

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.fleet.cells[0]


def job_of(fleet: Fleet, build: Build, workspace: str | None, cell: Cell, attempt: int, mark: str) -> Job:
    """What to send to a node: no more of the fleet than it needs."""
    alone = replace(fleet, cells=(cell,), configs={cell.config: fleet.configs[cell.config]}, validated={})
    return Job(alone, attempt, mark, build, workspace)


@dataclass(frozen=True)
class Outcome:
    """How a try ended.

    Attributes:
        state: `superseded` where another try has delivered, `taken` where another has this one's number.
        kind: of the error of a failed one, see `errors`; or `node_lost`.
        message: what the error says.
        retry: whether another node may do better.
        seconds: how long it took.
        size: of the archive, in bytes.
    """

    state: State
    kind: str = ""
    message: str = ""
    retry: bool = False
    seconds: float = 0.0
    size: int = 0
    node: str = ""


def run(job: Job, where: Mapping[str, Any], env: Mapping[str, str] = os.environ) -> Outcome:
    """Makes one try. Called in the main thread of its process, where an interruption arrives.

    Args:
        job: what to build.
        where: what is recorded of the node: `node`, `host`, `gpu_ids`.
        env: the node's environment.

    Raises:
        KeyboardInterrupt: Ray has cancelled it; every process of the build has ended, and that is recorded.
    """
    return _Attempt(job, where, env).run()


class _Attempt:
    def __init__(self, job: Job, where: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self._job = job
        self._cell = job.cell
        self._env = env
        self._records = Records(job.fleet)
        self._started = time.monotonic()
        self._fields: dict[str, Any] = {
            "cell": self._cell.name,
            "attempt": job.attempt,
            "mark": job.mark,
            "state": "running",
            "started": now(),
            **where,
        }
        self._node = str(where.get("node", ""))

    def run(self) -> Outcome:
        if self._records.is_decided(self._cell.name):
            return self._ended("superseded")
        if not self._records.begin(self._cell, self._job.attempt, self._fields):
            return self._ended("taken")
        voice = AttemptVoice()
        watch = Watch(self._records, self._cell, self._job.attempt, voice, self._fields)
        try:
            with watch:
                record = self._build(voice)
            outcome = self._decide(record, voice)
        except KeyboardInterrupt:
            outcome = self._interrupted(watch)
            voice.log(f"{outcome.message or outcome.state}; every process of the build has ended")
            self._note(outcome, voice)
            if watch.reason is None:  # Ray's own cancellation; it wants its exception back
                raise
            return outcome
        except TrtLlmPipelineError as error:
            outcome = self._failed(error, voice)
        except Exception as error:  # noqa: BLE001  whatever it is, the record says it
            voice.log(f"error: {error!r}")
            outcome = self._ended("failed", kind="internal", message=repr(error))
        self._note(outcome, voice)
        return outcome

    def _build(self, voice: AttemptVoice) -> dict[str, Any]:
        """Builds, and sends the archive to the attempt's own place; what `cell.json` will say of it."""
        job = self._job
        env = self._env
        if not self._cell.resources.gpus:  # Ray hides those of others only from tasks that ask for some
            env = {**env, "CUDA_VISIBLE_DEVICES": ""}
        settings = Settings.of_one_owner(env, Path(job.workspace) if job.workspace else None)
        node = Node(settings)
        with node.slot() as slot:
            voice.enter("validate")
            name = f"cell {self._cell.name}"  # a text made from the matrix; only its keys are in a file
            loaded = examine(job.fleet.configs[self._cell.config], name).without_lines()
            validated = validate_loaded(loaded, name, slot)
            slot.workspace.prepare()
            voice.enter("download")
            for request in validated.plan.requests:
                node.share(
                    request,
                    slot,
                    token=settings.token,
                    log=voice.log,
                    progress=lambda done, total: voice.progress("download", done, total),
                )
            result = job.build(validated, slot, voice)
            if result.archive is None:
                raise AssertionError("a build without a destination keeps its archive")
            voice.enter("deliver")
            statement = read_regular(beside(result.archive), LARGEST_STATEMENT)
            staging = self._records.staging(self._cell, job.attempt)
            sent = deliver_file(result.archive, self._records.root.destination(staging))
            if sent.sha256 != result.sha256:
                self._records.withdraw(self._cell, job.attempt)
                raise DeliveryError(f"{result.archive} changed while it was sent; it is built again")
        return {
            **{name: value for name, value in self._fields.items() if name != "state"},
            "address": f"{job.fleet.root.address}/{self._cell.key}",
            "archive": {"name": result.archive.name, "size": sent.size, "sha256": sent.sha256},
            "finished": now(),
            "seconds": round(time.monotonic() - self._started, 3),
            "values": dict(self._cell.values),
            "build_id": result.build_id,
            "stages": result.record["seconds"],
            "cached": [step["name"] for step in result.record["steps"] if step["cached"]],
            "manifest": result.record["manifest"],
            "statement": statement.decode(),
        }

    def _decide(self, record: Mapping[str, Any], voice: AttemptVoice) -> Outcome:
        if not self._records.win(self._cell, record):
            self._records.withdraw(self._cell, self._job.attempt)
            voice.log("another attempt has delivered this cell meanwhile; this one's archive is not used")
            return self._ended("superseded")
        self._records.publish(self._cell, record)
        voice.log(f"delivered to {record['address']}")
        return self._ended("delivered", size=record["archive"]["size"])

    def _interrupted(self, watch: Watch) -> Outcome:
        if watch.reason == "superseded":
            return self._ended("superseded")
        if watch.reason == "node lost":
            return self._ended("failed", kind=NODE_LOST, message="Ray on this node has died", retry=True)
        return self._ended("cancelled")

    def _failed(self, error: TrtLlmPipelineError, voice: AttemptVoice) -> Outcome:
        settings = Settings.of_one_owner(self._env)
        message = Redactor([settings.token, *settings.secrets])(str(error))
        voice.log(f"error: {message}")
        return self._ended("failed", kind=error.kind, message=message, retry=error.passing)

    def _ended(self, state: State, **more: Any) -> Outcome:
        seconds = round(time.monotonic() - self._started, 3)
        return Outcome(state, seconds=seconds, node=self._node, **more)

    def _note(self, outcome: Outcome, voice: AttemptVoice) -> None:
        """Records the end. A store that fails now costs the record of it and nothing else."""
        self._fields = {**self._fields, **asdict(outcome), "ended": now(), "stage": voice.at}
        try:
            self._records.write_log(self._cell, self._job.attempt, voice.text())
            self._records.note(self._cell, self._job.attempt, self._fields)
        except DeliveryError:
            return
