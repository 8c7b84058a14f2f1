"""The build config: YAML text in, a `BuildConfig` out, and every mistake named with its line.

The format is the one of the original cog-trt-llm. `BuildConfig` is also where the JSON Schema comes from, so
each field's description here is what an editor shows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from trt_llm_pipeline.config.yaml_reader import (
    Key,
    MappingNode,
    Node,
    Scalar,
    Sequence,
    SourceMap,
    parse,
    read_text,
)
from trt_llm_pipeline.errors import ConfigError, Mistake

STEP_NAMES = ("convert_to_ft", "quantize", "build")
EXECUTABLES = ("python", "python3", "trtllm-build")
#: Other names of a step, as later releases of TensorRT-LLM call it.
STEP_ALIASES = {"convert_checkpoint": "convert_to_ft"}

# The Hub's rule for names: https://huggingface.co/docs/hub (at most 96 characters, no "--" or "..").
_MODEL_ID_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_OPTION = re.compile(r"-{0,2}[A-Za-z0-9][A-Za-z0-9_.-]*")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,254}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|)")

# Where something that must be there is missing or wrong, these let the rest be checked.
_STAND_INS: Mapping[str, Any] = {
    "model_id": "model",
    "example_name": "example",
    "build": {"executable": "trtllm-build"},
}

#: What a key under `args` stands for: True is a bare flag, False leaves the flag out.
ArgValue: TypeAlias = "bool | str | list[str]"


def _model_id(value: str) -> str:
    parts = value.split("/")
    good = len(parts) <= 2 and all(_MODEL_ID_PART.fullmatch(part) for part in parts)
    if not good or "--" in value or ".." in value or value.endswith(".git"):
        raise ValueError(f"{value!r} is no model id; write it as on the Hub: 'name' or 'owner/name'")
    return value


def _revision(value: str) -> str:
    if not _REVISION.fullmatch(value) or ".." in value:
        raise ValueError(f"{value!r} is no branch, tag or commit")
    return value


def _tar_url(value: str) -> str:
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError("must be an http:// or https:// address of a .tar or .tar.gz file")
    return value


def _requirement(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        raise ValueError(f"{value!r} is no version requirement; write it like >=0.9,<0.13") from None
    return value


def _relative_path(value: str) -> str:
    if value.startswith("/") or not value.strip("./"):
        raise ValueError(f"{value!r} must be a name below the toolchain's examples/ directory")
    return value


def _executable(value: str) -> str:
    if value not in EXECUTABLES:
        raise ValueError(f"{value!r} is not allowed; choose one of {', '.join(EXECUTABLES)}")
    return value


def _seconds(value: object) -> object:
    if value is None:
        raise ValueError("is empty; write a duration such as 90m or leave the key out")
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no duration; write seconds, or a number with s, m or h, such as 90m")
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    if not 0 < seconds <= 30 * 24 * 3600:
        raise ValueError(f"{value!r} must be more than 0 and at most 30 days")
    return seconds


Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)


class StepConfig(_Strict):
    """One script to run."""

    executable: Annotated[Text, AfterValidator(_executable), WithJsonSchema({"enum": list(EXECUTABLES)})] = (
        "python"
    )
    """What runs: `python` (with `script`) or `trtllm-build`."""
    script: Annotated[Text, AfterValidator(_relative_path)] | None = None
    """The script's file name in the example's directory, such as `build.py`."""
    output_dir: Text | None = None
    """Where the script's results are, inside the workspace; found by itself when left out."""
    args: Annotated[
        dict[str, ArgValue],
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {
                    "type": ["string", "number", "boolean", "null", "array"],
                    "items": {"type": ["string", "number"]},
                },
            }
        ),
    ] = {}
    """The script's options: `key: value` becomes `--key value`, `key:` a bare flag."""
    timeout: Annotated[
        float | None,
        BeforeValidator(_seconds),
        WithJsonSchema({"type": ["string", "number"], "examples": ["90m", "2h", 600]}),
    ] = None
    """How long the step may take: seconds, or a number with s, m or h."""

    @model_validator(mode="after")
    def _script_or_executable(self) -> StepConfig:
        if self.script is None and self.executable.startswith("python"):
            raise ValueError("needs a script (such as build.py), or executable: trtllm-build")
        return self


