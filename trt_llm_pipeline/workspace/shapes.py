"""What the records of a workspace have to be like to be believed; see `records.read_record`.

Every key that a reader relies on has its shape here: `terminal.summary`, `report`, `cli.builds`, and a build
that uses an earlier one's archive again. What is not named may be anything that JSON can say.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, PlainValidator, StrictBool, TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict

from trt_llm_pipeline.records import Count, Inside, Text

_LARGEST = 1 << 63


def _number(value: Any) -> float:
    """A number that can be counted with; Python's JSON knows NaN, Infinity and integers without end, too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ValueError("not a number")
    return value


def _json(value: Any) -> Any:
    """A value that can be written as JSON again: no number anywhere in it is NaN or infinite."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, float) and not math.isfinite(part):
            raise ValueError("it holds a number that is NaN or infinite")
        if isinstance(part, dict):
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return value


def _figures(value: Any) -> dict[str, Any]:
    """What `report.figures` said of an earlier build, with that build's name."""
    if not isinstance(value, dict) or not isinstance(value.get("build_id"), str | None):
        raise ValueError("not a build's figures")
    for name, figure in value.items():
        if name != "build_id":
            _number(figure)
    return value


#: Seconds, most of the time.
Number = Annotated[float, PlainValidator(_number)]


def _mark(value: Any) -> list[Any]:
    """A file as a step left it: size in bytes, time in nanoseconds, the step's name."""
    kinds = (int, int, str)
    if not isinstance(value, list) or len(value) != len(kinds):
        raise ValueError("not a file's mark")
    if any(type(part) is not kind for part, kind in zip(value, kinds, strict=True)):
        raise ValueError("not a file's mark")
    return value


def _published_mark(value: Any) -> list[int]:
    """A file at the workspace's top: inode, size in bytes, time in nanoseconds."""
    if not isinstance(value, list) or len(value) != 3 or any(type(part) is not int for part in value):
        raise ValueError("not a file's mark")
    return value


class Running(TypedDict):
    """What was there before the step that is running, and what of it is being put in its place."""

    step: Text
    foreign: list[Text]
    directories: list[Text]
    landing: NotRequired[list[Text]]


@with_config(ConfigDict(defer_build=True))
class Made(TypedDict):
    """`made.json`."""

    files: NotRequired[dict[Inside, Annotated[list[Any], PlainValidator(_mark)]]]
    directories: NotRequired[list[Inside]]
    found: NotRequired[dict[Text, Inside]]
    running: NotRequired[Running]


@with_config(ConfigDict(defer_build=True))
class Holder(TypedDict):
    """`lock-holder.json`."""

    holder: Text
    pid: Count
    since: Number
    build_id: NotRequired[Text]
    model_id: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class ArchiveRecord(TypedDict):
    """The archive of a build: its size in bytes and its hash."""

    name: Text
    size: Count
    sha256: Text
    content_sha256: Text
    path: NotRequired[Text]
    address: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class StepRecord(TypedDict):
    """A step of a build: times in seconds, sizes in bytes."""

    name: Text
    argv: list[Text]
    output_dir: Text
    output_bytes: Count | None
    cached: StrictBool
    start_s: NotRequired[Number | None]
    wall_s: Number
    cpu_s: Number
    peak_memory_bytes: Count
    peak_gpu_memory_bytes: list[Count]
    samples: list[tuple[Number, Count, list[Count]]]


class FileRecord(TypedDict):
    """A file in an archive."""

    size: Count
    sha256: Text


class CheckRecord(TypedDict):
    """What is known of an archive's readiness for a consumer."""

    name: Text
    status: Literal["ok", "warning", "problem", "unknown"]
    message: Text
    settings: NotRequired[dict[Text, Text]]


@with_config(ConfigDict(extra="allow"))
class AnswerRecord(TypedDict):
    """What was written after a prompt."""

    prompt: Text
    text: Text
    tokens: NotRequired[list[Count] | None]


@with_config(ConfigDict(extra="allow"))
class ReferenceRecord(TypedDict):
    """What the model itself has written."""

    by: NotRequired[Text]
    prompts: NotRequired[list[AnswerRecord]]


@with_config(ConfigDict(extra="allow"))
class VerdictRecord(TypedDict):
    """What came of asking an engine."""

    status: Text
    level: NotRequired[Count]
    reason: NotRequired[Text]
    answers: NotRequired[list[AnswerRecord]]
    reference: NotRequired[ReferenceRecord | None]
    notes: NotRequired[list[Text]]


@with_config(ConfigDict(extra="allow"))
class ToolchainRecord(TypedDict):
    """The toolchain that an engine was built by."""

    name: NotRequired[Text]
    version: NotRequired[Text]
    follows: NotRequired[list[Text]]


@with_config(ConfigDict(extra="allow"))
class GpuRecord(TypedDict):
    """A kind of GPU that was there."""

    name: NotRequired[Text]
    compute_capability: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class CommandRecord(TypedDict):
    """A step's command, as the manifest has it."""

    name: NotRequired[Text]
    argv: NotRequired[list[Text]]


