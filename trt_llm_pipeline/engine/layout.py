"""What an engine or checkpoint directory of each TensorRT-LLM generation must contain.

A step's exit code proves little: several releases' scripts exit 0 with ranks missing, none cleans its output
directory, and `config.json` is written before the engine. So the directory itself is asked.

Engine directories:

- up to 0.7.1 (`build.py`): `{model}_{dtype}_tp{N}_rank{R}.engine`, with `_pp{P}` after tp for P > 1, and
  `config.json` with `builder_config`;
- from 0.8 (`trtllm-build`): `rank{R}.engine`, and `config.json` with `pretrained_config` and its `mapping`;
- encoder-decoder models: one such directory each in `encoder` and `decoder`.

Checkpoint directories: the unified one (0.8 and later) has `rank{R}.safetensors`, and `config.json` with
`mapping`. The earlier FT checkpoint promises no file by name, so it cannot be checked.

What these files say is a script's output and not trusted: every value is checked for its type and bounds.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

Generation = Literal["builder_config", "pretrained_config", "unknown"]

_LARGEST_JSON = 64 << 20
_MOST_RANKS = 100_000
_NAMED = 8  # how many files or ranks a message names
_ENGINE_TO_071 = re.compile(
    r"(?P<prefix>.+)_tp(?P<tp>\d{1,9})(?:_pp(?P<pp>\d{1,9}))?_rank(?P<rank>\d{1,9})\.engine"
)
_ENGINE_FROM_08 = re.compile(r"rank(?P<rank>\d{1,9})\.engine")
_CHECKPOINT = re.compile(r"rank(?P<rank>\d{1,9})\.safetensors")
_HALVES = ("encoder", "decoder")


class LayoutError(Exception):
    """A directory does not hold what it must; the text says what is missing or too much, for the user."""


@dataclass(frozen=True)
class EngineFacts:
    """What an engine directory says of itself, checked against its files.

    Attributes:
        generation: which of the two shapes its `config.json` has.
        world_size: how many ranks serve it together; one engine file each.
        tp, pp: tensor and pipeline parallelism.
        dtype: of weights and activations (`float16`), or None where it does not say.
        name: the model's name or architecture, or None.
        rank_files: engine files by rank, relative to the directory; an encoder-decoder model has the
            encoder's first.
        max_position_embeddings: longest sequence in tokens, or None; servers need it (or are told otherwise).
        tensorrt_llm_version: the release that built it, or None (0.7.1 and earlier do not say).
        warnings: what could not be checked, in sentences.
    """

    generation: Generation
    world_size: int
    tp: int
    pp: int
    dtype: str | None
    name: str | None
    rank_files: tuple[str, ...]
    max_position_embeddings: int | None
    tensorrt_llm_version: str | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointFacts:
    """What a unified checkpoint says of itself, checked against its files. Fields as in `EngineFacts`."""

    world_size: int
    tp: int
    pp: int
    dtype: str | None
    architecture: str | None
    quant_algo: str | None
    rank_files: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def check_engine(directory: Path) -> EngineFacts:
    """Check that `directory` is a complete engine: every rank promised is there, not empty, and no other.

    Raises:
        LayoutError: it is not.
    """
    if not directory.is_dir():
        raise LayoutError(f"{directory} is not a directory")
    halves = [half for half in _HALVES if (directory / half).is_dir()]
    if halves and not _present(directory / "config.json"):
        return _check_both_halves(directory, halves)
    config = _json_object(directory / "config.json")
    return check_engine_files(directory, config, _files(directory, ".engine"))


def check_engine_files(where: Path, config: Mapping[str, Any], files: Mapping[str, int]) -> EngineFacts:
    """Like `check_engine`, for an engine that is not unpacked.

    Args:
        where: what to call it in messages: a directory or an archive.
        config: its parsed `config.json`.
        files: its `.engine` files, with their sizes in bytes.

    Raises:
        LayoutError: a rank is missing, empty, or left from another build.
    """
    builder, pretrained = config.get("builder_config"), config.get("pretrained_config")
    if isinstance(pretrained, dict):
        return _check_from_08(where, config, pretrained, files)
    if isinstance(builder, dict):
        return _check_to_071(where, builder, files)
    return _accept_unknown(where, files)


def check_checkpoint(directory: Path) -> CheckpointFacts | None:
    """Check a unified checkpoint likewise; None for a directory that is none (an FT checkpoint, say).

    Raises:
        LayoutError: it is one, and a rank is missing, cut off, or left from another conversion.
    """
    halves = [half for half in _HALVES if (directory / half).is_dir()]
    if halves and not _present(directory / "config.json"):
        parts = [check_checkpoint(directory / half) for half in halves]
        if any(part is None for part in parts):
            return None
        return _joined_checkpoints(directory, halves, [part for part in parts if part is not None])
    files = _files(directory, ".safetensors") if directory.is_dir() else {}
    ours = {name: size for name, size in files.items() if _CHECKPOINT.fullmatch(name)}
    if not ours and not _promises_ranks(directory / "config.json"):
        return None
    config = _json_object(directory / "config.json")
    mapping = config.get("mapping")
    if not isinstance(mapping, dict):
        raise LayoutError(
            f"{directory}/config.json has no mapping, so the number of ranks is unknown; it holds "
            f"{_some(ours)}"
        )
    world, tp, pp, warnings = _parallelism(mapping, f"{directory}/config.json: mapping")
    ranks = {int(_CHECKPOINT.fullmatch(name)["rank"]): name for name in ours}  # type: ignore[index]
    _compare(directory, world, ranks, lambda rank: f"rank{rank}.safetensors", ours, kind="checkpoint")
    for name in ours:
        _check_safetensors(directory / name)
    quantization = config.get("quantization")
    return CheckpointFacts(
        world_size=world,
        tp=tp,
        pp=pp,
        dtype=_text(config.get("dtype")),
        architecture=_text(config.get("architecture")),
        quant_algo=_text(quantization.get("quant_algo")) if isinstance(quantization, dict) else None,
        rank_files=tuple(ranks[rank] for rank in sorted(ranks)),
        warnings=warnings,
    )


def _check_from_08(
    directory: Path, config: Mapping[str, Any], pretrained: Mapping[str, Any], files: Mapping[str, int]
) -> EngineFacts:
    mapping = pretrained.get("mapping")
    where = f"{directory}/config.json: pretrained_config.mapping"
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, dict):
        raise LayoutError(f"{where} is no JSON object, so the number of ranks is unknown")
    world, tp, pp, warnings = _parallelism(mapping, where)
    ranks = {int(match["rank"]): name for name in files if (match := _ENGINE_FROM_08.fullmatch(name))}
    _compare(directory, world, ranks, lambda rank: f"rank{rank}.engine", files, kind="engine")
    return EngineFacts(
        generation="pretrained_config",
        world_size=world,
        tp=tp,
        pp=pp,
        dtype=_text(pretrained.get("dtype")),
        name=_text(pretrained.get("architecture")),
        rank_files=tuple(ranks[rank] for rank in sorted(ranks)),
        max_position_embeddings=_whole(pretrained.get("max_position_embeddings")),
        tensorrt_llm_version=_text(config.get("version")),
        warnings=warnings,
    )


def _check_to_071(directory: Path, builder: Mapping[str, Any], files: Mapping[str, int]) -> EngineFacts:
    where = f"{directory}/config.json: builder_config"
    tp = _parallel(builder.get("tensor_parallel"), f"{where}.tensor_parallel")
    pp = _parallel(builder.get("pipeline_parallel"), f"{where}.pipeline_parallel")
    name, dtype = _text(builder.get("name")), _text(builder.get("precision"))
    prefix = f"{name or 'model'}_{dtype or 'float16'}"
    found = {file: match for file in files if (match := _ENGINE_TO_071.fullmatch(file))}
    prefixes = {match["prefix"] for match in found.values()}
    if prefix not in prefixes and len(prefixes) == 1:
        (prefix,) = prefixes  # gpt's build.py takes the dtype in the name from its checkpoint
    ranks = {
        int(match["rank"]): file
        for file, match in found.items()
        if match["prefix"] == prefix and (int(match["tp"]), int(match["pp"] or 1)) == (tp, pp)
    }
    stage = f"_pp{pp}" if pp > 1 else ""
    _compare(
        directory,
        tp * pp,
        ranks,
        lambda rank: f"{prefix}_tp{tp}{stage}_rank{rank}.engine",
        files,
        kind="engine",
    )
    return EngineFacts(
        generation="builder_config",
        world_size=tp * pp,
        tp=tp,
        pp=pp,
        dtype=dtype,
        name=name,
        rank_files=tuple(ranks[rank] for rank in sorted(ranks)),
        max_position_embeddings=_whole(builder.get("max_position_embeddings")),
        tensorrt_llm_version=None,
    )


def _accept_unknown(directory: Path, files: Mapping[str, int]) -> EngineFacts:
    """Later releases may describe an engine otherwise; what is there is taken, and said not to be checked."""
    if not files:
        raise LayoutError(f"{directory} holds a config.json but no .engine file")
    _refuse_empty(directory, files)
    return EngineFacts(
        generation="unknown",
        world_size=len(files),
        tp=len(files),
        pp=1,
        dtype=None,
        name=None,
        rank_files=tuple(sorted(files)),
        max_position_embeddings=None,
        tensorrt_llm_version=None,
        warnings=(
            f"config.json in {directory} has neither builder_config nor pretrained_config, so whether all "
            f"ranks are there was not checked; taken as they are: {_some(files)}",
        ),
    )


def _check_both_halves(directory: Path, halves: list[str]) -> EngineFacts:
    missing = [half for half in _HALVES if half not in halves]
    if missing:
        raise LayoutError(
            f"{directory} holds {halves[0]} but no {missing[0]}: an encoder-decoder model needs an engine "
            f"of each"
        )
    encoder, decoder = (check_engine(directory / half) for half in _HALVES)
    if encoder.world_size != decoder.world_size:
        raise LayoutError(
            f"{directory}: the encoder has {encoder.world_size} ranks and the decoder {decoder.world_size}; "
            "one of them is from another build"
        )
    files = [
        f"{half}/{name}"
        for half, part in zip(_HALVES, (encoder, decoder), strict=True)
        for name in part.rank_files
    ]
    return replace(decoder, rank_files=tuple(files), warnings=encoder.warnings + decoder.warnings)


def _joined_checkpoints(directory: Path, halves: list[str], parts: list[CheckpointFacts]) -> CheckpointFacts:
    if len({part.world_size for part in parts}) > 1:
        raise LayoutError(f"{directory}: encoder and decoder have different numbers of ranks")
    files = [f"{half}/{name}" for half, part in zip(halves, parts, strict=True) for name in part.rank_files]
    return replace(parts[-1], rank_files=tuple(files))


def _parallelism(mapping: Mapping[str, Any], where: str) -> tuple[int, int, int, tuple[str, ...]]:
    """World size, tensor and pipeline parallelism of a `mapping`, and what is odd about it."""
    tp = _parallel(mapping.get("tp_size"), f"{where}.tp_size")
    pp = _parallel(mapping.get("pp_size"), f"{where}.pp_size")
    cp = _parallel(mapping.get("cp_size"), f"{where}.cp_size")
    product = tp * pp * cp
    world = (
        product
        if mapping.get("world_size") is None
        else _parallel(mapping["world_size"], f"{where}.world_size")
    )
    if world == product:
        return world, tp, pp, ()
    return world, tp, pp, (f"{where} says world_size {world}, but its parallelism multiplies to {product}",)


def _parallel(value: object, where: str) -> int:
    """A degree of parallelism: absent means 1."""
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_RANKS:
        shown = repr(value)[:40] if not isinstance(value, int) or abs(value) < 10**12 else "an absurd number"
        raise LayoutError(f"{where} is {shown}; it must be a whole number from 1 to {_MOST_RANKS:,}")
    return value


def _compare(
    directory: Path,
    world: int,
    ranks: Mapping[int, str],
    name_of: Callable[[int], str],
    files: Mapping[str, int],
    *,
    kind: str,
) -> None:
    """Refuse a missing rank, an empty file, and a file that no rank accounts for."""
    absent = list(islice((rank for rank in count() if rank not in ranks), _NAMED))
    missing = [rank for rank in absent if rank < world]
    if missing:
        number = world - sum(rank < world for rank in ranks)
        more = f" and {number - len(missing)} more" if number > len(missing) else ""
        listed = ", ".join(f"{rank} ({name_of(rank)})" for rank in missing)
        raise LayoutError(
            f"{directory}: config.json promises {_counted(world)}, but rank {listed}{more} is missing; "
            f"there is {_some(files)}. Look in the step's output for why it was not written"
        )
    _refuse_empty(directory, files)
    stray = sorted(set(files) - {ranks[rank] for rank in ranks if rank < world})
    if stray:
        raise LayoutError(
            f"{directory} also holds {_some(stray)}, left from another run: this {kind} has "
            f"{_counted(world)}. Empty the directory, then build again"
        )


def _refuse_empty(directory: Path, files: Mapping[str, int]) -> None:
    empty = sorted(name for name, size in files.items() if not size)
    if empty:
        raise LayoutError(f"{directory}: empty: {_some(empty)}; the step did not finish writing")


def _check_safetensors(path: Path) -> None:
    """Refuse a file shorter than its header says (format: eight bytes of length, a JSON header, the data)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_JSON):
            raise LayoutError(f"{path} is cut off or no safetensors file; run the conversion again")
        try:
            header = json.loads(file.read(length))
            ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
            expected = 8 + length + min(max(ends, default=0), 1 << 62)
        except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
            raise LayoutError(
                f"{path} has no readable safetensors header; run the conversion again"
            ) from None
    if size != expected:
        raise LayoutError(
            f"{path} has {size:,} bytes where its header says {expected:,}; run the conversion again"
        )


