"""What a build config may say. The format is the one of the original cog-trt-llm.

The JSON Schema is made of it (`schema.py`): what stands below a field is what an editor shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from trt_llm_pipeline.config.yaml_reader import Key, SourceMap
from trt_llm_pipeline.errors import Mistake
from trt_llm_pipeline.redaction import token_fault
from trt_llm_pipeline.units import parse_duration

STEP_NAMES = ("convert_to_ft", "quantize", "build")
EXECUTABLES = ("python", "python3", "trtllm-build")
#: Other names of a step, as later releases of TensorRT-LLM call it.
STEP_ALIASES = {"convert_checkpoint": "convert_to_ft"}

_DATASET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}(?:/[A-Za-z_][A-Za-z0-9_-]{0,63})?")

# The Hub's rule for names: https://huggingface.co/docs/hub (at most 96 characters, no "--" or "..").
_MODEL_ID_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,254}")

#: What a key under `args` stands for: True is a bare flag, False leaves the flag out.
ArgValue: TypeAlias = "bool | str | list[str]"


def texts_of(value: ArgValue) -> list[str]:
    """An argument's values as the config has them; none of a flag."""
    if isinstance(value, bool):
        return []
    return [value] if isinstance(value, str) else list(value)


def check_model_id(value: str) -> str:
    """The value, where it can be a repository's name on the Hub. Raises `ValueError`."""
    parts = value.split("/")
    good = len(parts) <= 2 and all(_MODEL_ID_PART.fullmatch(part) for part in parts)
    if not good or "--" in value or ".." in value or value.endswith(".git"):
        raise ValueError(f"{value!r} is not a valid model id; write it as on the Hub: 'name' or 'owner/name'")
    return value


def _revision(value: str) -> str:
    if not _REVISION.fullmatch(value) or ".." in value:
        raise ValueError(f"{value!r} is not a valid branch, tag or commit")
    return value


def _tar_url(value: str) -> str:
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError("must be an http:// or https:// address of a .tar or .tar.gz file")
    from trt_llm_pipeline.net.failures import BadAddress
    from trt_llm_pipeline.net.spelling import checked

    try:
        checked(value)
    except BadAddress as error:
        raise ValueError(str(error)) from None
    return value


def _requirement(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        message = f'{value!r} is not a valid version requirement; write an operator, in quotes: ">=0.9,<0.13"'
        raise ValueError(message) from None
    return value


def _relative_path(value: str) -> str:
    if value.startswith("/") or not value.strip("./"):
        raise ValueError(f"{value!r} must be a name below the toolchain's examples/ directory")
    return value


def _executable(value: str) -> str:
    if value not in EXECUTABLES:
        raise ValueError(f"{value!r} is not allowed; choose one of {', '.join(EXECUTABLES)}")
    return value


def _datasets(value: dict[str, DatasetConfig]) -> dict[str, DatasetConfig]:
    names: dict[str, str] = {}
    for name, dataset in value.items():
        if not _DATASET_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name for a dataset; write letters, digits, '-' and '_', once '/'"
            )
        if dataset.id in names:
            raise ValueError(f"{names[dataset.id]} and {name} are the same dataset {dataset.id}; keep one")
        names[dataset.id] = name
    return value


def _seconds(value: object) -> object:
    if value is None:
        raise ValueError("is empty; write a duration such as 90m or leave the key out")
    seconds = parse_duration(value) if isinstance(value, str) else None
    if seconds is None:
        raise ValueError(
            f"{value!r} is not a valid duration; write seconds, or a number with s, m or h, such as 90m"
        )
    if not 0 < seconds <= 30 * 24 * 3600:
        raise ValueError(f"{value!r} must be more than 0 and at most 30 days")
    return seconds


def _token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and (fault := token_fault(text)):
        raise ValueError(fault)
    return value


