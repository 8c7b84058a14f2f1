"""What a fleet costs beside its builds: planning, driving, waiting.

    python -m benchmarks.fleet [--cells 1000]

Prints these, and exits 1 where a limit is missed:

- seconds to plan 10,000 cells (10), which have two configs between them: each is checked once;
- the driver's CPU time for each cell of a step that does nothing (100 ms), and how much more memory it has at
  the end than after a tenth of the cells (50 MB);
- requests that a second run of a finished fleet makes (1);
- the makespan of 12 cells of 10 s on 1, 2 and 4 simulated nodes, beside the ideal (1.15).

The runner of the second measurement answers at once and writes the records that a node would, so that what is
measured is the driver: the table, the records, the retries. The other measurements run on real Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks._loopback import machine
from trt_llm_pipeline.delivery.object_store import Bucket
from trt_llm_pipeline.fleet import cells, drive
from trt_llm_pipeline.fleet.attempt import Job, Outcome
from trt_llm_pipeline.fleet.cells import Fleet, Resources
from trt_llm_pipeline.fleet.drive import Ended
from trt_llm_pipeline.fleet.records import Records
from trt_llm_pipeline.pipeline import build
from trt_llm_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PLAN_S, DRIVER_S, IDEAL = 10.0, 0.1, 1.15
SECONDS, CELLS = 10.0, 12

MATRIX = """\
config:
  model_id: a/b
  example_name: gpt
  build:
    script: build.py
    output_dir: ./engine
    args: {{model_dir: "${{model_dir}}", output_dir: ./engine, dtype: "${{matrix.dtype}}"}}
matrix: {{dtype: [float16, float32], copy: [{copies}]}}
destination: file://{folder}/engines/${{matrix.dtype}}/${{matrix.copy}}/
"""


class AtOnce:
    """A runner whose tasks have always just delivered."""

    def missing(self, needs: Sequence[Resources]) -> dict[Resources, str]:
        del needs
        return {}

    def submit(self, job: Job, needs: Resources, avoid: Sequence[str]) -> Any:
        del needs, avoid
        records = Records(job.fleet)
        records.begin(job.cell, job.attempt, {"mark": job.mark, "state": "running"})
        records.win(job.cell, {"attempt": job.attempt, "archive": {"size": 1}})
        return job.cell.name

    def wait(self, handles: Sequence[Any], timeout_s: float) -> list[Ended]:
        del timeout_s
        return [Ended(handle, Outcome("delivered", size=1)) for handle in handles]

    def dead_nodes(self) -> set[str]:
        return set()

    def cancel(self, handle: Any, *, force: bool) -> None:
        del handle, force


def ignore(event: Mapping[str, Any]) -> None:
    """Nobody watches."""
    del event


def load(folder: Path, count: int) -> Fleet:
    file = folder / "fleet.yaml"
    copies = ", ".join(map(str, range(count // 2)))
    file.write_text(MATRIX.format(copies=copies, folder=folder))
    env = {**os.environ, "TRTLLM_DIR": str(ROOT / "cpu_toolchain"), "TRT_LLM_WORKSPACE": str(folder / "w")}
    return cells.load(str(file), Settings.from_env(env))


def planning(folder: Path) -> float:
    started = time.perf_counter()
    fleet = load(folder, 10_000)
    assert len(fleet.cells) == 10_000
    return time.perf_counter() - started


def driving(folder: Path, count: int) -> tuple[float, int]:
    """CPU seconds of each cell, the records' own part included, and bytes of memory that it grew by."""
    fleet = load(folder, count)
    process, done, memory = psutil.Process(), 0, [0, 0]

    def tell(event: Mapping[str, Any]) -> None:
        nonlocal done
        done += event.get("state") == "delivered"
        if done == count // 10 and not memory[0]:
            memory[0] = process.memory_info().rss

    before = resource.getrusage(resource.RUSAGE_SELF)
    result = drive.run(fleet, build, AtOnce, tell)
    after = resource.getrusage(resource.RUSAGE_SELF)
    memory[1] = process.memory_info().rss
    assert len(result.delivered) == count
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent / count, memory[1] - memory[0]


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    import ray.cluster_utils

    made = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        yield str(made.address)
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]


