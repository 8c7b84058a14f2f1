"""Every mistake of a config, found before anything is downloaded, run or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trt_llm_pipeline import toolchain
from trt_llm_pipeline.cache import FileHashes, StepCache, UnhashableError, fingerprint
from trt_llm_pipeline.cache.inputs import Disks
from trt_llm_pipeline.config import BuildConfig, Loaded, examine
from trt_llm_pipeline.errors import ConfigError, Mistake, ToolchainError
from trt_llm_pipeline.plan import Plan, PlannedStep, make_plan
from trt_llm_pipeline.preflight.argument_places import misplaced
from trt_llm_pipeline.preflight.fitting import PARALLEL_KEYS
from trt_llm_pipeline.preflight.parser_check import NotChecked, OptionMistake, probe
from trt_llm_pipeline.preflight.unmade import astray, unmade, unread
from trt_llm_pipeline.process import (
    Layers,
    find_layers,
    hidden_places,
    program_places,
    reduced,
    toolchain_places,
)
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.workspace import disk


@dataclass(frozen=True)
class Validated:
    """A config without mistakes.

    Attributes:
        plan: what will run.
        notes: what could not be checked, and why, or may be a mistake; one sentence each.
        layers: what can be held of a sandbox here.
        unchecked: the steps whose options could not be checked.
        accepted: the names of all options that a step's script has, by step, where it was asked just now.
    """

    plan: Plan
    notes: tuple[str, ...]
    layers: Layers
    unchecked: tuple[str, ...] = ()
    accepted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def options(self) -> int:
        """How many options were checked."""
        dirs = self.plan.expected_dirs()
        steps = [step for step in self.plan.steps if step.shown not in self.unchecked]
        return sum(len(set(self.plan.render(step, dirs).keys)) for step in steps)

    def in_words(self) -> str:
        """What it was checked against: `OK for cpu toolchain (build.py of 0.7.1): 2 steps, 11 options`."""
        plan, last = self.plan, self.plan.steps[-1]
        releases = " and ".join(plan.releases_of(last)) or "no known release"
        steps = f"{len(plan.steps)} step{'s' * (len(plan.steps) != 1)}"
        text = f"OK for {plan.toolchain.name} toolchain ({last.called} of {releases}): {steps}"
        text += f", {self.options} option{'s' * (self.options != 1)}"
        if self.unchecked:
            text += f"; the options of {' and '.join(self.unchecked)} could not be checked"
        return text

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        plan, last = self.plan, self.plan.steps[-1]
        return {
            "toolchain": plan.toolchain.name,
            "script": last.called,
            "releases": list(plan.releases_of(last)),
            "steps": len(plan.steps),
            "options": self.options,
            "unchecked_steps": list(self.unchecked),
        }


def validate(text: str, name: str, settings: Settings, overrides: Sequence[str] = ()) -> Validated:
    """Checks a config's text against the format, the toolchain, the workspace and each script's own parser.

    Args:
        text: the YAML text.
        name: what to call it in messages.
        settings: the workspace, and the environment that scripts get.
        overrides: values given in place of the text's; see `config.overrides`.

    Raises:
        ConfigError: with every mistake, in the order of the file.
        ToolchainError: there is no usable toolchain to check against.
        PipelineError: a sandbox is required that cannot be made here, or the workspace cannot be.
    """
    return validate_loaded(examine(text, name, overrides), name, settings)


def validate_loaded(loaded: Loaded, name: str, settings: Settings) -> Validated:
    """As `validate`, of a config whose text has been read already."""
    with disk.translated(settings.workspace.root):
        settings.workspace.check()
        return _validated(loaded, name, settings)


def _validated(loaded: Loaded, name: str, settings: Settings) -> Validated:
    layers = find_layers(settings.sandbox)
    found = list(loaded.mistakes)
    notes: list[str] = []
    unchecked: list[str] = []
    accepted: dict[str, frozenset[str]] = {}
    planned: Plan | None = None
    if loaded.config is not None:
        tools = toolchain.find(settings.env)
        planned, wrong = make_plan(loaded.config, tools, settings.workspace)
        found.extend(wrong)
        found.extend(_misplaced(planned, settings, layers))
        known = _Accepted(planned, settings)
        for step in planned.steps:
            notes.extend([*unmade(planned, step, confined=layers.files), *astray(planned, step)])
            if known.accepts(step) or _lacks_its_args(planned, step):
                continue
            wrong, step_notes, options = _preflight(planned, step, settings, layers)
            if options is None:
                unchecked.append(step.shown)
            else:
                accepted[step.name] = options
            found.extend(wrong)
            notes.extend(step_notes)
        if not found:
            found.extend(_too_many_ranks(planned))
            notes.extend(unread(planned))
    if found or planned is None:
        found.sort(key=lambda mistake: mistake.line or 0)
        raise ConfigError(found, name)
    return Validated(planned, tuple(notes), layers, tuple(unchecked), accepted)


def _lacks_its_args(planned: Plan, step: PlannedStep) -> bool:
    """Whether a step has no `args`, and a key that may be theirs, mistyped and told of."""
    own = tuple(f"{name}." for name in {step.name, step.shown})
    return not step.config.args and any(key.startswith(own) for key in planned.config.wrong)


def _misplaced(planned: Plan, settings: Settings, layers: Layers) -> list[Mistake]:
    hidden = hidden_places(settings.workspace.root, settings.env)
    tools = planned.toolchain
    places = [
        *toolchain_places(tools.root, hidden),
        *program_places(tools.python, settings.env, hidden),
    ]
    return misplaced(planned, places, confined=layers.files)


def _too_many_ranks(planned: Plan) -> list[Mistake]:
    """What asks for more ranks than the toolchain's engines have, where no script has refused it."""
    most = planned.toolchain.most_ranks
    return [
        planned.config.mistake(
            f"{value} ranks, but engines of the {planned.toolchain.title} toolchain run on {most}; "
            f"write {most}",
            step.name,
            "args",
            key,
        )
        for step in planned.steps
        for key, value in step.config.args.items()
        if most is not None and key.lstrip("-") in PARALLEL_KEYS and isinstance(value, str)
        if value.isdecimal() and int(value) > most
    ]


