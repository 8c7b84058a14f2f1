"""Two workspaces with the same files and the same history: one builds with the cache, the other without.

The toolchain is one shell script, so that a build takes a fraction of a second: it writes down what it was
told and everything that its arguments name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trt_llm_pipeline import pipeline
from trt_llm_pipeline.config import loads
from trt_llm_pipeline.errors import TrtLlmPipelineError
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.preflight import Validated
from trt_llm_pipeline.process import Layers
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

MODEL_ID = "tiny/model"
CONFIG_NAME = "cog-trt-llm-config.yaml"
SCRIPT = """
show() { echo "<${1##*/}>"; cat "$1" 2>/dev/null; }
mkdir -p "$2"
{
  option= beside=
  for argument; do
    case $argument in
      --*) option=$argument;;
      *) case $option in
        --beside) beside=$argument;;
        --text) echo "$argument";;
        --read)
          if [ -d "$argument" ]; then
            find -L "$argument" -type f | LC_ALL=C sort | while read -r file; do show "$file"; done
          else
            show "$argument"
          fi;;
      esac;;
    esac
  done
} > "$2/.new"
mv "$2/.new" "$2/rank0.engine"
echo '{"made": "by a test"}' > "$2/config.json"
[ -z "$beside" ] || echo "$2 $(cksum < "$2/rank0.engine")" >> "$beside"
"""


@dataclass
class Log(Recorder):
    """What builds have said. `meanwhile` is done once, while a script runs."""

    meanwhile: Callable[[], None] | None = None

    def usage(self, stage: str, memory_bytes: int, peak_bytes: int, gpu_bytes: Sequence[int]) -> None:
        if self.meanwhile is not None:
            do, self.meanwhile = self.meanwhile, None
            do()

    @property
    def runs(self) -> list[str]:
        """The steps whose script was started."""
        return [line.split()[1].rstrip(":") for line in self.lines if "/bin/sh" in line]


@dataclass(frozen=True)
class Step:
    """One step of a config; paths are relative to the workspace."""

    out: str
    text: str
    reads: tuple[str, ...] = ()
    beside: str | None = None
    declared: bool = True

    def lines(self, name: str) -> list[str]:
        found = [f"{name}:", "  script: step.sh"]
        found += [f"  output_dir: {self.out}"] if self.declared else []
        found += ["  args:", f"    out: {self.out}", f"    text: {self.text}"]
        found += [f"    read: {json.dumps(self.reads)}"] if self.reads else []
        found += [f"    beside: {self.beside}"] if self.beside else []
        return found


@dataclass(frozen=True)
class Recipe:
    """A config with one step, or two."""

    build: Step
    convert: Step | None = None

    def text(self, *, cache: bool) -> str:
        lines = [f"model_id: {MODEL_ID}", "example_name: tiny", "compression: none"]
        lines += self.convert.lines("convert_to_ft") if self.convert else []
        lines += self.build.lines("build")
        return "\n".join([*lines, f"cache: {str(cache).lower()}"]) + "\n"


def make_model(folder: Path, weights: str = "weights.bin") -> None:
    """A model of four small files."""
    folder.mkdir(parents=True)
    for name, text in {
        "config.json": '{"model_type": "gpt2"}',
        "tokenizer.json": "{}",
        "tokenizer_config.json": '{"tokenizer_class": "PreTrainedTokenizerFast"}',
        weights: "w",
    }.items():
        (folder / name).write_text(text)


class World:
    """One workspace, with a model of the user's own and a directory beside it.

    Args:
        folder: where all of it is.
        toolchain: with `step.sh`.
        cache: whether its configs use the cache.
        hub: the address of a Hub to take the model from instead.
        layers: of the sandbox in which steps run.
        env: more variables of the service's.

    Attributes:
        meanwhile: a change to the workspace, made once while the next script runs.
    """

    def __init__(
        self,
        folder: Path,
        toolchain: Path,
        *,
        cache: bool,
        hub: str | None = None,
        layers: Layers = Layers(),  # noqa: B008  frozen
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.root = folder / "workspace"
        self.cache = cache
        self.layers = layers
        self.meanwhile: Callable[[Path], None] | None = None
        self.tools = Toolchain(
            toolchain, "tiny", "1.0", ("1.0",), "/bin/sh", "for a test", os.environ["PATH"]
        )
        more = {**({"HF_ENDPOINT": hub} if hub else {}), **env}
        variables = {"PATH": os.environ["PATH"], **more}
        self.settings = Settings(
            workspace=Workspace.at(self.root), env=variables, token=None, disk_check=False
        )
        self.log = Log()
        (folder / "outside").mkdir(parents=True)
        (self.root / "notes").mkdir(parents=True)
        (self.root / "notes" / "a").write_text("a")
        (folder / "outside" / "b").write_text("b")
        if hub is None:
            make_model(self.root / "models" / MODEL_ID)
        (self.root / "link").symlink_to("notes/a")

    def build(self, recipe: Recipe) -> dict[str, Any] | str:
        """What is in the archive, without what says whether there is a cache; or how the build failed."""
        change, self.meanwhile = self.meanwhile, None
        self.log = Log(meanwhile=partial(change, self.root) if change else None)
        config = loads(recipe.text(cache=self.cache), "c.yaml")
        try:
            planned, mistakes = make_plan(config, self.tools, self.settings.workspace)
            if mistakes:
                return f"refused: {[mistake.message for mistake in mistakes]}"
            result = pipeline.build(Validated(planned, (), self.layers), self.settings, self.log)
        except TrtLlmPipelineError as error:
            return f"{type(error).__name__}: {error}".replace(str(self.root), "")
        assert result.archive is not None
        return contents(result.archive.read_bytes())

    def files(self) -> dict[str, str]:
        """The content of every file in the workspace that is not the service's own."""
        found = {}
        for path in self.root.rglob("*"):
            top = path.relative_to(self.root).parts[0]
            own = top in ("builds", ".trt-llm-pipeline") or top.startswith("engine.tar")
            if path.is_file() and not own:
                found[str(path.relative_to(self.root))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


def contents(archive: bytes) -> dict[str, Any]:
    """The files of an archive; of its manifest what does not depend on the config's own text."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found: dict[str, Any] = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    del found[CONFIG_NAME]
    manifest = json.loads(found["manifest.json"])
    del manifest["files"][CONFIG_NAME]
    return {**found, "manifest.json": manifest}


class Pair:
    """The two worlds, which share a toolchain."""

    def __init__(self, folder: Path, layers: Layers = Layers()) -> None:  # noqa: B008  frozen
        self.script = folder / "toolchain" / "examples" / "tiny" / "step.sh"
        self.script.parent.mkdir(parents=True)
        self.script.write_text(SCRIPT)
        tools = self.script.parent.parent.parent
        self.cached = World(folder / "with", tools, cache=True, layers=layers)
        self.plain = World(folder / "without", tools, cache=False, layers=layers)

    def each(self, change: Callable[[Path], None]) -> None:
        """Makes the same change in both workspaces."""
        for world in (self.cached, self.plain):
            change(world.root)

    def build(self, recipe: Recipe) -> list[str]:
        """Builds in both and compares; the steps that the cache did not save."""
        cached, plain = self.cached.build(recipe), self.plain.build(recipe)
        assert cached == plain, "the cache has changed what is in the archive"
        assert self.cached.files() == self.plain.files(), "the cache has changed what is in the workspace"
        return self.cached.log.runs


def write(path: Path, text: str, *, keep_times: bool = False) -> None:
    """Writes a user's file, whatever is there before."""
    before = path.stat() if keep_times and path.is_file() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True) if path.is_symlink() else None
    path.write_text(text)
    if before is not None:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    """Removes a file or a directory, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
    if path.is_file() or path.is_symlink():
        path.unlink()


_USERS = ("notes/a", "notes/b", "../outside/b", f"models/{MODEL_ID}/chat_template.jinja")
_MODEL = (f"models/{MODEL_ID}/weights.bin", f"models/{MODEL_ID}/tokenizer.json")
_READS = (
    *("./notes", "./notes/a", "./link", "../outside", "./beside", "./ckpt-0", "./ckpt-1/rank0.engine"),
    *("./engine-0/rank0.engine", "./engine-1", "./nothing", "${model_dir}", "some text"),
)


def random_recipe(choose: random.Random) -> Recipe:
    """A config that reads this and that."""

    def reads() -> tuple[str, ...]:
        return tuple(choose.sample(_READS, choose.choice((0, 1, 1, 2))))

    def beside() -> str | None:
        return choose.choice((None, None, "./beside"))

    declared = choose.random() < 0.8
    convert = Step(f"./ckpt-{choose.randrange(2)}", choose.choice("xy"), reads(), beside(), declared)
    build = Step(
        f"./engine-{choose.randrange(2)}", choose.choice("xy"), (*reads(), convert.out), beside(), declared
    )
    return Recipe(build, convert if choose.random() < 0.8 else None)


def random_change(choose: random.Random, pair: Pair) -> str:
    """Changes something in both workspaces, or the script; what it was."""
    what = choose.random()
    if what < 0.05:
        pair.script.write_text(f"{SCRIPT}# {choose.random()}\n")
        return "another script"
    if what < 0.6:
        path, text, keep = choose.choice(_USERS + _MODEL), choose.choice("pq"), choose.random() < 0.5
        text = "{}" if path.endswith("tokenizer.json") and text == "p" else text
        pair.each(lambda root: write(root / path, text, keep_times=keep))
        return f"{path} is {text!r}{', size and times kept' if keep else ''}"
    if what < 0.75:
        path = choose.choice(_USERS)
        pair.each(lambda root: remove(root / path))
        return f"no {path}"
    path = choose.choice(("ckpt-0", "ckpt-1", "engine-0", "engine-1/rank0.engine", "beside", "engine.tar"))
    if what < 0.9:
        pair.each(lambda root: remove(root / path))
        return f"no {path}"

    def tamper(root: Path) -> None:
        victim = root / "engine-1" / "rank0.engine"
        if victim.is_file():
            data = victim.read_text()
            write(victim, data[:-1] + ("!" if data[-1:] != "!" else "?"), keep_times=True)

    pair.each(tamper)
    return "another engine-1/rank0.engine, size and times kept"
