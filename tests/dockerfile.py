"""Reads a Dockerfile, and replays it in a scratch directory instead of an image."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docker.utils import exclude_paths

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "Dockerfile"
#: The image's directories that a replay makes; everything else in the image comes from its base.
IMAGE_DIRS = ("/src", "/opt/service", "/build")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword, its text without continuations, and the line it begins on."""

    keyword: str
    text: str
    line: int

    @property
    def words(self) -> list[str]:
        """The arguments of an instruction in its JSON form, or else the words of its text."""
        found = re.search(r"\[.*\]$", self.text)
        return [str(word) for word in json.loads(found[0])] if found else shlex.split(self.text)


def instructions(text: str) -> Iterator[Instruction]:
    """The Dockerfile's instructions, comments left out."""
    pending: list[str] = []
    begun = 0
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped.startswith("#") or (not stripped and not pending):
            continue
        begun = begun if pending else number
        pending.append(stripped.removesuffix("\\").strip())
        if not stripped.endswith("\\"):
            keyword, _, rest = " ".join(pending).partition(" ")
            yield Instruction(keyword.upper(), rest.strip(), begun)
            pending = []


def stages(text: str) -> list[list[Instruction]]:
    """The instructions of each stage, FROM first; what comes before the first FROM is left out."""
    found: list[list[Instruction]] = []
    for instruction in instructions(text):
        if instruction.keyword == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def environment(stage: list[Instruction], inherited: str = "") -> dict[str, str]:
    """The variables that a stage's ENV instructions set; `inherited` stands for the base image's PATH."""
    pairs = (word.partition("=") for item in stage if item.keyword == "ENV" for word in item.words)
    return {name: value.replace("${PATH}", inherited) for name, _, value in pairs}


def build_context(source: Path) -> set[str]:
    """The files below `source` that Docker would send to the builder, by Docker's own rules."""
    lines = (line.strip() for line in (ROOT / ".dockerignore").read_text().split("\n"))
    patterns = [line for line in lines if line and not line.startswith("#")]
    names = exclude_paths(str(source), patterns)
    return {name for name in names if (source / name).is_file()}


def tracked_files(*more: str) -> list[str]:
    """The files that git knows here; with "--others", also those that are new and not ignored."""
    argv = ["git", "ls-files", "-z", "--cached", "--exclude-standard", *more]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@dataclass
class Replay:
    """A Dockerfile's layout below `root`, which stands for the image's file system.

    Attributes:
        root: an empty directory.
        install: True to install packages as the Dockerfile does, False to borrow those of this environment.
        skipped: the parts of RUN instructions that need the base image and were not run.
    """

    root: Path
    install: bool
    skipped: list[str] = field(default_factory=list)

    def run(self) -> dict[str, str]:
        """Replays every stage; the environment of the last one."""
        context = self.root / "context"
        for name in tracked_files("--others"):
            _copy(ROOT / name, context / name)
        sent = build_context(context)
        image = stages(DOCKERFILE.read_text())
        env: dict[str, str] = {}
        for stage in image:
            # Stages share one root: each makes directories of its own, and COPY --from keeps their names.
            inherited = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            env = {name: self.map(value) for name, value in environment(stage, inherited).items()}
            self._stage(stage, context, sent, {**os.environ, "PATH": inherited, **env})
        return env

    def map(self, text: str) -> str:
        """`text` with the image's directories replaced by those below the root."""
        names = "|".join(re.escape(name) for name in IMAGE_DIRS)
        return re.sub(rf"(?<![\w./-])({names})(?![\w-])", lambda match: str(self.root) + match[1], text)

    def _stage(self, stage: list[Instruction], context: Path, sent: set[str], env: dict[str, str]) -> None:
        here = self.root
        for item in stage:
            if item.keyword == "WORKDIR":
                here = Path(self.map(item.text))
                here.mkdir(parents=True, exist_ok=True)
            elif item.keyword == "COPY":
                self._copy_instruction(item, context, sent, here)
            elif item.keyword == "RUN":
                self._run_instruction(item, here, env)

    def _copy_instruction(self, item: Instruction, context: Path, sent: set[str], here: Path) -> None:
        words = item.words
        if words[0].startswith("--from="):
            source = Path(self.map(words[1]))
            assert source.is_dir(), f"line {item.line}: {words[1]} was not made by an earlier stage"
            assert words[1] == words[2], "stages share one root, so a directory keeps its name"
            return
        *sources, target = words
        for source in sources:
            if source == ".":
                copies = [(name, here / target / name) for name in sent]
            else:
                into = target.endswith("/")
                copies = [(source, here / target / Path(source).name if into else here / target)]
            for name, place in copies:
                assert name in sent, f"line {item.line}: {name} is not in the build context"
                _copy(context / name, place)

    def _run_instruction(self, item: Instruction, here: Path, env: dict[str, str]) -> None:
        for command in (part.strip() for part in item.text.split("&&")):
            if command.startswith("apt-get") or command.startswith("rm -rf /var/lib/apt"):
                self.skipped.append(command)
            elif " -m pip install " in command and not self.install:
                self._borrow(command, here)
            else:
                done = subprocess.run(
                    ["bash", "-c", self.map(command)], cwd=here, env=env, capture_output=True, text=True
                )
                assert done.returncode == 0, f"line {item.line}: {command}\n{done.stdout}{done.stderr}"

    def _borrow(self, command: str, here: Path) -> None:
        """Stands in for an installation: its files must be there, and the packages are this environment's."""
        words = shlex.split(command)
        files = [words[at + 1] for at, word in enumerate(words) if word in ("-r", "-c")]
        assert files or "-e" in words, command
        for name in files:
            assert (here / name).is_file(), name
        site = next((self.root / "opt/service/lib").glob("python3*/site-packages"))
        packages = Path(sysconfig.get_path("purelib")) if files else here
        (site / f"{packages.name}.pth").write_text(f"{packages}\n")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