class _Accepted:
    """Knows which steps have run before, successfully and with the same scripts and arguments."""

    def __init__(self, planned: Plan, settings: Settings) -> None:
        self._plan = planned
        self._cache = StepCache(planned.workspace, 0, settings.cache_folder)
        self._toolchain: str | None = None

    def accepts(self, step: PlannedStep) -> bool:
        if not self._plan.config.cache or not self._cache.knows_accepted():
            return False
        try:
            if self._toolchain is None:
                self._toolchain = fingerprint.toolchain_identity(
                    self._plan.toolchain, FileHashes(self._plan.workspace.state / "hashes.json"), Disks()
                )
            argv = self._plan.render(step, self._plan.expected_dirs()).argv
            return self._cache.accepted(fingerprint.preflight_key(self._toolchain, step.program, argv))
        except (OSError, UnhashableError):
            return False


def _preflight(
    planned: Plan, step: PlannedStep, settings: Settings, layers: Layers
) -> tuple[list[Mistake], list[str], frozenset[str] | None]:
    """Asks the step's script whether it would accept its arguments.

    Returns:
        Mistakes, notes, and the names of all options that it has; None where it could not be asked.

    Raises:
        ToolchainError: what should be the toolchain's Python is none.
    """
    rendered = planned.render(step, planned.expected_dirs())
    answer = probe(
        [*step.program, *rendered.argv],
        interpreter=planned.toolchain.python,
        toolchain_root=planned.toolchain.root,
        env=reduced(settings.env, more=settings.sandbox.variables),
        layers=layers,
        hidden=hidden_places(settings.workspace.root, settings.env),
    )
    if isinstance(answer, NotChecked):
        if answer.no_python and step.program[0] == planned.toolchain.python:
            raise ToolchainError(
                f"TRTLLM_PYTHON is {planned.toolchain.python}, which runs no Python script: {answer.reason}. "
                "Name a Python interpreter, or unset it"
            )
        return [], [f"the arguments of step {step.shown} are not checked: {answer.reason}"], None
    mistakes = [_mistake(planned.config, step, wrong, rendered.keys) for wrong in answer.mistakes]
    notes = []
    if answer.leftovers:
        listed = " ".join(answer.leftovers)
        notes.append(f"step {step.shown}: its script leaves these arguments to be read later: {listed}")
    names = frozenset(name for option in answer.options for name in option.strings)
    return mistakes, notes, names


def _mistake(
    build_config: BuildConfig, step: PlannedStep, wrong: OptionMistake, keys: tuple[str, ...]
) -> Mistake:
    """One of the parser's findings, at the config's line."""
    if wrong.argv_index is not None and 0 <= wrong.argv_index < len(keys):
        return build_config.mistake(wrong.message, step.name, "args", keys[wrong.argv_index])
    return build_config.mistake(wrong.message, step.name, "args")
