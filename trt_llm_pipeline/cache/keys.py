"""The cache keys of a build's steps, one after the other: one SHA-256 for all that a result depends on.

Two steps with the same key would write the same files: the same scripts of the same toolchain, run by the
same interpreter with the same packages, with the same arguments, on the same model and the same other files.
No path of this machine is in a key.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import trt_llm_pipeline
from trt_llm_pipeline.cache import fingerprint
from trt_llm_pipeline.cache.hashes import FileHashes
from trt_llm_pipeline.cache.inputs import Disks, UnhashableError, named_files
from trt_llm_pipeline.cache.store import StepCache
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.plan.command import argument_dirs
from trt_llm_pipeline.process.gpus import Gpu
from trt_llm_pipeline.workspace import SERVICE_FOLDERS, Ledger

#: What a key is made of, as the beginning of a sentence; what changes others comes first.
_CHANGED = {
    "toolchain": "the toolchain, or its Python's packages, changed",
    "model": "the model changed",
    "program": "its script changed",
    "argv": "its arguments changed",
    "output_dir": "its output_dir changed",
    "earlier": "the steps before it, or their results, changed",
    "inputs": "a file that its arguments name changed",
    "datasets": "a dataset changed",
    "gpus": "the GPUs changed",
    "allowed": "what it is allowed changed",
}


@dataclass(frozen=True)
class StepKey:
    """The key of a step's result, and what it was computed from.

    Attributes:
        value: the key; None where what the step reads cannot be told.
        reason: why not, as a clause; empty where there is a key.
        model: identifies the model's content.
        files: the SHA-256 of each other file that the step can read by its arguments.
        parts: a digest of each thing that the key is made of, so that a miss can say which has changed.
    """

    value: str | None
    reason: str = ""
    model: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def changed(self, cache: StepCache, step: str, model_id: str) -> str:
        """What is other than it was for the most similar results of that step and model; a clause, or ""."""
        changed = cache.changed(step, model_id, self.parts)
        return next((reason for part, reason in _CHANGED.items() if part in changed), "")


class StepKeys:
    """Computes keys for one build.

    Args:
        plan: the build's.
        source, revision: the model's; see `Snapshot`.
        ledger: knows what steps have written before.
        gpus: those that the build uses.
        hashes: remembers what has been hashed; filled on the way.
        confined: whether steps run in a sandbox.
        datasets: the commit of each dataset that the config names, by its name there.

    Raises:
        OSError: a file of the toolchain cannot be read.
    """

    def __init__(
        self,
        plan: Plan,
        source: str,
        revision: str,
        ledger: Ledger,
        gpus: Sequence[Gpu],
        hashes: FileHashes,
        *,
        confined: bool,
        datasets: Mapping[str, str] | None = None,
    ) -> None:
        self._plan = plan
        self._source = source
        self._revision = revision
        self._ledger = ledger
        self._hashes = hashes
        self._disks = Disks()
        self._gpus = [f"{gpu.name} {gpu.compute_capability}" for gpu in gpus]
        self._confined = confined
        commits, named = datasets or {}, plan.config.datasets
        self._datasets = {name: f"{named[name].id}@{commit}" for name, commit in sorted(commits.items())}
        self._toolchain = fingerprint.toolchain_identity(plan.toolchain, hashes, self._disks)

    def preflight(self, step: PlannedStep) -> str:
        """The key under which it is known that the step's script accepts its arguments."""
        argv = self._plan.render(step, self._plan.expected_dirs()).argv
        return fingerprint.preflight_key(self._toolchain, step.program, argv)

    def step(self, step: PlannedStep, found: Mapping[str, Path], earlier: Mapping[str, str]) -> StepKey:
        """The key of a step's result.

        Args:
            step: the step.
            found: the output directories of the steps before it.
            earlier: the keys of those of them that have one; of the others the files count.
        """
        plan = self._plan
        argv = plan.render(step, found).argv
        try:
            model = self.model()
            files = self._inputs(step, argv, found, known=[found[name] for name in earlier])
        except (UnhashableError, OSError) as problem:
            return StepKey(None, _why(problem))
        command = {
            "program": plan.portable_program(step.program),
            "argv": [plan.portable(argument) for argument in argv],
            "output_dir": plan.portable(str(step.output_dir)),
        }
        gpus = [] if step.name == "convert_to_ft" else self._gpus
        allowed = self._allowed(step)
        value = fingerprint.combined(
            format=fingerprint.FORMAT,
            toolchain=self._toolchain,
            step=step.name,
            **command,
            model=model,
            earlier=dict(earlier),
            inputs=files,
            gpus=gpus,
            **({"datasets": self._datasets} if self._datasets else {}),
            **allowed,
        )
        parts = {
            "toolchain": self._toolchain,
            "model": model,
            **{name: fingerprint.combined(**{name: part}) for name, part in command.items()},
            "earlier": fingerprint.combined(**earlier),
            "inputs": fingerprint.combined(**files),
            "datasets": fingerprint.combined(**self._datasets),
            "gpus": fingerprint.combined(gpus=gpus),
            "allowed": fingerprint.combined(**allowed),
        }
        return StepKey(value, model=model, files=files, parts=parts)

    def _allowed(self, step: PlannedStep) -> dict[str, bool]:
        """What a step is allowed beyond the usual: a result made with less or more is not taken for its."""
        given = {
            "network": step.config.network,
            "token": step.config.token,
            "unconfined": not self._confined,
        }
        return {name: True for name, allowed in given.items() if allowed}

    def changed_since(
        self, key: StepKey, step: PlannedStep, found: Mapping[str, Path], earlier: Mapping[str, str]
    ) -> str:
        """What the step can read and is no longer as it was when `key` was computed, as a clause; or "".

        A file that is new does not count: the step has made it.
        """
        now = self.step(step, found, earlier)
        if now.value is None:
            return now.reason
        if now.model != key.model:
            return f"{self._plan.model_dir} changed while it ran"
        if any(now.files.get(name) != sha256 for name, sha256 in key.files.items()):
            return "a file that its arguments name changed while it ran"
        return ""

    def foresee(self, cache: StepCache) -> tuple[dict[str, StepKey], dict[str, Path]]:
        """The keys and output directories of as many steps as can be told before anything has run.

        Each of these keys has a value.
        """
        found: dict[str, Path] = {}
        keys: dict[str, StepKey] = {}
        values: dict[str, str] = {}
        for planned in self._plan.steps:
            key = self.step(planned, found, values)
            if key.value is None:
                break
            keys[planned.name], values[planned.name] = key, key.value
            directory = planned.output_dir or cache.has(key.value)
            if directory is None:
                break
            found[planned.name] = directory
        return keys, found

    def build(self, keys: Mapping[str, str], model: str) -> str:
        """The key of the whole archive, from the keys of all steps and what `model` has said."""
        config = self._plan.config.model_dump(mode="json", exclude={"hf_token", "cache"})
        if address := config.get("model_tar_url"):  # a signature is no part of what is there
            config["model_tar_url"] = urlsplit(address)._replace(query="", fragment="").geturl()
        return fingerprint.combined(
            service=trt_llm_pipeline.__version__,
            steps=dict(keys),
            config=config,
            model=model,
            gpus=self._gpus,
        )

    def engine(self, keys: Mapping[str, str]) -> str:
        """The key of the engine with its tokenizer, from the keys of all steps: what a check is about."""
        return fingerprint.combined(service=trt_llm_pipeline.__version__, engine=dict(keys))

    def model(self) -> str:
        """Identifies the model's content as it is now. Raises as `model_identity` does."""
        return fingerprint.model_identity(self._plan, self._source, self._revision, self._hashes, self._disks)

    def _inputs(
        self, step: PlannedStep, argv: Sequence[str], found: Mapping[str, Path], known: Sequence[Path]
    ) -> dict[str, str]:
        """The content of what the arguments name, but for the model and the results in `known`.

        The step's own results of an earlier build do not count either: they are removed before it runs.
        """
        workspace = self._plan.workspace
        own = [step.output_dir] if step.output_dir else []
        if not own:
            named = argument_dirs(workspace, argv)
            stale = self._ledger.to_be_emptied(step.name, named, found.values())
            own = [workspace.root / name for name in stale]
        files = named_files(
            workspace.root,
            argv,
            skip=[self._plan.model_dir, *self._plan.dataset_dirs.values(), *known, *own],
            hidden=[workspace.root / name for name in SERVICE_FOLDERS],
            disks=self._disks,
        )
        return {name: self._hashes.of(path) for name, path in files.items()}


def _why(problem: UnhashableError | OSError) -> str:
    if isinstance(problem, UnhashableError):
        return str(problem)
    if problem.errno == errno.EBUSY:
        return f"{problem.filename} {problem.strerror}"
    return f"{problem.filename} cannot be read: {problem.strerror or problem}"
