"""`${...}` in a config: a scalar that stands elsewhere, so that no path is written twice.

`${model_dir}`, `${datasets.<name>}`, `${model_id}`, `${revision}`, `${example_name}`,
`${<step>.output_dir}`, `${<step>.script}` and `${<step>.args.<option>}` can be referred to; `$${` is a
literal `${`. A step whose `output_dir` is left out can be referred to in the `args` of later steps only:
nobody knows its directory before it has run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trt_llm_pipeline.config.model import STEP_ALIASES, STEP_NAMES, BuildConfig
from trt_llm_pipeline.config.yaml_reader import Key
from trt_llm_pipeline.errors import Mistake

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_MAX_CHARS = 32_768  # far beyond any path, far below what repeated doubling reaches
_MAX_TOTAL_CHARS = 1_000_000  # below what Linux lets a program be given (2 MiB with its environment)
_MAX_TRAIL = 32
_MAX_MISTAKES = 100  # a config that has more is no honest mistake, and each one takes time to explain
_MAX_COMPARED = 500
_MAX_NAMED = 20
_TOP_LEVEL = ("model_id", "example_name", "revision")


class UnresolvedReferenceError(Exception):
    """A reference that cannot be resolved; its text says why. Turned into a `Mistake` by the caller."""


class UnknownReferenceError(UnresolvedReferenceError):
    """Nothing has the name that is referred to.

    Args:
        said: that it is unknown, in words.
        name: what is referred to.
        names: what can be referred to, and how the author calls each.
    """

    def __init__(self, said: str, name: str, names: Mapping[str, str]) -> None:
        super().__init__(f"{said}; {_advice(name, names)}")
        self._parts = said, name, names

    def told_at(self, own: str) -> str:
        """As a text for the key `own`, which cannot be referred to from itself."""
        said, name, names = self._parts
        closest = _closest(name, names)
        others = {key: shown for key, shown in names.items() if key != own}
        return f"{said}; {_advice(name, others, listed=closest == own)}"


class LeftOutError(UnresolvedReferenceError):
    """It refers to what the config's text has but the config lacks, because it is wrong and was reported."""


