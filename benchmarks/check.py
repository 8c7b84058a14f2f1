"""What it costs to see that an engine talks, beside the build that it checks.

    python -m benchmarks.check [REPEATS]
 Builds the quick start's config with a GPT-2 of 85 million parameters, on the embedded toolchain,
from a
loopback Hub: without the check, with it, and with the model's own words as reference. Prints medians of
REPEATS builds (3), each in a workspace of its own, and the stages' shares. The model repeats itself, so the
check asks the embedded toolchain's reference too, which is its dearest way. Exits 1 where that takes 12 s
more than converting and building.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from trt_llm_pipeline import pipeline
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder

ROOT = Path(__file__).resolve().parent.parent
CONFIG = (ROOT / "examples" / "gpt" / "config.yaml").read_text() + "cache: false\n"
MORE_S = 12.0
KINDS = {"off": "check: off\n", "on": "", "reference": "check: {reference: true}\n"}


def build(hub: HubServer, more: str) -> dict[str, float]:
    """The seconds of one build's stages."""
    with tempfile.TemporaryDirectory() as workspace:
        settings = Settings.from_env(
            {
                "HF_ENDPOINT": hub.url,
                "TRTLLM_DIR": str(ROOT / "cpu_toolchain"),
                "TRT_LLM_WORKSPACE": workspace,
                "PATH": "/usr/bin:/bin",
            }
        )
        story = Recorder()
        result = pipeline.build(validate(CONFIG + more, "config.yaml", settings), settings, story)
        return dict(result.record["seconds"])


def main() -> None:
    """Measures and prints."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        name = Path(folder) / "sshleifer" / "tiny-gpt2"
        models.make_gpt2(name, layers=12, heads=12, hidden=768)
        with HubServer(Path(folder)) as hub:
            measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
            for _ in range(repeats):  # in turns, so that a busy machine is busy for all of them
                for kind, more in KINDS.items():
                    measured[kind].append(build(hub, more))
    for kind, runs in measured.items():
        stages = {name: statistics.median(run.get(name, 0) for run in runs) for name in runs[0]}
        total = statistics.median(sum(run.values()) for run in runs)
        told = ", ".join(f"{name} {value:.2f}" for name, value in stages.items())
        print(f"check {kind:9} {total:6.2f} s in all: {told}")
        if kind == "on" and stages["check"] > stages["convert_to_ft"] + stages["build"] + MORE_S:
            raise SystemExit("the check takes longer than the build that it checks")


if __name__ == "__main__":
    main()
