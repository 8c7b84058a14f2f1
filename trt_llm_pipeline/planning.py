"""From a config to what would run: programs, arguments and directories, with every mistake named.

Nothing is run, downloaded or written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline import references
from trt_llm_pipeline.command import RenderedArgs, render
from trt_llm_pipeline.config import BuildConfig, StepConfig
from trt_llm_pipeline.errors import Mistake, ToolchainError, WorkspaceError
from trt_llm_pipeline.references import Resolver, UnresolvedReferenceError
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

#: Stands for an output directory that only the step itself will show.
UNKNOWN_DIR = "to-be-found"


@dataclass(frozen=True)
class PlannedStep:
    """A step, ready to be run once its references can be resolved.

    Attributes:
        name: `convert_to_ft`, `quantize` or `build`.
        config: what the config says about it.
        program: the beginning of its argv: interpreter and script, or the executable.
        example: the directory of its example.
        output_dir: where its results will be, or None where that is to be found.
    """

    name: str
    config: StepConfig
    program: tuple[str, ...]
    example: Path
    output_dir: Path | None


@dataclass(frozen=True)
class Plan:
    """A config that can be run on a toolchain, in a workspace."""

    config: BuildConfig
    toolchain: Toolchain
    workspace: Workspace
    steps: tuple[PlannedStep, ...]

    @property
    def model_dir(self) -> Path:
        """Where the model will be."""
        return self.workspace.models / self.config.model_id

    def render(self, step: PlannedStep, found: Mapping[str, Path]) -> RenderedArgs:
        """The step's arguments.

        Args:
            step: one of `steps`.
            found: the output directories that are known by now, by step.
        """
        return render(step.config.args, self.resolver(found))

    def resolver(self, found: Mapping[str, Path]) -> Callable[[str], str]:
        """Maps a scalar of the config to the text that a script is given; `found` as for `render`."""
        return _resolver(self.config, self.workspace, {k: str(v) for k, v in found.items()})

    def expected_dirs(self) -> dict[str, Path]:
        """Each step's output directory, with a stand-in where it is to be found."""
        stand_in = self.workspace.root / UNKNOWN_DIR
        return {step.name: step.output_dir or stand_in / step.name for step in self.steps}


def plan(config: BuildConfig, toolchain: Toolchain, workspace: Workspace) -> tuple[Plan, list[Mistake]]:
    """Plans the build.

    Returns:
        The plan, with the steps that can be planned, and every mistake, in the order of the steps.
    """
    mistakes: list[Mistake] = []
    unknown = {name: str(workspace.root / UNKNOWN_DIR / name) for name, _ in config.steps()}
    resolve = _resolver(config, workspace, unknown)
    broken = references.check(config, resolve)
    mistakes.extend(broken)
    mistakes.extend(_release(config, toolchain))
    example = _example(config, toolchain, mistakes)
    steps = []
    for name, step in config.steps():
        planned = _step(name, step, config, toolchain, workspace, example, resolve, mistakes)
        if planned is not None and not any(_below(mistake, name) for mistake in broken):
            steps.append(planned)
    mistakes.extend(_overlaps(config, steps))
    return Plan(config, toolchain, workspace, tuple(steps)), mistakes


def _resolver(
    config: BuildConfig, workspace: Workspace, output_dirs: Mapping[str, str]
) -> Callable[[str], str]:
    model_dir = str(workspace.models / config.model_id)
    resolver = Resolver(config, model_dir, output_dirs)
    return lambda value: workspace.map(resolver.text(value))


def _release(config: BuildConfig, toolchain: Toolchain) -> list[Mistake]:
    wanted = config.requires_trt_llm
    if wanted is None or toolchain.meets(wanted):
        return []
    follows = ", ".join(toolchain.follows) or "no known release"
    message = (
        f"TensorRT-LLM {wanted} is required, but the toolchain {toolchain.name} {toolchain.version} at "
        f"{toolchain.root} follows {follows}; set TRTLLM_DIR to a tree of that release"
    )
    return [config.mistake(message, "requires_trt_llm")]


def _example(config: BuildConfig, toolchain: Toolchain, mistakes: list[Mistake]) -> Path | None:
    try:
        return toolchain.example_dir(config.example_name)
    except ToolchainError as error:
        mistakes.append(config.mistake(str(error), "example_name"))
        return None


def _step(
    name: str,
    step: StepConfig,
    config: BuildConfig,
    toolchain: Toolchain,
    workspace: Workspace,
    example: Path | None,
    resolve: Callable[[str], str],
    mistakes: list[Mistake],
) -> PlannedStep | None:
    program: tuple[str, ...] | None = None
    if step.script is None or not step.executable.startswith("python"):
        program = toolchain.executable(step.executable, None)
        if step.script is not None:
            message = f"{step.executable} takes no script; leave one of the two out"
            mistakes.append(config.mistake(message, name, "script"))
    elif example is not None:
        try:
            script = toolchain.script(example, resolve(step.script))
            program = (*toolchain.executable(step.executable, None), str(script))
        except UnresolvedReferenceError:
            pass  # reported with the other references
        except ToolchainError as error:
            mistakes.append(config.mistake(str(error), name, "script"))
    output_dir: Path | None = None
    if step.output_dir is not None:
        try:
            output_dir = workspace.output_dir(resolve(step.output_dir))
        except UnresolvedReferenceError:
            return None
        except (WorkspaceError, ValueError, OSError) as error:
            mistakes.append(config.mistake(str(error), name, "output_dir"))
            return None
    if program is None or example is None:
        return None
    return PlannedStep(name, step, program, example, output_dir)


def _overlaps(config: BuildConfig, steps: list[PlannedStep]) -> list[Mistake]:
    """A step empties its output directory, so no two steps may share one."""
    found = []
    for at, later in enumerate(steps):
        for earlier in steps[:at]:
            mine, theirs = later.output_dir, earlier.output_dir
            if mine is None or theirs is None:
                continue
            if mine.is_relative_to(theirs) or theirs.is_relative_to(mine):
                message = (
                    f"overlaps with {earlier.name}.output_dir, and a step empties its own before it runs; "
                    "choose another directory"
                )
                found.append(config.mistake(message, later.name, "output_dir"))
    return found


def _below(mistake: Mistake, step: str) -> bool:
    return mistake.key is not None and mistake.key.startswith(f"{step}.")
