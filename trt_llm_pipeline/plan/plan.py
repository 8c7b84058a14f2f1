"""From a config to what would run: programs, arguments and directories, with every mistake named.

Nothing is run, downloaded or written here. The workspace is looked at, so that a directory with somebody's
files in it is refused now and not when its step is about to empty it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from trt_llm_pipeline.config import BuildConfig, StepConfig, references
from trt_llm_pipeline.config.references import Resolver, UnresolvedReferenceError
from trt_llm_pipeline.errors import Mistake, ToolchainError, WorkspaceError
from trt_llm_pipeline.model_source import ModelRequest
from trt_llm_pipeline.plan.command import RenderedArgs, render
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Ledger, Workspace

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
        written: its name as the config has it, where that is another.
    """

    name: str
    config: StepConfig
    program: tuple[str, ...]
    example: Path
    output_dir: Path | None
    written: str = ""

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.written or self.name

    @property
    def called(self) -> str:
        """What people call its program: the script's file name, or the executable's."""
        return _called(self.config)


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

    @property
    def dataset_dirs(self) -> dict[str, Path]:
        """Where each of the config's datasets will be, by its name there."""
        return _dataset_dirs(self.config, self.workspace)

    @property
    def dataset_requests(self) -> dict[str, ModelRequest]:
        """What the config asks of the Hub for each dataset, by its name there."""
        wanted = self.config.datasets.items()
        return {name: ModelRequest(each.id, each.revision, kind="dataset") for name, each in wanted}

    @property
    def model_request(self) -> ModelRequest:
        """What the config asks of the model's source."""
        config = self.config
        return ModelRequest(config.model_id, config.revision, config.weight_format, config.model_tar_url)

    @property
    def requests(self) -> tuple[ModelRequest, ...]:
        """All that is downloaded for the config: the model, then the datasets."""
        return (self.model_request, *self.dataset_requests.values())

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

    def releases_of(self, step: PlannedStep) -> tuple[str, ...]:
        """The releases that the step's script follows and that the config allows, oldest first."""
        return self.toolchain.releases_of(step.called, self.config.requires_trt_llm)

    def portable(self, argument: str) -> str:
        """An argument as it would be on any other machine.

        The interpreter becomes `python`, the toolchain's directory `$TRTLLM_DIR`, and the workspace `/src`,
        also in the value of `--option=value`.
        """
        option, equals, value = argument.partition("=")
        if equals and option.startswith("-"):
            return option + equals + self.portable(value)
        for path, shown in ((self.toolchain.python, "python"), (str(self.toolchain.root), "$TRTLLM_DIR")):
            if argument == path or argument.startswith(f"{path}/"):
                return shown + argument[len(path) :]
        return self.workspace.portable(argument)

    def portable_program(self, program: Sequence[str]) -> list[str]:
        """A step's program likewise; one that is installed elsewhere is known by its name."""
        first, *rest = (self.portable(part) for part in program)
        return [Path(first).name if first.startswith("/") else first, *rest]

    def without_stand_ins(self, argument: str) -> str:
        """An argument for people: what only a step will show is named by the reference to it."""
        for name, _ in self.config.steps():
            place = str(_stand_in(self.workspace, name))
            argument = argument.replace(place, f"${{{self.config.called(name)}.output_dir}}")
        return argument

    def expected_dirs(self) -> dict[str, Path]:
        """Each step's output directory, with a stand-in where it is to be found."""
        known = {step.name: step.output_dir for step in self.steps}
        return {name: known.get(name) or _stand_in(self.workspace, name) for name, _ in self.config.steps()}


def make_plan(config: BuildConfig, toolchain: Toolchain, workspace: Workspace) -> tuple[Plan, list[Mistake]]:
    """Plans the build.

    Returns:
        The plan, with the steps that can be planned, and every mistake, in the order of the file.
    """
    planner = _Planner(config, toolchain, workspace)
    steps = planner.steps()
    mistakes = sorted(planner.mistakes, key=lambda mistake: mistake.line or 0)
    return Plan(config, toolchain, workspace, tuple(steps)), mistakes


