"""What the records of a workspace have to be like to be believed; see `records.read_record`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator, TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict

from trt_llm_pipeline.records import Count, Inside, Text


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
    since: float
    build_id: NotRequired[Text]
    model_id: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class ArchiveRecord(TypedDict):
    """The archive of a build: its size in bytes and its hash."""

    name: Text
    size: Count
    sha256: Text
    content_sha256: Text


@with_config(ConfigDict(extra="allow"))
class StepRecord(TypedDict):
    """A step of a build: times in seconds, sizes in bytes."""

    name: Text
    argv: list[Text]
    output_dir: Text
    output_bytes: Count | None
    cached: bool
    wall_s: float
    cpu_s: float
    peak_memory_bytes: Count
    peak_gpu_memory_bytes: list[Count]
    samples: list[tuple[float, Count, list[Count]]]


class FileRecord(TypedDict):
    """A file in an archive."""

    size: Count
    sha256: Text


class CheckRecord(TypedDict):
    """What is known of an archive's readiness for a consumer."""

    name: Text
    status: Text
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

    prompts: NotRequired[list[AnswerRecord]]


@with_config(ConfigDict(extra="allow"))
class VerdictRecord(TypedDict):
    """What came of asking an engine."""

    status: Text
    answers: NotRequired[list[AnswerRecord]]
    reference: NotRequired[ReferenceRecord | None]
    notes: NotRequired[list[Text]]


@with_config(ConfigDict(extra="allow", defer_build=True))
class BuildRecord(TypedDict):
    """`build.json`, as far as a later build goes by it."""

    build_id: Text
    key: Text | None
    engine_key: NotRequired[Text | None]
    model_bytes: NotRequired[Count]
    seconds: dict[Text, float]
    steps: list[StepRecord]
    warnings: list[Text]
    readiness: NotRequired[list[CheckRecord]]
    check: NotRequired[VerdictRecord | None]
    manifest: dict[Text, Any]
    archive: ArchiveRecord
    files: dict[Inside, FileRecord]


@with_config(ConfigDict(extra="allow"))
class NamedArchive(TypedDict):
    """The archive of a build, as far as its place goes."""

    name: Text


@with_config(ConfigDict(extra="allow", defer_build=True))
class KeptRecord(TypedDict):
    """`build.json`, as far as a build's directory goes by it."""

    build_id: NotRequired[Text]
    key: NotRequired[Text | None]
    engine_key: NotRequired[Text | None]
    check: NotRequired[VerdictRecord | None]
    archive: NotRequired[NamedArchive]


MADE = TypeAdapter(Made)
HOLDER = TypeAdapter(Holder)
PUBLISHED = TypeAdapter(
    dict[Text, Annotated[list[int], PlainValidator(_published_mark)]], config=ConfigDict(defer_build=True)
)
KEPT = TypeAdapter(KeptRecord)
#: For a build whose archive is used again: all of it goes into the next record.
BUILD = TypeAdapter(BuildRecord)
