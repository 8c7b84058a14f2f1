"""The cache keys of a build's steps, one after the other: one SHA-256 for all that a result depends on.

Two steps with the same key would write the same files: the same scripts of the same toolchain, run by the
same interpreter with the same packages, with the same arguments, on the same model and the same other files.
No path of this machine is in a key.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trt_llm_pipeline
from trt_llm_pipeline.cache import fingerprint
from trt_llm_pipeline.cache.hashes import FileHashes
from trt_llm_pipeline.cache.inputs import Disks, UnhashableError, named_files
from trt_llm_pipeline.cache.store import StepCache
from trt_llm_pipeline.files import walk
from trt_llm_pipeline.plan import Plan, PlannedStep, resolved_yaml
from trt_llm_pipeline.plan.command import argument_dirs
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.process.environment import deciding
from trt_llm_pipeline.process.gpus import Gpu
from trt_llm_pipeline.workspace import SERVICE_FOLDERS, Ledger

#: What a key is made of, as the beginning of a sentence; what changes others comes first.
_CHANGED = {
    "toolchain": "the toolchain, or its Python's packages, changed",
    "model": "the model changed",
    "environment": "an environment variable that it gets changed",
    "program": "its script changed",
    "argv": "its arguments changed",
    "output_dir": "its output_dir changed",
    "earlier": "the steps before it, or their results, changed",
    "inputs": "a file that its arguments name changed",
    "datasets": "a dataset changed",
    "gpus": "the GPUs changed",
    "allowed": "what it is allowed changed",
}


_Mark = tuple[int, int, int, int]


@dataclass(frozen=True)
class StepKey:
    """The key of a step's result, and what it was computed from.

    Attributes:
        value: the key; None where what the step reads cannot be told.
        reason: why not, as a clause; empty where there is a key.
        model: identifies the model's content.
        files: the SHA-256 of each other file that the step can read by its arguments.
        places: where those files are.
        earlier: what the files of the steps before it looked like, by step; see `_marks`.
        parts: a digest of each thing that the key is made of, so that a miss can say which has changed.
    """

    value: str | None
    reason: str = ""
    model: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Path] = field(default_factory=dict)
    earlier: Mapping[str, Mapping[str, _Mark]] = field(default_factory=dict)
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
        layers: what is held of a sandbox.
        env: the service's environment.
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
        layers: Layers,
        env: Mapping[str, str],
        datasets: Mapping[str, str] | None = None,
    ) -> None:
        self._plan = plan
        self._source = source
        self._revision = revision
        self._ledger = ledger
        self._hashes = hashes
        self._disks = Disks()
        self._gpus = [f"{gpu.name} {gpu.compute_capability}" for gpu in gpus]
        self._layers = layers
        self._environment = deciding(env, layers.policy.variables)
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
            places = self._inputs(step, argv, found, known=[found[name] for name in earlier])
            files = {name: self._hashes.of(path) for name, path in places.items()}
            datasets = self._datasets_now()
            marks = {name: _marks(found[name]) for name in earlier}
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
            **({"datasets": datasets} if datasets else {}),
            **({"environment": self._environment} if self._environment else {}),
            **allowed,
        )
        parts = {
            "toolchain": self._toolchain,
            "model": model,
            **{name: fingerprint.combined(**{name: part}) for name, part in command.items()},
            "earlier": fingerprint.combined(**earlier),
            "inputs": fingerprint.combined(**files),
            "datasets": fingerprint.combined(**datasets),
            "gpus": fingerprint.combined(gpus=gpus),
            "environment": fingerprint.combined(**self._environment),
            "allowed": fingerprint.combined(**allowed),
        }
        return StepKey(value, model=model, files=files, places=places, earlier=marks, parts=parts)

    def _datasets_now(self) -> dict[str, str]:
        """Identifies each dataset: its commit, and the content of what is not as that has it."""
        folders = self._plan.dataset_dirs
        others = {
            name: fingerprint.others_in(folders[name], self._hashes, self._disks) for name in self._datasets
        }
        return {
            name: fingerprint.combined(commit=commit, files=others[name]) if others[name] else commit
            for name, commit in self._datasets.items()
        }

    def _allowed(self, step: PlannedStep) -> dict[str, bool]:
        """What a step is allowed beyond the usual: a result made with less or more is not taken for its."""
        given = {
            "network": step.config.network,
            "token": step.config.token,
            "unconfined": not self._layers.files,
            "own_user": self._layers.held()["user"] == "own",
        }
        return {name: True for name, allowed in given.items() if allowed}

    def changed_since(
        self,
        key: StepKey,
        step: PlannedStep,
        found: Mapping[str, Path],
        earlier: Mapping[str, str],
        made: Iterable[str],
        cache: StepCache,
    ) -> str:
        """What the step can read and is no longer as it was when `key` was computed, as a clause; or "".

        Args:
            key: what `step` has said before the step ran.
            step, found, earlier: as for `step`.
            made: what the step has made besides its results, by path in the workspace; that does not count.
            cache: knows the content of the results of the steps before it.
        """
        now = self.step(step, found, earlier)
        if now.value is None:
            return now.reason
        if now.model != key.model:
            return f"{self._plan.model_dir} changed while it ran"
        if any(now.files.get(name) != sha256 for name, sha256 in key.files.items()):
            return "a file that its arguments name changed while it ran"
        own = {os.path.realpath(self._plan.workspace.root / name) for name in made}
        if any(name not in key.files and str(path) not in own for name, path in now.places.items()):
            return "a file was added while it ran to what its arguments name"
        for name, value in earlier.items():
            before, after = _without(key.earlier.get(name, {}), own), _without(now.earlier[name], own)
            if before != after and not (
                _but_for_links(before) == _but_for_links(after)
                and cache.holds(value, found[name], self._hashes)
            ):
                return f"the results of {name} changed while it ran"
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

    def build(self, keys: Mapping[str, str], model: str, found: Mapping[str, Path]) -> str:
        """The key of the whole archive.

        Args:
            keys: of all steps.
            model: what `model` has said.
            found: each step's output directory.
        """
        return fingerprint.combined(
            service=trt_llm_pipeline.__version__,
            steps=dict(keys),
            config=resolved_yaml(self._plan, found),  # just as it goes into the archive
            model=model,
            gpus=self._gpus,
            sandbox=self._layers.held(),
        )

    def engine(self, keys: Mapping[str, str]) -> str:
        """The key of the engine with its tokenizer, from the keys of all steps: what a check is about."""
        return fingerprint.combined(service=trt_llm_pipeline.__version__, engine=dict(keys))

    def model(self) -> str:
        """Identifies the model's content as it is now. Raises as `model_identity` does."""
        return fingerprint.model_identity(self._plan, self._source, self._revision, self._hashes, self._disks)

    def _inputs(
        self, step: PlannedStep, argv: Sequence[str], found: Mapping[str, Path], known: Sequence[Path]
    ) -> dict[str, Path]:
        """The files that the arguments name, but for the model and the results in `known`.

        The step's own results of an earlier build do not count either: they are removed before it runs.
        """
        workspace = self._plan.workspace
        own = [step.output_dir] if step.output_dir else []
        if not own:
            named = argument_dirs(workspace, argv)
            stale = self._ledger.to_be_emptied(step.name, named, found.values())
            own = [workspace.root / name for name in stale]
        return named_files(
            workspace.root,
            argv,
            skip=[self._plan.model_dir, *self._plan.dataset_dirs.values(), *known, *own],
            hidden=[workspace.root / name for name in SERVICE_FOLDERS],
            disks=self._disks,
        )


def _marks(directory: Path) -> dict[str, _Mark]:
    """Inode, size, and when content and inode were changed, of each file below a directory; by real path."""
    found: dict[str, _Mark] = {}
    for folder, _, names in walk(os.path.realpath(directory)):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118  there may be very many
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def _without(marks: Mapping[str, _Mark], own: Collection[str]) -> dict[str, _Mark]:
    return {path: mark for path, mark in marks.items() if path not in own}


def _but_for_links(marks: Mapping[str, _Mark]) -> dict[str, tuple[int, ...]]:
    """Without the inodes' times, which a hard link that another workspace makes or removes changes too."""
    return {path: mark[:3] for path, mark in marks.items()}


def _why(problem: UnhashableError | OSError) -> str:
    if isinstance(problem, UnhashableError):
        return str(problem)
    if problem.errno == errno.EBUSY:
        return f"{problem.filename} {problem.strerror}"
    return f"{problem.filename} cannot be read: {problem.strerror or problem}"
