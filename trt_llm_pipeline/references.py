"""`${...}` in a config: a scalar that stands elsewhere, so that no path is written twice.

`${model_dir}`, `${model_id}`, `${revision}`, `${example_name}`, `${<step>.output_dir}`, `${<step>.script}`
and `${<step>.args.<option>}` can be referred to; `$${` is a literal `${`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping

from trt_llm_pipeline.config import BuildConfig
from trt_llm_pipeline.errors import Mistake
from trt_llm_pipeline.yaml_source import Key

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_MAX_CHARS = 32_768  # far beyond any path, far below what repeated doubling reaches
_TOP_LEVEL = ("model_id", "example_name", "revision")


class UnresolvedReferenceError(Exception):
    """A reference that cannot be resolved; its text says why. Turned into a `Mistake` by the caller."""


class Resolver:
    """Replaces the references of one config.

    Args:
        config: the config.
        model_dir: the text that `${model_dir}` stands for.
        output_dirs: what `${<step>.output_dir}` stands for where the config does not say: directories that
            were found after their step ran, or stand-ins before that.
    """

    def __init__(self, config: BuildConfig, model_dir: str, output_dirs: Mapping[str, str]) -> None:
        self._config = config
        self._raw = _scalars(config)
        self._known = {"model_dir": model_dir}
        for step, directory in output_dirs.items():
            self._known.setdefault(f"{step}.output_dir", directory)

    def text(self, value: str, trail: tuple[str, ...] = ()) -> str:
        """`value` with every reference replaced.

        Raises:
            UnresolvedReferenceError: unknown, circular, or too long.
        """

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            if match[1] is None:
                raise UnresolvedReferenceError("'${' is never closed by '}'; write $${ for a literal ${")
            return self._look_up(match[1].strip(), trail)

        result = _REFERENCE.sub(replace, value)
        if len(result) > _MAX_CHARS:
            raise UnresolvedReferenceError(f"its references stand for more than {_MAX_CHARS:,} characters")
        return result

    def _look_up(self, name: str, trail: tuple[str, ...]) -> str:
        if name in trail:
            circle = " -> ".join([*trail, name])
            raise UnresolvedReferenceError(f"the reference ${{{name}}} is circular: {circle}")
        if name in self._raw:
            return self.text(self._raw[name], (*trail, name))
        if name in self._known:
            return self._known[name]
        names = [*self._raw, *self._known]
        close = difflib.get_close_matches(name, names, 1, 0.5)
        advice = f"did you mean ${{{close[0]}}}?" if close else f"known: {', '.join(sorted(names))}"
        raise UnresolvedReferenceError(f"the reference ${{{name}}} is unknown; {advice}")


def check(config: BuildConfig, resolve: Callable[[str], str]) -> list[Mistake]:
    """Every scalar of the config whose references cannot be resolved."""
    found = []
    for path, value in _walk(config):
        try:
            resolve(value)
        except UnresolvedReferenceError as problem:
            found.append(config.mistake(str(problem), *path))
    return found


def _walk(config: BuildConfig) -> list[tuple[tuple[Key, ...], str]]:
    """Every scalar that may hold references, with its path."""
    scalars: list[tuple[tuple[Key, ...], str]] = []
    for name, step in config.steps():
        if step.output_dir is not None:
            scalars.append(((name, "output_dir"), step.output_dir))
        if step.script is not None:
            scalars.append(((name, "script"), step.script))
        for key, value in step.args.items():
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            scalars.extend(((name, "args", key), text) for text in texts)
    return scalars


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