class _Planner:
    """Plans the steps of one config; `mistakes` has what is wrong so far."""

    def __init__(self, config: BuildConfig, toolchain: Toolchain, workspace: Workspace) -> None:
        self._config = config
        self._toolchain = toolchain
        self._workspace = workspace
        self._resolve = _resolver(config, workspace, {})
        self.mistakes: list[Mistake] = []

    def steps(self) -> list[PlannedStep]:
        """The steps that can be planned."""
        config = self._config
        resolvers = _args_resolvers(config, self._workspace)
        checked = references.check(config, self._resolve, resolvers)
        self.mistakes += [*checked.mistakes, *_release(config, self._toolchain)]
        example = self._example()
        planned = []
        output_dirs: dict[str, Path] = {}
        for name, step in config.steps():
            if name in config.wrong:
                continue
            program = self._program(name, step, example)
            output_dir = self._output_dir(name, step)
            if output_dir is not None:
                output_dirs[name] = output_dir
            if program is None or example is None or name in checked.broken or self._is_doubtful(name, step):
                continue
            if output_dir is not None or step.output_dir is None:
                written = config.called(name)
                planned.append(PlannedStep(name, step, program, example, output_dir, written))
        self.mistakes += _overlaps(config, output_dirs)
        return planned

    def _is_doubtful(self, name: str, step: StepConfig) -> bool:
        """Whether the executable only stands in for one that the text has wrong, or whose key it has."""
        prefixes = (f"{name}.", f"{self._config.called(name)}.")
        keys = [key.partition(".")[2] for key in self._config.wrong if key.startswith(prefixes)]
        others = StepConfig.model_fields.keys() - {"executable", "script"}
        return step.script is None and any("." not in key and key not in others for key in keys)

    def _wrong(self, message: str, *path: str) -> None:
        self.mistakes.append(self._config.mistake(message, *path))

    def _example(self) -> Path | None:
        if "example_name" in self._config.wrong:
            return None
        try:
            return self._toolchain.example_dir(self._config.example_name)
        except ToolchainError as error:
            self._wrong(str(error), "example_name")
            return None

    def _program(self, name: str, step: StepConfig, example: Path | None) -> tuple[str, ...] | None:
        """The beginning of the step's argv: interpreter and script, or the executable."""
        executable = self._toolchain.executable(step.executable)
        if step.script is None or not step.executable.startswith("python"):
            if step.script is not None:
                self._wrong(f"{step.executable} takes no script; leave one of the two out", name, "script")
            return executable
        if example is None:
            return None
        try:
            script = self._toolchain.script(example, self._resolve(step.script))
        except UnresolvedReferenceError:
            return None  # reported with the other references
        except ToolchainError as error:
            self._wrong(str(error), name, "script")
            return None
        return (*executable, str(script))

    def _output_dir(self, name: str, step: StepConfig) -> Path | None:
        if step.output_dir is None:
            return None
        try:
            text = self._resolve(step.output_dir)
            path = self._workspace.output_dir(text)
            Ledger(self._workspace).refuse_foreign(path, text)
            return path
        except UnresolvedReferenceError:
            return None  # reported with the other references
        except WorkspaceError as error:
            self._wrong(str(error), name, "output_dir")
            return None


def _called(step: StepConfig) -> str:
    return PurePath(step.script or step.executable).name


def _release(config: BuildConfig, toolchain: Toolchain) -> list[Mistake]:
    """A release that is required, and that the toolchain is not of, or the script of one of the steps."""
    wanted = config.requires_trt_llm
    if wanted is None:
        return []
    subject, follows = "the toolchain", toolchain.follows
    if toolchain.releases_of("", wanted):
        scripts = [(name, _called(step)) for name, step in config.steps() if name not in config.wrong]
        wrong = [(name, script) for name, script in scripts if not toolchain.releases_of(script, wanted)]
        if not wrong:
            return []
        name, script = wrong[-1]
        subject, follows = (
            f"{script} of step {config.called(name)} in the toolchain",
            toolchain.releases_of(script),
        )
    message = (
        f"TensorRT-LLM {wanted} is required, but {subject} {toolchain.title} at {toolchain.root} follows "
        f"{', '.join(follows) or 'no known release'}; change what is required, or set TRTLLM_DIR to a tree "
        "of the release"
    )
    return [config.mistake(message, "requires_trt_llm")]


def _stand_in(workspace: Workspace, step: str) -> Path:
    return workspace.root / UNKNOWN_DIR / step


def _args_resolvers(config: BuildConfig, workspace: Workspace) -> dict[str, Callable[[str], str]]:
    """What resolves the args of each step, before anything has run: it may refer to what runs before it."""
    earlier: dict[str, str] = {}
    resolvers = {}
    for name, _ in config.steps():
        resolvers[name] = _resolver(config, workspace, dict(earlier))
        earlier[name] = str(_stand_in(workspace, name))
    return resolvers


def _resolver(
    config: BuildConfig, workspace: Workspace, output_dirs: Mapping[str, str]
) -> Callable[[str], str]:
    model_dir = str(workspace.models / config.model_id)
    datasets = {name: str(path) for name, path in _dataset_dirs(config, workspace).items()}
    return Resolver(config, model_dir, output_dirs, workspace.map, datasets).text


def _dataset_dirs(config: BuildConfig, workspace: Workspace) -> dict[str, Path]:
    return {name: workspace.datasets / dataset.id for name, dataset in config.datasets.items()}


def _overlaps(config: BuildConfig, output_dirs: Mapping[str, Path]) -> list[Mistake]:
    """A step empties its output directory, so no two steps may share one."""
    found = []
    names = list(output_dirs)
    for at, later in enumerate(names):
        for earlier in names[:at]:
            mine, theirs = output_dirs[later], output_dirs[earlier]
            if mine.is_relative_to(theirs) or theirs.is_relative_to(mine):
                message = (
                    f"overlaps with {config.called(earlier)}.output_dir, and a step empties its own before "
                    "it runs; choose another directory"
                )
                found.append(config.mistake(message, later, "output_dir"))
    return found
