"""What a step's result depends on, as one SHA-256: the key under which the result is cached.

Two steps with the same key would write the same files: the same scripts of the same toolchain, run by the
same interpreter with the same packages, with the same arguments, on the same model and the same other files.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_llm_pipeline.files import hash_file
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.toolchain import Toolchain

_READ_BYTES = 1 << 20
_FORMAT = 1  # to be raised when what a key covers changes
_MOST_FILES = 100_000


@dataclass
class FileHashes:
    """SHA-256 of files, remembered for as long as a file's identity, size and times stay the same."""

    known: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> FileHashes:
        """What was known before, from a JSON file; nothing where that cannot be read."""
        try:
            known = json.loads(path.read_bytes())
        except (OSError, ValueError):
            known = {}
        return cls(known if isinstance(known, dict) else {})

    def of(self, path: Path) -> str:
        """The file's SHA-256. Raises `OSError` where it cannot be read."""
        status = path.stat()
        identity = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        remembered = self.known.get(str(path))
        if remembered and remembered[:-1] == identity:
            return str(remembered[-1])
        value = hash_file(path.resolve())  # a link stands for the content it leads to
        self.known[str(path)] = [*identity, value]
        return value

    def of_all(self, paths: Iterable[Path], root: Path) -> str:
        """One SHA-256 for many files: of their paths below `root` and their content."""
        digest = hashlib.sha256()
        for path in sorted(paths):
            name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
            digest.update(f"{name}\0{self.of(path)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def combined(**parts: Any) -> str:
    """One SHA-256 for named JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def toolchain_identity(toolchain: Toolchain, hashes: FileHashes) -> str:
    """Covers the toolchain's Python files, its interpreter, and which packages that interpreter has."""
    python = Path(toolchain.python)
    prefixes = [python.parent.parent, python.parent.parent / "local"]  # Debian's pip installs to the second
    folders = [path for prefix in prefixes for path in prefix.glob("lib*/python*/*-packages/*.dist-info")]
    packages = sorted(path.name for path in folders)
    return combined(
        name=toolchain.name,
        version=toolchain.version,
        sources=hashes.of_all(_sources(toolchain.root), toolchain.root),
        python=str(python),
        packages=packages,
    )


def preflight_key(toolchain: str, program: Sequence[str], argv: Sequence[str]) -> str:
    """The key under which it is known that a step's script accepts its arguments."""
    return combined(format=_FORMAT, toolchain=toolchain, program=list(program), argv=list(argv))


def step_key(
    plan: Plan,
    step: PlannedStep,
    argv: Sequence[str],
    *,
    toolchain: str,
    model: str,
    earlier: Mapping[str, str],
    inputs: str,
    gpus: Sequence[str],
) -> str:
    """The key of a step's result.

    Args:
        plan: the build's.
        step: the step.
        argv: its arguments, rendered.
        toolchain: from `toolchain_identity`.
        model: identifies the model's content.
        earlier: the keys of the steps before it.
        inputs: identifies the content of the other files that the arguments name.
        gpus: name and compute capability of each GPU; an engine is made for those, a checkpoint is not.
    """
    return combined(
        format=_FORMAT,
        toolchain=toolchain,
        step=step.name,
        program=list(step.program),
        argv=[plan.workspace.portable(argument) for argument in argv],
        output_dir=plan.workspace.portable(str(step.output_dir)),
        model=model,
        earlier=dict(earlier),
        inputs=inputs,
        gpus=[] if step.name == "convert_to_ft" else list(gpus),
    )


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Files at or below `paths`; links to directories are not followed.

    Raises:
        OSError: more than `_MOST_FILES`: too much to tell whether anything has changed.
    """
    count = 0
    pending = list(paths)
    while pending:
        path = pending.pop()
        if path.is_dir():
            if not path.is_symlink():
                pending.extend(path.iterdir())
        elif path.is_file():
            count += 1
            if count > _MOST_FILES:
                raise OSError(errno.EFBIG, f"it holds more than {_MOST_FILES:,} files", str(path.parent))
            yield path


def _sources(root: Path) -> Iterator[Path]:
    """The Python files of a toolchain: its examples, its executables and its packages."""
    packages = [path.parent for path in root.glob("*/__init__.py")]
    for folder in {root / "examples", root / "bin", *packages}:
        for path in files_below([folder]):
            if path.suffix == ".py" or folder.name == "bin":
                yield path
