"""A workspace with something to steal and to break, in which single steps are run."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path

from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import TrtLlmPipelineError
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.redaction import Redactor
from trt_llm_pipeline.step import StepContext, prepare_imports, run_step
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Ledger, Workspace

BREAKOUT = Path(__file__).with_name("breakout.py")
TOKEN = "hf_MarkedTokenThatNoStepMaySee0123456789"
NOTES = "the user's own"
DOES = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--do")
parser.add_argument("--out")
exec(parser.parse_args().do)
"""


class Cell:
    """A workspace with something to steal and to break, and the service that runs steps in it."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.workspace = Workspace.at(folder / "workspace")
        self.workspace.prepare()
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.ledger = Ledger(self.workspace)
        root = self.workspace.root
        self._write(self.outside / "secret", "secret")
        self._write(root / "notes.txt", NOTES)
        for name in ("models/m/config.json", "models/other/weights", "builds/earlier/build.json"):
            self._write(root / name, "secret")
        self.ledger.begin("build", self.workspace.files())
        self._write(root / "earlier/weights", "secret")
        self._write(root / "engine.tar.gz", "secret")
        made = {k: v for k, v in self.workspace.files().items() if k != "notes.txt"}
        self.ledger.finish("build", made)
        examples = folder / "toolchain" / "examples" / "gpt"
        examples.mkdir(parents=True)
        (examples / "breakout.py").write_text(BREAKOUT.read_text())
        (examples / "does.py").write_text(DOES)
        self.toolchain = Toolchain(
            examples.parent.parent, "attack", "1", ("1",), python, "for a test", os.environ["PATH"]
        )
        self.logs = folder / "logs"
        self.logs.mkdir()

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, layers: Layers, *, script: str = "breakout.py", keys: str = "", **args: str) -> list[str]:
        """Runs a step with that script; the lines that it printed."""
        lines = [f"    {key}: {json.dumps(value)}" for key, value in {"out": "./out", **args}.items()]
        text = f"model_id: m\nexample_name: gpt\nbuild:\n  script: {script}\n{keys}  args:\n"
        planned, mistakes = make_plan(loads(text + "\n".join(lines)), self.toolchain, self.workspace)
        assert mistakes == []
        prepare_imports(planned)
        told: list[str] = []
        context = StepContext(
            plan=planned,
            ledger=self.ledger,
            env={**os.environ, "AWS_SECRET_ACCESS_KEY": "MarkedKey0123456789"},
            token=TOKEN,
            redactor=Redactor(),
            log=told.append,
            output=told.append,
            usage=lambda *_used: None,
            logs=self.logs,
            gpus=GpuMonitor({}),
            default_timeout=300,
            layers=layers,
        )
        try:
            run_step(context, planned.steps[0], {})
        except TrtLlmPipelineError as error:  # what it wrote is no engine
            told.append(f"{type(error).__name__}: {error}")
        return told

    def do(self, layers: Layers, code: str, *, keys: str = "") -> list[str]:
        """Runs a step whose script does `code`; the lines that it printed, and its error last."""
        return self.run(layers, script="does.py", keys=keys, do=textwrap.dedent(code))