class BuildConfig(_Strict):
    """What to build: a model, the scripts to run on it, and their options."""

    model_id: Annotated[Text, AfterValidator(_model_id)]
    """The model's name on the Hub: `owner/name`."""
    example_name: Annotated[Text, AfterValidator(_relative_path)]
    """The directory of the toolchain's examples that has the scripts, such as `gpt`."""
    convert_to_ft: StepConfig | None = None
    """Converts the model's weights to a checkpoint; also called `convert_checkpoint`."""
    quantize: StepConfig | None = None
    """Quantizes the model or the checkpoint."""
    build: StepConfig
    """Compiles the engine."""
    revision: Annotated[Text, AfterValidator(_revision)] | None = None
    """A branch, tag or commit of the model's repository; `main` when left out."""
    weight_format: Literal["safetensors", "bin", "pt"] | None = None
    """Which weight files to download; safetensors is preferred when left out."""
    model_tar_url: Annotated[Text, AfterValidator(_tar_url)] | None = None
    """A .tar or .tar.gz with the model's files, used instead of the Hub."""
    requires_trt_llm: Annotated[Text, AfterValidator(_requirement)] | None = None
    """The TensorRT-LLM releases that this config is for, such as `>=0.9,<0.13`."""
    compression: Literal["gzip", "none"] = "gzip"
    """Whether the archive is `engine.tar.gz` or, with `none`, `engine.tar`."""
    cache: bool = True
    """Whether results of unchanged steps are used again, and kept."""
    report: bool = False
    """Whether `report.html` is in the archive too, whose bytes then differ from build to build."""
    hf_token: SecretStr | None = Field(default=None, json_schema_extra={"writeOnly": True})
    """A token for gated models. Better given as the prediction's hf_token input."""

    _source: SourceMap = PrivateAttr(default_factory=SourceMap)
    _wrong: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def source(self) -> SourceMap:
        """Where in the text each key is."""
        return self._source

    @property
    def wrong(self) -> frozenset[str]:
        """Dotted paths of what the text has wrong, left out here or stood in for; see `examine`."""
        return self._wrong

    def steps(self) -> Iterator[tuple[str, StepConfig]]:
        """The steps that the config has, in the order in which they run."""
        for name in STEP_NAMES:
            step = getattr(self, name)
            if step is not None:
                yield name, step

    def mistake(self, message: str, *path: Key) -> Mistake:
        """A mistake at the key `path`, with its line."""
        return Mistake(message, self._source.line(*path), ".".join(map(str, path)) or None)


@dataclass(frozen=True)
class Loaded:
    """What could be made of a config's text.

    `config` leaves out what is wrong, or has a stand-in where something must be, so that the rest can be
    checked too; `config.wrong` says what. None where too little is left.
    """

    config: BuildConfig | None
    mistakes: tuple[Mistake, ...]


def load(path: Path, name: str | None = None) -> BuildConfig:
    """Reads a config file.

    Args:
        path: the file.
        name: what to call it in messages, where the path is a temporary one.

    Raises:
        ConfigError: with every mistake that was found.
    """
    return loads(read_text(path), name or path.name)


def loads(text: str, name: str = "config") -> BuildConfig:
    """Reads a config's text. Raises `ConfigError` with every mistake that was found."""
    loaded = examine(text, name)
    if loaded.config is None or loaded.mistakes:
        raise ConfigError(loaded.mistakes, name)
    return loaded.config


def examine(text: str, name: str = "config") -> Loaded:
    """Reads as much of a config's text as can be read, and names every mistake in the order of the file.

    Raises:
        ConfigError: the text is no YAML mapping at all.
    """
    found: list[Mistake] = []
    root = parse(text, name, found)
    lines: dict[tuple[Key, ...], int] = {}
    data = _plain(root, (), lines, found)
    source = SourceMap(name, lines)
    config: BuildConfig | None = None
    dropped: list[tuple[Key, ...]] = []
    stand_ins = dict(_STAND_INS)
    while config is None:
        try:
            config = BuildConfig.model_validate(data)
        except ValidationError as error:
            wrong = error.errors(include_url=False)
            # Not what is only wrong because something in it was left out.
            fresh = [e for e in wrong if not any(path[: len(e["loc"])] == e["loc"] for path in dropped)]
            found.extend(_mistake(details, source) for details in fresh)
            paths = [details["loc"] for details in wrong]
            # Without what is wrong, is there still a config whose other parts can be checked?
            left_out = [path for path in paths if _drop(data, path)]
            filled = [
                path for path in paths if len(path) == 1 and path[0] in stand_ins and path[0] not in data
            ]
            data.update({str(path[0]): stand_ins.pop(str(path[0])) for path in filled})
            dropped.extend([*left_out, *filled])
            if not left_out and not filled:
                break
    if config is not None:
        config._source = source
        config._wrong = frozenset(mistake.key for mistake in found if mistake.key)
    return Loaded(config, tuple(sorted(found, key=lambda mistake: mistake.line or 0)))


