"""What identifies the scripts that a step runs, their interpreter, and the model that they read."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trt_llm_pipeline.cache.hashes import FileHashes
from trt_llm_pipeline.cache.inputs import Disks, files_below
from trt_llm_pipeline.model_source.choice import CACHE_FOLDER
from trt_llm_pipeline.model_source.record import matches, read_record
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.toolchain import Toolchain

FORMAT = 3  # to be raised when what a key covers changes

_SCRIPTS = (".py", ".sh")


def combined(**parts: Any) -> str:
    """One SHA-256 for named JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def toolchain_identity(toolchain: Toolchain, hashes: FileHashes, disks: Disks) -> str:
    """Covers the toolchain's scripts, its interpreter, and which packages that interpreter has.

    It is the same wherever the two are installed.
    """
    return combined(
        name=toolchain.name,
        version=toolchain.version,
        sources=hashes.of_all(sources(toolchain.root, disks)),
        python=Path(os.path.realpath(toolchain.python)).name,  # python3.11, where a link says python
        machine=platform.machine(),
        packages=packages(Path(toolchain.python)),
    )


def model_identity(plan: Plan, source: str, revision: str, hashes: FileHashes, disks: Disks) -> str:
    """Covers every file of the model's folder.

    A file that is as its source announced it is covered by the revision; of any other (one that the user
    added, say) the content counts.

    Args:
        plan: the build's.
        source: `hub`, `tar` or `local`.
        revision: what the source resolved it to; empty for a folder of the user's own.
        hashes, disks: see `FileHashes` and `Disks`.

    Raises:
        OSError: a file cannot be read.
        UnhashableError: something else than a regular file is there.
    """
    return combined(
        model_id=plan.config.model_id,
        source=source,
        revision=revision,
        weight_format=plan.config.weight_format,
        files=others_in(plan.model_dir, hashes, disks, announced=source != "local"),
    )


def others_in(folder: Path, hashes: FileHashes, disks: Disks, *, announced: bool = True) -> dict[str, str]:
    """The SHA-256 of each file of a model's or dataset's folder that is not as its source announced it.

    Args:
        folder: the model's or dataset's.
        hashes, disks: see `FileHashes` and `Disks`.
        announced: whether what a source has announced counts at all.

    Raises:
        OSError: a file cannot be read.
        UnhashableError: something else than a regular file is there.
    """
    record = read_record(folder) if announced else None
    known = {} if record is None else {file.path: file for file in record.files}
    others = {}
    for name, path in files_below(folder, disks, left_out=[folder / CACHE_FOLDER]).items():
        file = known.get(name)
        if file is None or matches(folder, file) is None:
            others[name] = hashes.of(path)
    return others


def preflight_key(toolchain: str, program: Sequence[str], argv: Sequence[str]) -> str:
    """The key under which it is known that a step's script accepts its arguments. It holds here only."""
    return combined(format=FORMAT, toolchain=toolchain, program=list(program), argv=list(argv))


def packages(python: Path) -> list[str]:
    """Names and versions of an interpreter's packages."""
    prefixes = [python.parent.parent, *_base(python.parent.parent)]
    # Debian's pip installs to `local` below the prefix.
    folders = [path for prefix in prefixes for path in (prefix, prefix / "local")]
    found = {path.name for folder in folders for path in folder.glob("lib*/python*/*-packages/*.dist-info")}
    return sorted(found)


def _base(prefix: Path) -> list[Path]:
    """The prefix whose packages a virtual environment shares, where it shares any: PEP 405."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(errors="replace").splitlines()
    except OSError:
        return []
    settings = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    shares = settings.get("include-system-site-packages", "").lower() == "true"
    return [Path(settings["home"]).parent] if shares and settings.get("home") else []


def sources(root: Path, disks: Disks) -> Iterator[tuple[str, Path]]:
    """The scripts of a toolchain: its examples, its executables and its packages."""
    packages = [path.parent for path in root.glob("*/__init__.py")]
    for folder in sorted({root / "examples", root / "bin", *packages}):
        for name, path in files_below(folder, disks).items():
            if name.endswith(_SCRIPTS) or folder.name == "bin":
                yield f"{folder.name}/{name}", path
