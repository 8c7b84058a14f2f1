"""The cache keys of a build's steps, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import trt_llm_pipeline
from trt_llm_pipeline.cache import fingerprint
from trt_llm_pipeline.cache.fingerprint import FileHashes
from trt_llm_pipeline.cache.store import StepCache
from trt_llm_pipeline.model_source import model_files
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.plan.command import argument_paths
from trt_llm_pipeline.process.resources import Gpu
from trt_llm_pipeline.workspace import Ledger


class StepKeys:
    """Computes keys for one build.

    Args:
        plan: the build's.
        model: from `model_identity`.
        ledger: knows what steps have written before.
        gpus: of this machine.
        hashes: remembers what has been hashed; filled on the way.
    """

    def __init__(
        self, plan: Plan, model: str, ledger: Ledger, gpus: Sequence[Gpu], hashes: FileHashes
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._hashes = hashes
        self._gpus = [f"{gpu.name} {gpu.compute_capability}" for gpu in gpus]
        self._model = model
        self._toolchain = fingerprint.toolchain_identity(plan.toolchain, hashes)

    def preflight(self, step: PlannedStep) -> str:
        """The key under which it is known that the step's script accepts its arguments."""
        argv = self._plan.render(step, self._plan.expected_dirs()).argv
        return fingerprint.preflight_key(self._toolchain, step.program, argv)

    def step(self, step: PlannedStep, found: Mapping[str, Path], earlier: Mapping[str, str]) -> str:
        """The key of a step's result.

        Args:
            step: the step.
            found: the output directories of the steps before it.
            earlier: the keys of the steps before it.
        """
        argv = self._plan.render(step, found).argv
        return fingerprint.step_key(
            self._plan,
            step,
            argv,
            toolchain=self._toolchain,
            model=self._model,
            earlier=earlier,
            inputs=self._inputs(step, argv, found),
            gpus=self._gpus,
        )

    def foresee(self, cache: StepCache) -> tuple[dict[str, str], dict[str, Path]]:
        """The keys and output directories of as many steps as can be told before anything has run."""
        found: dict[str, Path] = {}
        keys: dict[str, str] = {}
        for planned in self._plan.steps:
            keys[planned.name] = self.step(planned, found, keys)
            directory = planned.output_dir or cache.has(keys[planned.name])
            if directory is None:
                break
            found[planned.name] = directory
        return keys, found

    def build(self, keys: Mapping[str, str]) -> str:
        """The key of the whole archive, from the keys of all steps."""
        config = self._plan.config.model_dump(mode="json", exclude={"hf_token"})
        return fingerprint.combined(
            service=trt_llm_pipeline.__version__,
            steps=dict(keys),
            config=config,
            model=self._model,
            gpus=self._gpus,
        )

    def _inputs(self, step: PlannedStep, argv: Sequence[str], found: Mapping[str, Path]) -> str:
        """Identifies the content of what the arguments name, but for the model and earlier steps' results."""
        workspace = self._plan.workspace
        known = [self._plan.model_dir, *found.values(), *filter(None, [step.output_dir])]
        named = [path for path in argument_paths(workspace, argv) if path.exists()]
        inside = [path for path in named if path.is_relative_to(workspace.root)]
        marks = {
            name: mark
            for path in inside
            for name, mark in workspace.files_in(path).items()
            if not any((workspace.root / name).is_relative_to(directory) for directory in known)
        }
        own = self._ledger.made_by(step.name, marks)
        files = {workspace.root / name for name in marks if name not in own}
        files |= set(fingerprint.files_below(path for path in named if path not in inside))
        return self._hashes.of_all([path for path in files if path.is_file()], workspace.root)


def model_identity(plan: Plan, source: str, revision: str, hashes: FileHashes) -> str:
    """Identifies the model's content: its revision and format, or the files of a folder of the user's own."""
    folder = plan.model_dir
    if source == "local":
        return hashes.of_all([folder / name for name in model_files(folder)], folder)
    return f"{plan.config.model_id}@{revision} {plan.config.weight_format or ''}"