def _drop(data: dict[str, Any], path: tuple[Key, ...]) -> bool:
    *parents, last = path
    inner: Any = data
    for key in parents:
        inner = inner.get(key) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or last not in inner:
        return False
    del inner[last]
    return True


def _plain(node: Node, path: tuple[Key, ...], lines: dict[tuple[Key, ...], int], found: list[Mistake]) -> Any:
    """Plain values for pydantic: text, None, lists and dicts; under `args` what the flag stands for."""
    if path and path not in lines:
        lines[path] = node.line
    if len(path) == 2 and path[1] == "args" and path[0] in STEP_NAMES and not _is_null(node):
        return _args(node, path, lines, found)
    if isinstance(node, MappingNode):
        result = {}
        for written, value in node.items.items():
            key = STEP_ALIASES.get(written, written) if not path else written
            if key in result:
                message = f"is another name for {key}, which is already there; keep one of the two"
                found.append(Mistake(message, node.key_lines[written], written))
                continue
            child = (*path, key)
            lines[child] = node.key_lines[written]
            result[key] = _plain(value, child, lines, found)
        return result
    if isinstance(node, Sequence):
        return [_plain(item, (*path, at), lines, found) for at, item in enumerate(node.items)]
    return None if _is_null(node) else node.text


def _args(
    node: Node, path: tuple[Key, ...], lines: dict[tuple[Key, ...], int], found: list[Mistake]
) -> dict[str, ArgValue]:
    if not isinstance(node, MappingNode):
        found.append(Mistake("must be a mapping of options to values", node.line, ".".join(map(str, path))))
        return {}
    result: dict[str, ArgValue] = {}
    for key, value in node.items.items():
        line = node.key_lines[key]
        child = (*path, key)
        lines[child] = line
        dotted = ".".join(map(str, child))
        if not _OPTION.fullmatch(key):
            message = f"{key!r} is no option name; write letters, digits, '-' and '_'"
            found.append(Mistake(message, line, ".".join(map(str, path))))
        elif isinstance(value, Scalar):
            result[key] = _arg_value(value)
        elif isinstance(value, Sequence) and all(isinstance(item, Scalar) for item in value.items):
            texts = [item.text for item in value.items if isinstance(item, Scalar)]
            if len(texts) > 1 and any(_looks_like_option(text) for text in texts):
                message = "a list item that begins with '-' would be read as another option"
                found.append(Mistake(message, line, dotted))
            result[key] = texts
        else:
            found.append(Mistake("must be a single value or a list of single values", line, dotted))
    return result


def _arg_value(value: Scalar) -> bool | str:
    if _is_null(value):
        return True
    if value.plain and value.text in ("true", "True", "TRUE"):
        return True
    if value.plain and value.text in ("false", "False", "FALSE"):
        return False
    return value.text


def _looks_like_option(text: str) -> bool:
    return text.startswith("-") and not re.fullmatch(r"-\d+|-\d*\.\d+", text)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null", "Null", "NULL")


def _mistake(details: Any, source: SourceMap) -> Mistake:
    """One of pydantic's findings in this project's words."""
    path: tuple[Key, ...] = tuple(details["loc"])
    kind: str = details["type"]
    key = ".".join(map(str, path))
    parent = path[:-1]
    if kind == "missing":
        return Mistake(f"is missing; {_hint(str(path[-1]))}", source.line(*parent), key)
    if kind == "extra_forbidden":
        known = list((StepConfig if parent else BuildConfig).model_fields)
        close = difflib.get_close_matches(str(path[-1]), [*known, *([] if parent else STEP_ALIASES)], 1, 0.5)
        advice = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
        if parent and not close:
            advice += "; options of the script go under args"
        return Mistake(f"is not a known key; {advice}", source.line(*path), key)
    if kind == "value_error":
        message = str(details["ctx"]["error"])
    elif kind in ("model_type", "model_attributes_type"):
        message = "must be a mapping with script, output_dir and args"
    elif kind == "literal_error":
        message = f"{details['input']!r} is not allowed; choose one of {details['ctx']['expected']}"
    elif details["input"] in (None, ""):
        message = f"is empty; {_hint(str(path[-1]))}"
    elif kind == "string_type":
        message = "must be a single value, not a list or a mapping"
    elif kind.startswith("bool"):
        message = f"{details['input']!r} must be true or false"
    else:
        message = details["msg"]
    return Mistake(message, source.line(*path), key or None)


def _hint(field: str) -> str:
    return {
        "model_id": "name the model as on the Hub: owner/name",
        "example_name": "name the example whose scripts to run, such as gpt",
        "build": "add a build step with script and args",
    }.get(field, "give it a value or leave the key out")