class Resolver:
    """Replaces the references of one config.

    Args:
        config: the config.
        model_dir: the text that `${model_dir}` stands for.
        output_dirs: what `${<step>.output_dir}` stands for where the config does not say: directories that
            were found after their step ran, or stand-ins before that.
        written: maps a scalar as the author wrote it, before its references are replaced (`/src`).
        dataset_dirs: what `${datasets.<name>}` stands for.
    """

    def __init__(
        self,
        config: BuildConfig,
        model_dir: str,
        output_dirs: Mapping[str, str],
        written: Callable[[str], str] = str,
        dataset_dirs: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._raw = _scalars(config)
        self._written = written
        self._known = {"model_dir": model_dir}
        self._known |= {f"datasets.{name}": place for name, place in (dataset_dirs or {}).items()}
        for step, directory in output_dirs.items():
            self._known.setdefault(f"{step}.output_dir", directory)
        self._resolved: dict[str, str] = {}

    def text(self, value: str) -> str:
        """`value` with every reference replaced.

        Raises:
            UnresolvedReferenceError: unknown, circular, or too long.
        """
        return self._replace(value, ())

    def _replace(self, value: str, trail: tuple[str, ...]) -> str:

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            if match[1] is None:
                raise UnresolvedReferenceError("'${' is never closed by '}'; write $${ for a literal ${")
            return self._look_up(match[1].strip(), trail)

        result = _REFERENCE.sub(replace, self._written(value))
        if len(result) > _MAX_CHARS:
            raise UnresolvedReferenceError(f"its references stand for more than {_MAX_CHARS:,} characters")
        return result

    def _look_up(self, name: str, trail: tuple[str, ...]) -> str:
        written = name
        first, dot, rest = name.partition(".")
        name = f"{STEP_ALIASES.get(first, first)}{dot}{rest}"
        if name in trail:
            circle = " -> ".join(map(self._as_written, [*trail, name]))
            raise UnresolvedReferenceError(f"the reference ${{{written}}} is circular: {circle}")
        if len(trail) == _MAX_TRAIL:
            raise UnresolvedReferenceError(f"its references lead through more than {_MAX_TRAIL} others")
        if name in self._raw:
            # Remembered, or references to references could take time without end.
            if name not in self._resolved:
                self._resolved[name] = self._replace(self._raw[name], (*trail, name))
            return self._resolved[name]
        if name in self._known:
            return self._known[name]
        raise self._unknown(name, written)

    def _as_written(self, name: str) -> str:
        return self._config.source.dotted(*name.split("."))

    def _unknown(self, name: str, written: str) -> UnresolvedReferenceError:
        steps = dict(self._config.steps())
        step, _, part = name.partition(".")
        if step in steps and part == "output_dir" and steps[step].output_dir is None:
            return UnresolvedReferenceError(
                f"the reference ${{{written}}} is not known before step {self._config.called(step)} has run, "
                f"and only the args of later steps can use it then; declare {written}"
            )
        if step in steps and part.removeprefix("args.") in steps[step].args:
            return UnresolvedReferenceError(
                f"the reference ${{{written}}} is to a flag or a list; write it out"
            )
        if any(name == wrong or name.startswith(f"{wrong}.") for wrong in self._config.wrong):
            return LeftOutError(f"the reference ${{{written}}} is to something that is wrong itself")
        if step == "matrix":
            return UnresolvedReferenceError(
                f"the reference ${{{written}}} is to a fleet's matrix; fleet plan checks a config with "
                "its values"
            )
        if step in STEP_NAMES and step not in steps:
            there = " and ".join(map(self._config.called, steps))
            return UnresolvedReferenceError(
                f"the reference ${{{written}}} is to a step that is not in this config; it has {there}"
            )
        names = [*dict.fromkeys([*self._known, *self._raw])][:_MAX_COMPARED]
        shown = {each: self._as_written(each) for each in names}
        return UnknownReferenceError(f"the reference ${{{written}}} is unknown", name, shown)


def _closest(name: str, names: Mapping[str, str]) -> str | None:
    """The name that was probably meant: one beside it rather than one that only begins alike."""
    head, _, tail = name.rpartition(".")
    beside = {each.rpartition(".")[2]: each for each in names if each.rpartition(".")[0] == head}
    if close := difflib.get_close_matches(tail, beside, 1, 0.6):
        return beside[close[0]]
    first = name.partition(".")[0]
    alike = [
        each for each in names if difflib.SequenceMatcher(None, first, each.partition(".")[0]).ratio() >= 0.7
    ]
    close = [] if head and beside else difflib.get_close_matches(name, alike, 1, 0.7)
    return close[0] if close else None


def _advice(name: str, names: Mapping[str, str], *, listed: bool = False) -> str:
    """What to write instead; all that could be, where `listed` or where nothing is close."""
    closest = None if listed else _closest(name, names)
    if closest is not None:
        return f"did you mean ${{{names[closest]}}}?"
    return f"known: {', '.join(names[key] for key in sorted(names)[:_MAX_NAMED])}"


@dataclass(frozen=True)
class Checked:
    """What is wrong with a config's references.

    Attributes:
        mistakes: one for each scalar that cannot be resolved.
        broken: the steps that cannot be rendered.
    """

    mistakes: tuple[Mistake, ...]
    broken: frozenset[str]


def check(
    config: BuildConfig, fixed: Callable[[str], str], args: Mapping[str, Callable[[str], str]]
) -> Checked:
    """Tries every scalar of the config that may hold references.

    Args:
        config: the config.
        fixed: resolves what must be known before anything runs: each `output_dir` and `script`.
        args: resolves the `args` of each step, by its name.
    """
    found: list[Mistake] = []
    broken: set[str] = set()
    chars = 0
    for path, value in _walk(config):
        step = str(path[0])
        try:
            chars += len((args[step] if path[1] == "args" else fixed)(value))
        except LeftOutError:
            broken.add(step)
        except UnresolvedReferenceError as problem:
            broken.add(step)
            own = ".".join(map(str, path))
            said = problem.told_at(own) if isinstance(problem, UnknownReferenceError) else str(problem)
            found.append(config.mistake(said, *path))
        if chars > _MAX_TOTAL_CHARS:
            message = f"with this the config stands for more than {_MAX_TOTAL_CHARS:,} characters"
            found.append(config.mistake(message, *path))
        if chars > _MAX_TOTAL_CHARS or len(found) > _MAX_MISTAKES:
            return Checked(tuple(found), frozenset(dict(config.steps())))
    return Checked(tuple(found), frozenset(broken))


def _walk(config: BuildConfig) -> Iterator[tuple[tuple[Key, ...], str]]:
    """Every scalar that may hold references, with its path."""
    for name, step in config.steps():
        if step.output_dir is not None:
            yield (name, "output_dir"), step.output_dir
        if step.script is not None:
            yield (name, "script"), step.script
        for key, value in step.args.items():
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            for text in texts:
                yield (name, "args", key), text


def _scalars(config: BuildConfig) -> dict[str, str]:
    """What can be referred to, as written."""
    raw = {}
    for key in _TOP_LEVEL:
        value = getattr(config, key)
        if value is not None:
            raw[key] = value
    for name, step in config.steps():
        if step.output_dir is not None:
            raw[f"{name}.output_dir"] = step.output_dir
        if step.script is not None:
            raw[f"{name}.script"] = step.script
        for key, value in step.args.items():
            if isinstance(value, str):
                raw[f"{name}.args.{key}"] = value
    return raw
