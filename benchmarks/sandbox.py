"""What the sandbox costs a step: the same step with it and without it.

    python -m benchmarks.sandbox [REPEATS]

Runs a script that writes one small file as a step, in turns without a sandbox, with every layer that this
machine has, and with those that a container's default leaves (no namespaces); in a workspace that is also
somebody's checkout. Prints medians, and the medians of the differences to the run without one before. What is
measured is everything that a step does: the view of the workspace, the temporary directories, the layers in
the step's process, and moving its files to their places.

Exits 1 where a limit is missed.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from trt_llm_pipeline.config import loads
from trt_llm_pipeline.plan import Plan, make_plan
from trt_llm_pipeline.process import UNCONFINED, Layers, Policy, find_layers
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.step import StepContext, prepare_imports, run_step
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Ledger, Workspace

ADDED_WITHIN_S = 0.05
USERS_FILES = 500
SCRIPT = """
import os
os.makedirs("out", exist_ok=True)
open("out/weights", "w").write("x")
"""
CONFIG = """
model_id: m
example_name: gpt
convert_to_ft: {script: convert.py, output_dir: ./out}
build: {script: convert.py}
"""


def prepared(folder: Path) -> Plan:
    examples = folder / "toolchain" / "examples" / "gpt"
    examples.mkdir(parents=True)
    (examples / "convert.py").write_text(SCRIPT)
    toolchain = Toolchain(folder / "toolchain", "bench", "1", ("1",), sys.executable, "", os.environ["PATH"])
    workspace = Workspace.at(folder / "workspace")
    workspace.prepare()
    (workspace.models / "m").mkdir()
    for number in range(USERS_FILES):
        path = workspace.root / f"folder{number % 20}" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    planned, mistakes = make_plan(loads(CONFIG), toolchain, workspace)
    if mistakes:
        raise SystemExit(mistakes)
    prepare_imports(planned)
    return planned


def seconds(planned: Plan, logs: Path, layers: Layers) -> float:
    context = StepContext(
        plan=planned,
        ledger=Ledger(planned.workspace),
        env=dict(os.environ),
        token=None,
        redactor=Redactor(),
        log=lambda _: None,
        output=lambda _: None,
        usage=lambda *_: None,
        logs=logs,
        gpus=GpuMonitor({}),
        default_timeout=None,
        layers=layers,
    )
    started = time.perf_counter()
    run_step(context, planned.steps[0], {})
    return time.perf_counter() - started


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    all_layers = find_layers(Policy())
    ways = {
        "without": UNCONFINED,
        "every layer": all_layers,
        "as in a container": replace(all_layers, namespaces=""),
    }
    print(all_layers.in_words())
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as temporary:
        planned = prepared(Path(temporary))
        logs = Path(temporary) / "logs"
        logs.mkdir()
        for turn in range(repeats + 1):
            for name, layers in ways.items():
                took = seconds(planned, logs, layers)
                if turn:  # the first fills caches
                    taken[name].append(took)
    print(f"\n| a step, {repeats} turns | median | more than without |\n|---|---|---|")
    good = True
    for name, times in taken.items():
        more = statistics.median(mine - bare for mine, bare in zip(times, taken["without"], strict=True))
        good = good and more < ADDED_WITHIN_S
        print(f"| {name} | {statistics.median(times) * 1000:.0f} ms | {more * 1000:.0f} ms |")
    print(f"\nlimit: {ADDED_WITHIN_S * 1000:.0f} ms more: {'met' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