def _files(directory: Path, suffix: str) -> dict[str, int]:
    """Regular files directly in `directory` whose name ends in `suffix`, with their sizes in bytes."""
    try:
        return {
            path.name: path.stat().st_size
            for path in directory.iterdir()
            if path.suffix == suffix and path.is_file()
        }
    except OSError as problem:
        raise LayoutError(f"cannot list {directory}: {problem.strerror}") from problem


def _present(path: Path) -> bool:
    return os.path.lexists(path)


def _promises_ranks(path: Path) -> bool:
    try:
        config = _json_object(path)
    except LayoutError:
        return False
    return isinstance(config.get("mapping"), dict) and "architecture" in config


def _json_object(path: Path) -> dict[str, Any]:
    """Parse a JSON object. A script's file: it may be large, deep, or no file at all."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not block
        with open(descriptor, "rb") as file:  # noqa: PTH123  an open descriptor
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode) or seen.st_size > _LARGEST_JSON:
                raise LayoutError(f"{path} is not a regular file of a sensible size")
            text = file.read()
    except FileNotFoundError:
        raise LayoutError(f"{path} is missing") from None
    except OSError as problem:
        raise LayoutError(f"cannot read {path}: {problem.strerror}") from problem
    if not text.strip():
        raise LayoutError(f"{path} is empty; the step did not finish writing")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        place = f" at line {problem.lineno}" if isinstance(problem, json.JSONDecodeError) else ""
        raise LayoutError(f"{path} is not valid JSON{place}") from None
    if not isinstance(value, dict):
        raise LayoutError(f"{path} is not a JSON object")
    return value


def _text(value: object) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    """A positive number of tokens, as JSON writes it; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53 else None


def _counted(world: int) -> str:
    return "1 rank" if world == 1 else f"{world:,} ranks"


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more or "nothing"
