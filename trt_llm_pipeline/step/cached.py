"""Steps with the cache: what is unchanged is put back, what has run is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trt_llm_pipeline.cache import FileHashes, StepCache, StepKey, StepKeys, UnhashableError
from trt_llm_pipeline.plan import PlannedStep
from trt_llm_pipeline.step.run import StepContext, StepReport, restore_step, run_step


@dataclass(frozen=True)
class CachedSteps:
    """The steps of one build, with the cache. Made by `foresee`.

    Attributes:
        context: what the steps share.
        cache: where results are kept.
        keys: computes what they are kept under.
        hashes: of files that were looked at.
        model: identifies the model's content as it was at first.
        foreseen: the key of each step whose key could be told before anything ran.
        found: the output directories of those steps.
        run_keys: the key of each step that has run or was put back, if it has one.
    """

    context: StepContext
    cache: StepCache
    keys: StepKeys
    hashes: FileHashes
    model: str
    foreseen: Mapping[str, str]
    found: Mapping[str, Path]
    run_keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def foresee(
        cls, context: StepContext, cache: StepCache, keys: StepKeys, hashes: FileHashes
    ) -> CachedSteps:
        """Looks at everything that the steps read, as far as that can be told before anything has run.

        Raises:
            OSError: a file of the model cannot be read.
            UnhashableError: the model holds something that is not a regular file.
        """
        model = keys.model()
        told, found = keys.foresee(cache)
        foreseen = {name: str(key.value) for name, key in told.items()}
        hashes.save()
        return cls(context, cache, keys, hashes, model, foreseen, found)

    def archive_key(self) -> str | None:
        """The key of the archive that the build would make; None where not every step can be foreseen."""
        complete = len(self.found) == len(self.context.plan.steps)
        return self.keys.build(self.foreseen, self.model, self.found) if complete else None

    def put_back(self) -> bool:
        """Leaves in the output directories what the steps would leave, as far as it is cached.

        Results that have given way to others are not missed. False where some are damaged.
        """
        found: dict[str, Path] = {}
        for step in self.context.plan.steps:
            key = self.foreseen[step.name]
            if self.cache.has(key) is not None:
                report = restore_step(self.context, step, self.cache, key, found, self.hashes)
                if report is None:
                    return False
            found[step.name] = self.found[step.name]
        return True

    def run(self, step: PlannedStep, found: Mapping[str, Path]) -> StepReport:
        """Runs a step, or puts its cached results back; arguments and errors as for `run_step`."""
        key = self.keys.step(step, found, self.run_keys)
        if key.value is None:
            return self._run(step, key, found)
        with self.cache.making(key.value, step.name, self.context.log):
            restored = restore_step(self.context, step, self.cache, key.value, found, self.hashes)
            if restored is not None:
                self.run_keys[step.name] = key.value
                return restored
            self._say_why(step, key)
            return self._run(step, key, found)

    def _say_why(self, step: PlannedStep, key: StepKey) -> None:
        """Says what has changed since the step's results were kept, if any were."""
        if changed := key.changed(self.cache, step.name, self.context.plan.config.model_id):
            self.context.log(f"step {step.shown}: runs, because {changed} since its results were cached")

    def _run(self, step: PlannedStep, key: StepKey, found: Mapping[str, Path]) -> StepReport:
        report = run_step(self.context, step, found)
        self.cache.accept(self.keys.preflight(step))
        if reason := self._keep(step, key, report, found):
            self.context.log(f"step {step.shown}: its results are not cached, because {reason}")
        return report

    def engine_key(self) -> str | None:
        """What a check of the engine is remembered under; None where not every step has a key."""
        complete = len(self.run_keys) == len(self.context.plan.steps)
        return self.keys.engine(self.run_keys) if complete else None

    def packing(
        self, beside: Mapping[str, Path | bytes], found: Mapping[str, Path]
    ) -> tuple[str | None, dict[str, str]]:
        """What the archive is to be kept under, and the SHA-256 that files in it must have.

        The files are looked at first and the model after them: what changes later is found when it is packed.

        Args:
            beside: the files of the model that go into the archive, by name.
            found: each step's output directory.

        Returns:
            The key, None where the archive is not to be used again; and the hashes by name.
        """
        if len(self.run_keys) < len(self.context.plan.steps):
            return None, {}
        try:
            expected = {name: self.hashes.of(path) for name, path in beside.items() if isinstance(path, Path)}
            unchanged = self.keys.model() == self.model
        except (OSError, UnhashableError):
            return None, {}
        self.hashes.save()
        if not unchanged:
            changed = self.context.plan.model_dir
            self.context.log(f"{changed} changed during the build, so its archive is not used again")
            return None, expected
        engine = self.cache.hashes(self.run_keys["build"])
        return self.keys.build(self.run_keys, self.model, found), {**expected, **engine}

    def _keep(self, step: PlannedStep, key: StepKey, report: StepReport, found: Mapping[str, Path]) -> str:
        """Caches what a step has produced; or why that cannot be done, as a clause."""
        reason = key.reason or self.keys.changed_since(
            key, step, found, self.run_keys, report.beside, self.cache
        )
        if not reason and report.removed:
            reason = "it removed files that it had not made"
        if not reason and report.foreign:
            reason = f"{report.foreign[0]} is among them, and the step has not made it"
        if not reason and key.value is not None:
            self.run_keys[step.name] = key.value
            model_id = self.context.plan.config.model_id
            self.cache.store(key.value, step.name, model_id, report.output_dir, report.beside, key.parts)
        return reason
