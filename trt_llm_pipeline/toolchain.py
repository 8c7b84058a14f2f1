"""Where the example scripts and executables live, and which release they belong to.

A toolchain is a directory with `examples/`, laid out like TensorRT-LLM's repository. NVIDIA's trees and the
embedded CPU one are found and used in the same way; only the directory differs.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from trt_llm_pipeline import process
from trt_llm_pipeline.errors import PipelineError, ToolchainError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_CANDIDATES = ("TensorRT-LLM", "tensorrtllm_backend/tensorrt_llm", "cpu_toolchain")
_EXAMPLE_ROOTS = ("", "models/core", "models/contrib")
_VERSION = re.compile(r"""__version__\s*=\s*["']([^"']+)["']""")
_EXECUTABLES = ("trtllm-build",)
_RANKS = re.compile(r"ranks:\s*(\d{1,4})")
_FOLLOWS = re.compile(r"follows:([^()]*)(?:\(([^()]*)\))?")
_MODELS = re.compile(r"models:([^()]*)\(([^()]*)\)")
_ASK_S = 60.0
_ASK_PACKAGE = (
    "import importlib.util, importlib.metadata as m, sys\n"
    "if importlib.util.find_spec('tensorrt_llm') is None: sys.exit(1)\n"
    "try: print(m.version('tensorrt_llm'))\n"
    "except m.PackageNotFoundError: print('')\n"
)


@dataclass(frozen=True)
class Toolchain:
    """One toolchain.

    Attributes:
        root: its directory.
        name: `cpu` or `tensorrt_llm`.
        version: the release, such as `0.7.1`; `cpu` for the embedded one, `unknown` where nothing says.
        follows: the releases whose options its scripts follow; for NVIDIA's trees the version alone.
        by_script: those of a script or executable that does not follow all of them, by its file's name.
        most_ranks: on how many ranks its engines run at most; None where that is not limited.
        models: the only types of models (`model_type`) that an example's scripts take, by the example.
        python: the interpreter that runs its scripts.
        reason: why this one was chosen, in words.
        path: where console scripts are searched for last, as in $PATH; None for this process's.
    """

    root: Path
    name: str
    version: str
    follows: tuple[str, ...]
    python: str
    reason: str
    path: str | None = None
    by_script: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    most_ranks: int | None = None
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def examples(self) -> Path:
        """The directory that no script may lie outside of."""
        return self.root / "examples"

    @property
    def title(self) -> str:
        """Name and release in short: `cpu`, `tensorrt_llm 0.7.1`."""
        return self.name if self.version == self.name else f"{self.name} {self.version}"

    def describe(self) -> str:
        """One line for the log."""
        others = [other for other in self.follows if other != self.version]
        follows = f", with the options of {', '.join(others)}," if others else ""
        return f"toolchain {self.title}{follows} at {self.root} ({self.reason})"

    def releases_of(self, program: str, requirement: str | None = None) -> tuple[str, ...]:
        """The releases whose options a script or an executable follows, oldest first.

        Args:
            program: its file's name.
            requirement: leaves out those that do not satisfy it.
        """
        releases = self.by_script.get(program, self.follows)
        if requirement is None:
            return releases
        wanted = SpecifierSet(requirement)
        return tuple(
            release
            for release in releases
            if any(wanted.contains(each, prereleases=True) for each in _valid((release,)))
        )

    def example_names(self) -> list[str]:
        """Every example that an engine can be built from, by the name that a config gives it."""
        return sorted({folder.name for folder in self._folders() if _makes_engines(folder)})

    def _folders(self) -> Iterator[Path]:
        """Every folder where examples lie beside each other."""
        for prefix in _EXAMPLE_ROOTS:
            root = self.examples / prefix
            if root.is_dir():
                yield from (path for path in root.iterdir() if path.is_dir())

    def _elsewhere(self, example: Path, script: str) -> str | None:
        """How an example names a script of another folder, where there is one of that name only."""
        name = Path(script).name
        found = [
            folder / name for folder in self._folders() if folder != example and (folder / name).is_file()
        ]
        return os.path.relpath(found[0], example) if len(found) == 1 else None

    def example_dir(self, name: str) -> Path:
        """The directory of the example `name`.

        Raises:
            ToolchainError: there is none; names the closest.
        """
        roots = [(self.examples / prefix).resolve() for prefix in _EXAMPLE_ROOTS]
        with suppress(OSError, ValueError, RuntimeError):  # no name for a file, or a circle of links
            for root in roots:
                path = (root / name).resolve()
                holds_examples = any(other.is_relative_to(path) for other in roots)
                if path.is_dir() and self._inside(path) and not holds_examples:
                    return path
        known = self.example_names()
        close = difflib.get_close_matches(Path(name).name, known, 3, 0.4)
        closest = f"{'the closest is' if len(close) == 1 else 'the closest are'} {', '.join(close)}"
        advice = closest if close else f"it has {', '.join(known) or 'none'}"
        raise ToolchainError(f"{name!r} is no example of the {self.title} toolchain; {advice}")

    def script(self, example: Path, script: str) -> Path:
        """The script's file, for a step of the example in the directory `example`.

        Raises:
            ToolchainError: there is none, or it lies outside `examples/`.
        """
        with suppress(OSError, ValueError, RuntimeError):  # no name for a file, or a circle of links
            path = (example / script).resolve()
            if not self._inside(path):
                raise ToolchainError(f"{script!r} leads outside the toolchain's examples/ directory")
            if path.is_file():
                return path
        raise ToolchainError(
            f"{script!r} is not in the example {example.name}; {self._instead(example, script)}"
        )

    def _instead(self, example: Path, script: str) -> str:
        """What to write in place of a script that the example does not have."""
        with suppress(OSError, ValueError, RuntimeError):  # no name for a file, or a circle of links
            own = example / Path(script).name
            if own.is_file():
                return f"write {own.name}"
            if (other := self._elsewhere(example, script)) is not None:
                return _named(other)
        if script in _EXECUTABLES:
            return f"that is no script; write executable: {script}"
        scripts = sorted(p.name for p in example.glob("*.py"))
        close = difflib.get_close_matches(script, scripts, 3, 0.4) or scripts
        return f"it has {', '.join(close)}" if close else "it has no scripts"

    def executable(self, name: str) -> tuple[str, ...]:
        """How to call a console script: the toolchain's own, the one beside the interpreter, or on PATH.

        Args:
            name: such as `trtllm-build`.

        Returns:
            The beginning of an argv.
        """
        if name in ("python", "python3"):
            return (self.python,)
        own = self.root / "bin" / name
        if own.is_file():
            return (self.python, str(own))
        beside = Path(self.python).parent / name
        if beside.is_file():
            return (str(beside),)
        found = shutil.which(name, path=self.path)
        if found:
            return (found,)
        return (self.python, "-m", "tensorrt_llm.commands.build")

    def _inside(self, path: Path) -> bool:
        return path.is_relative_to(self.examples.resolve())


def find(env: Mapping[str, str], project_root: Path = PROJECT_ROOT) -> Toolchain:
    """Chooses the toolchain.

    `$TRTLLM_DIR` wins. Without it: the submodule `TensorRT-LLM/` if it is populated, then the one inside
    `tensorrtllm_backend/`, then the embedded CPU one. `$TRTLLM_PYTHON` names the scripts' interpreter.

    Raises:
        ToolchainError: `$TRTLLM_DIR` is not a toolchain, or a tree was found whose `tensorrt_llm` cannot be
            imported: nobody who wanted a GPU engine gets a CPU one.
    """
    wanted = env.get("TRTLLM_PYTHON") or sys.executable
    program = shutil.which(wanted, path=env.get("PATH"))
    if program is None:
        raise ToolchainError(f"TRTLLM_PYTHON is {wanted!r}, which is no program; name a Python interpreter")
    # Absolute, because steps run in another directory; links stay, because they make a virtual environment.
    python = os.path.abspath(program)  # noqa: PTH100
    if chosen := env.get("TRTLLM_DIR"):
        root = Path(chosen).expanduser().resolve()
        if not (root / "examples").is_dir():
            raise ToolchainError(
                f"TRTLLM_DIR is {chosen!r}, which is not a toolchain: it has no examples/ directory. "
                "Name a TensorRT-LLM checkout, or cpu_toolchain for the embedded one"
            )
        return _identify(root, python, "named by TRTLLM_DIR", env)
    for candidate in _CANDIDATES:
        root = project_root / candidate
        if (root / "examples").is_dir():
            return _identify(root.resolve(), python, f"found as {candidate}/", env)
    raise ToolchainError(f"no toolchain was found below {project_root}; set TRTLLM_DIR")


def _identify(root: Path, python: str, reason: str, env: Mapping[str, str]) -> Toolchain:
    own_version = root / "version.txt"
    if own_version.is_file():
        name, *rest = own_version.read_text().split("\n")
        name, releases, by_script = name.strip(), *_followed(rest)
        ranks = next((int(match[1]) for line in rest if (match := _RANKS.fullmatch(line.strip()))), None)
        types = [match for line in rest if (match := _MODELS.fullmatch(line.strip()))]
        models = {example: _listed(match[1]) for match in types for example in _listed(match[2])}
        path = env.get("PATH")
        return Toolchain(root, name, name, releases, python, reason, path, by_script, ranks, models)
    version = _tree_version(root)
    installed = _installed_version(python, env)
    if installed is None and (root / "tensorrt_llm").is_dir():
        raise ToolchainError(
            f"the toolchain at {root} ({reason}) needs the Python package tensorrt_llm, which {python} "
            "cannot import. Set TRTLLM_PYTHON to the interpreter that has it, or TRTLLM_DIR="
            f"{PROJECT_ROOT / 'cpu_toolchain'} to build a CPU engine with the embedded toolchain"
        )
    version = installed or version
    own = (version,) if version else ()
    return Toolchain(root, "tensorrt_llm", version or "unknown", own, python, reason, env.get("PATH"))


def _followed(lines: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """What `follows: 0.5.0, 0.7.1 (build.py, run.py)` says: every release, and those of single scripts."""
    every: dict[str, None] = {}
    by_script: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if match := _FOLLOWS.fullmatch(line.strip()):
            releases = _listed(match[1])
            every.update(dict.fromkeys(releases))
            by_script.update(dict.fromkeys(_listed(match[2] or ""), releases))
    return tuple(every), by_script


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _tree_version(root: Path) -> str | None:
    """The release that a TensorRT-LLM tree says it is, without importing it.

    From 0.6.0 on the package says it; 0.5.0 has it in `setup.py` only.
    """
    for name in ("tensorrt_llm/version.py", "tensorrt_llm/__init__.py"):
        path = root / name
        if path.is_file() and (match := _VERSION.search(path.read_text(errors="replace"))):
            return match[1]
    return _setup_version(root / "setup.py")


def _setup_version(path: Path) -> str | None:
    """The constant that is given to `setup(version=...)`; the file is read, never run."""
    try:
        tree = ast.parse(path.read_text(errors="replace"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", getattr(call.func, "attr", "")) == "setup":
            for keyword in call.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg == "version" and isinstance(value, str):
                    return value
    return None


def _installed_version(python: str, env: Mapping[str, str]) -> str | None:
    """The installed package's version, "" where it has none, None where there is no such package."""
    try:
        asked = process.capture([python, "-c", _ASK_PACKAGE], cwd=Path("/"), env=env, timeout=_ASK_S)
    except PipelineError:
        return None
    return asked.stdout.strip() if asked.exit_code == 0 else None


def _valid(releases: tuple[str, ...]) -> list[str]:
    """The releases that are version numbers; a build before a release counts as that release too."""
    found = []
    for release in releases:
        with suppress(InvalidVersion):
            version = Version(release)
            found.extend([str(version), version.base_version])
    return found


def _named(script: str) -> str:
    """How to reach a script of another folder of examples, by its path from the config's own."""
    folder = Path(script).parent.name
    return f"write {script}" if folder == "quantization" else f"write {script}, or example_name: {folder}"


def _makes_engines(folder: Path) -> bool:
    """Whether scripts that convert or build a model are there, and not only tools for other examples."""
    return any(re.search("build|convert", script.name) for script in folder.glob("*.py"))