def makespan(nodes: int, warm: bool) -> float:
    """Seconds for the cells on that many nodes, without what starting Ray's workers takes."""
    script = """
import json, sys, time
import ray
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
nodes, cells, seconds, warm = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
@ray.remote(num_cpus=1, max_retries=0)
def sleep(seconds):
    time.sleep(seconds)
if warm:
    ray.get([sleep.remote(1.0) for _ in range(nodes)])
from trt_llm_pipeline.delivery.object_store import Root
from trt_llm_pipeline.fleet import drive, ray_runner
from trt_llm_pipeline.fleet.attempt import Outcome
from trt_llm_pipeline.fleet.cells import Cell, Fleet, Resources
from trt_llm_pipeline.pipeline import build
class Sleeps(ray_runner.RayRunner):
    def submit(self, job, needs, avoid):
        return task.options(num_cpus=1, max_retries=0).remote(job.cell.name)
@ray.remote
def task(name):
    from trt_llm_pipeline.fleet.attempt import Outcome
    import time
    time.sleep(seconds)
    return Outcome("delivered", size=1)
made = tuple(Cell(str(n), {}, "0", f"{n}/engine.tar.gz", Resources()) for n in range(cells))
fleet = Fleet("f", "f", Root("file", f"file://{sys.argv[6]}", ""), made, {"0": ""})
started = time.perf_counter()
result = drive.run(fleet, build, Sleeps, lambda event: None)
assert len(result.delivered) == cells
print(json.dumps(time.perf_counter() - started))
"""
    with cluster(nodes) as address, tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-c", script, address, str(nodes), str(CELLS), str(SECONDS), str(int(warm))]
        done = subprocess.run([*argv, folder], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        return float(json.loads(done.stdout.splitlines()[-1]))


def requests_of_second_run(folder: Path) -> int:
    """What is asked of the store when everything is delivered."""
    fleet = load(folder, 100)
    drive.run(fleet, build, AtOnce, ignore)
    asked: list[str] = []
    original = Bucket._call

    def counted(self: Bucket, name: str, *args: Any, **options: Any) -> Any:
        asked.append(name)
        return original(self, name, *args, **options)

    Bucket._call = counted  # type: ignore[method-assign]
    try:
        result = drive.run(fleet, build, AtOnce, ignore)
    finally:
        Bucket._call = original  # type: ignore[method-assign]
    assert len(result.already) == 100
    return len(asked)


def main() -> int:
    """Measures; the exit code says whether every limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1000)
    cells_wanted = parser.parse_args().cells
    good = True
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "a").mkdir()
        took = planning(Path(name) / "a")
        good &= took < PLAN_S
        print(f"planning 10,000 cells: {took:.1f} s (limit {PLAN_S:.0f})")
        (Path(name) / "b").mkdir()
        spent, grown = driving(Path(name) / "b", cells_wanted)
        good &= spent < DRIVER_S and grown < 50_000_000
        print(
            f"driving {cells_wanted} cells: {1000 * spent:.1f} ms of CPU each (limit {1000 * DRIVER_S:.0f}), "
            f"{grown / 1e6:.1f} MB more memory at the end than after a tenth (limit 50)"
        )
        (Path(name) / "c").mkdir()
        print(f"second run of 100 delivered cells: {requests_of_second_run(Path(name) / 'c')} listing")
    for nodes in (1, 2, 4):
        took, ideal = makespan(nodes, warm=True), SECONDS * CELLS / nodes
        good &= took / ideal < IDEAL
        print(
            f"{CELLS} cells of {SECONDS:.0f} s on {nodes} nodes: {took:.1f} s, {took / ideal:.2f} of the "
            f"ideal (limit {IDEAL})"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