@with_config(ConfigDict(extra="allow"))
class CodeRecord(TypedDict):
    """A file that came with the model, or with a dataset, and runs code."""

    path: NotRequired[Text]
    what: NotRequired[Text]
    sha256: NotRequired[Text | None]


@with_config(ConfigDict(extra="allow"))
class DatasetRecord(TypedDict):
    """A dataset that was used."""

    id: NotRequired[Text]
    revision: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class ManifestRecord(TypedDict):
    """`manifest.json`, as `build.json` repeats it."""

    model_id: NotRequired[Text]
    revision: NotRequired[Text]
    source: NotRequired[Text]
    toolchain: NotRequired[ToolchainRecord]
    gpus: NotRequired[Text | list[GpuRecord]]
    steps: NotRequired[list[CommandRecord]]
    check: NotRequired[dict[Text, Any]]
    fit: NotRequired[dict[Text, Any]]
    datasets: NotRequired[dict[Text, DatasetRecord]]
    repository_code: NotRequired[list[CodeRecord]]


@with_config(ConfigDict(extra="allow"))
class DeviceRecord(TypedDict):
    """Whether an engine fits one kind of device; sizes in bytes."""

    name: Text
    answer: Literal["yes", "unknown", "some", "one", "no"]
    memory_bytes: Count
    left_bytes: Count
    kv_cache_tokens: Count | None
    max_batch_size: Count | None
    max_length: Count | None


@with_config(ConfigDict(extra="allow"))
class HostRecord(TypedDict):
    """What a build takes of a machine's memory, in bytes, at least."""

    convert_bytes: Count
    build_bytes: Count


@with_config(ConfigDict(extra="allow"))
class FitRecord(TypedDict):
    """What was computed before the build."""

    weight_bytes: Count
    rank_weight_bytes: Count
    host: HostRecord
    devices: list[DeviceRecord]


@with_config(ConfigDict(extra="allow"))
class MemoryRecord(TypedDict):
    """A GPU's memory, in bytes."""

    memory_bytes: Count


@with_config(ConfigDict(extra="allow"))
class MachineRecord(TypedDict):
    """Where a build ran; see `process.machine.describe_machine`."""

    cpu: NotRequired[Text]
    cpus: NotRequired[Count]
    memory_bytes: NotRequired[Count]
    system: NotRequired[Text]
    gpus: NotRequired[list[MemoryRecord]]
    driver: NotRequired[Text | None]


@with_config(ConfigDict(extra="allow", defer_build=True))
class BuildRecord(TypedDict):
    """`build.json`, as far as anybody goes by it."""

    build_id: Text
    answered_from: NotRequired[Text]
    key: Text | None
    engine_key: NotRequired[Text | None]
    started: NotRequired[Text]
    service_version: NotRequired[Text]
    model_bytes: NotRequired[Count]
    model_url: NotRequired[Text | None]
    seconds: dict[Text, Number]
    starts: NotRequired[dict[Text, Number]]
    steps: list[StepRecord]
    warnings: list[Text]
    readiness: NotRequired[list[CheckRecord]]
    check: NotRequired[VerdictRecord | None]
    manifest: ManifestRecord
    names: NotRequired[dict[Text, Text]]
    config: NotRequired[Text]
    machine: NotRequired[MachineRecord]
    logs: NotRequired[list[Text]]
    fit: NotRequired[FitRecord]
    previous: NotRequired[Annotated[dict[str, Any], PlainValidator(_figures)] | None]
    archive: ArchiveRecord
    files: dict[Inside, FileRecord]


@with_config(ConfigDict(extra="allow"))
class NamedArchive(TypedDict):
    """The archive of a build, as far as its place goes."""

    name: Text


@with_config(ConfigDict(extra="allow"))
class FailureRecord(TypedDict):
    """What ended a build."""

    stage: NotRequired[Text]
    argv: NotRequired[list[Text]]
    last_lines: NotRequired[list[Text]]


@with_config(ConfigDict(extra="allow", defer_build=True))
class KeptRecord(TypedDict):
    """`build.json`, also a failed build's, as far as its directory and the list of builds go by it."""

    build_id: NotRequired[Text]
    answered_from: NotRequired[Text]
    key: NotRequired[Text | None]
    engine_key: NotRequired[Text | None]
    check: NotRequired[VerdictRecord | None]
    archive: NotRequired[NamedArchive]
    error: NotRequired[Text]
    kind: NotRequired[Text]
    failed: NotRequired[FailureRecord]


MADE = TypeAdapter(Made)
HOLDER = TypeAdapter(Holder)
PUBLISHED = TypeAdapter(
    dict[Text, Annotated[list[int], PlainValidator(_published_mark)]], config=ConfigDict(defer_build=True)
)
KEPT: TypeAdapter[KeptRecord] = TypeAdapter(Annotated[KeptRecord, BeforeValidator(_json)])
#: For a build whose archive is used again: all of it goes into the next record.
BUILD: TypeAdapter[BuildRecord] = TypeAdapter(Annotated[BuildRecord, BeforeValidator(_json)])