Text = Annotated[str, Field(min_length=1)]
Duration: TypeAlias = Annotated[
    float | None,
    BeforeValidator(_seconds),
    WithJsonSchema({"type": ["string", "number"], "examples": ["90m", "2h", 600]}),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class StepConfig(_Strict):
    """One script to run."""

    executable: Annotated[Text, AfterValidator(_executable), WithJsonSchema({"enum": list(EXECUTABLES)})] = (
        "python"
    )
    """What runs: `python` (with `script`) or `trtllm-build`."""
    script: Annotated[Text, AfterValidator(_relative_path)] | None = None
    """The script's file name in the example's directory, such as `build.py`."""
    output_dir: Text | None = None
    """Where the script's results are, inside the workspace; detected automatically when left out."""
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
    timeout: Duration = None
    """How long the step may take: seconds, or a number with s, m or h."""
    network: bool = False
    """Whether the script has the network; without it only its own loopback."""
    token: bool = False
    """Whether the script gets the Hub token that the model was downloaded with, as `HF_TOKEN`."""

    @model_validator(mode="after")
    def _script_or_executable(self) -> StepConfig:
        if self.script is None and self.executable.startswith("python"):
            raise ValueError("needs a script (such as build.py), or executable: trtllm-build")
        return self


class CheckConfig(_Strict):
    """How the finished engine is checked; `check: off` and `check: required` are short for one key each."""

    enabled: bool = True
    """Whether the engine is asked to write before it is packed, where it can be loaded."""
    required: bool = False
    """Whether it is an error too that the engine, or the reference, could not be asked."""
    reference: bool = False
    """Whether what it writes is compared with what the Hugging Face model itself writes."""
    timeout: Duration = None
    """How long each question may take: seconds, or a number with s, m or h; an hour when left out."""


_CHECK_WORDS: dict[str, dict[str, str]] = {
    "on": {},
    "off": {"enabled": "false"},
    "required": {"required": "true"},
}


def _check(value: object) -> object:
    if isinstance(value, dict):
        return value
    if isinstance(value, str) and value in _CHECK_WORDS:
        return _CHECK_WORDS[value]
    shown = f"{value!r} is not allowed" if value else "is empty"
    raise ValueError(f"{shown}; write on, off, required, or a mapping such as {{reference: true}}")


class DatasetConfig(_Strict):
    """A dataset that a script reads, to calibrate with for instance."""

    id: Annotated[Text, AfterValidator(check_model_id)]
    """The dataset's name on the Hub: `owner/name`."""
    revision: Annotated[Text, AfterValidator(_revision)] | None = None
    """A branch, tag or commit of the dataset's repository; `main` when left out."""


class BuildConfig(_Strict):
    """What to build: a model, the scripts to run on it, and their options."""

    model_id: Annotated[Text, AfterValidator(check_model_id)]
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
    datasets: Annotated[dict[str, DatasetConfig], AfterValidator(_datasets)] = {}
    """Datasets to download, each by a name of your own; `${datasets.NAME}` is where it is."""
    allow_repository_code: bool = False
    """Whether Python code and pickles that come with the model or a dataset may be run."""
    requires_trt_llm: Annotated[Text, AfterValidator(_requirement)] | None = None
    """The TensorRT-LLM releases that this config is for, such as `>=0.9,<0.13`."""
    compression: Literal["gzip", "none"] = "gzip"
    """Whether the archive is `engine.tar.gz` or, with `none`, `engine.tar`."""
    cache: bool = True
    """Whether results of unchanged steps are used again, and kept."""
    fit: bool = True
    """Whether it is checked, before anything is downloaded, that the engine fits; `off` leaves that out."""
    report: bool = False
    """Whether `report.html` is in the archive too, whose bytes then differ from build to build."""
    check: Annotated[
        CheckConfig,
        BeforeValidator(_check, json_schema_input_type=Literal["on", "off", "required"] | CheckConfig),
    ] = Field(default_factory=CheckConfig, json_schema_extra={"default": "on"})
    """Whether the engine is asked to write before it is packed; garbage is an error then."""
    hf_token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
        default=None, json_schema_extra={"writeOnly": True}
    )
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

    def called(self, step: str) -> str:
        """A step's name as the text has it."""
        return self._source.dotted(step)

    def mistake(self, message: str, *path: Key) -> Mistake:
        """A mistake at the key `path`, with its line."""
        return Mistake(message, self._source.line(*path), self._source.dotted(*path) or None)
