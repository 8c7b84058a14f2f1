"""Whether cog-triton can serve an archive, and what has to be set there, from the facts alone.

What cog-triton does with an archive (https://github.com/replicate/cog-triton, predict.py): it unpacks it into
one folder, loads the tokenizer from that folder, reads `pretrained_config.max_position_embeddings` from
`config.json` unless MAX_SEQUENCE_LENGTH is set, starts WORLD_SIZE (default 1) processes, and tells the engine
that END_ID and PAD_ID (default 2) are the end-of-sequence and padding tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.artifact.reader import NO_MANIFEST
from trt_llm_pipeline.engine import layout
from trt_llm_pipeline.engine.layout import EngineFacts, LayoutError
from trt_llm_pipeline.engine.limits import max_length
from trt_llm_pipeline.engine.tokenizer_files import TOKENIZER_CONFIG, is_tokenizer_file, is_vocabulary
from trt_llm_pipeline.inspection import tokenizer_readiness
from trt_llm_pipeline.inspection.checks import Check
from trt_llm_pipeline.inspection.serving import check_gpu, check_release, compute_capability, release

CONFIG_NAME = "config.json"
_DEFAULT_WORLD_SIZE = 1
#: What cog-triton takes END_ID and PAD_ID to be unless they are set.
DEFAULT_END_ID = 2


@dataclass(frozen=True)
class ArchiveFacts:
    """What is known of an archive without its engines' bytes.

    Attributes:
        name: what to call it in messages.
        files: every file's size in bytes, by its path in the archive.
        contents: what is in the small files that matter: `config.json` and the tokenizer's.
        manifest: the archive's, or None where it has none.
        problems: what reading it back has found, in sentences; None where it was not read back.
        strict: whether pget leaves nothing of it unread but zeros, for certain; see `ArchiveContents`.
    """

    name: str
    files: Mapping[str, int]
    contents: Mapping[str, bytes]
    manifest: Mapping[str, Any] | None
    problems: Sequence[str] | None = None
    strict: bool = True


def matters(name: str) -> bool:
    """Whether `readiness` wants the content of the file `name`."""
    return name == CONFIG_NAME or is_tokenizer_file(name)


def readiness(
    facts: ArchiveFacts,
    serve_on: str | None = None,
    trt_llm: str | None = None,
    world_size: int | None = None,
) -> tuple[Check, ...]:
    """The readiness table of an archive.

    Args:
        facts: what is known of it.
        serve_on: the compute capability of the GPUs that will serve it, as `compute_capability` takes it.
        trt_llm: the TensorRT-LLM release that will serve it.
        world_size: what WORLD_SIZE will be there.

    Raises:
        ValueError: `serve_on` or `trt_llm` is not readable.
    """
    capability = compute_capability(serve_on) if serve_on else None
    wanted = release(trt_llm) if trt_llm else None
    checks = [_layout(facts)]
    config = _json_object(facts.contents.get(CONFIG_NAME))
    if config is None:
        checks.append(_no_config(facts))
    else:
        try:
            engine = layout.check_engine_files(Path(facts.name), config, _engines(facts))
        except LayoutError as error:
            checks.append(Check("ranks", "problem", f"{error}"))
        else:
            checks += [_ranks(engine, world_size), _sequence_length(engine, config)]
    checks += _tokenizer(facts)
    checks.append(check_release(facts.manifest or {}, config or {}, wanted))
    checks.append(check_gpu(facts.manifest or {}, capability))
    if facts.problems is not None:
        checks += [_extraction(facts.strict), *_checksums(facts)]
    return tuple(checks)


def _layout(facts: ArchiveFacts) -> Check:
    engines = [name for name in facts.files if name.endswith(".engine")]
    beside = [name for name in engines if "/" in name]
    if CONFIG_NAME in facts.files and engines and not beside:
        return Check("layout", "ok", f"flat: {CONFIG_NAME} and {_counted(len(engines), 'engine')} at the top")
    if any(name.startswith("encoder/") for name in beside):
        return Check(
            "layout",
            "problem",
            "an encoder-decoder engine, in encoder/ and decoder/; cog-triton serves models of one part only",
        )
    if not engines:
        return Check(
            "layout",
            "problem",
            "there is no .engine file in it; build again, or look whether this is the archive",
        )
    if beside:
        folder = beside[0].rpartition("/")[0]
        return Check(
            "layout",
            "problem",
            f"{beside[0]} is in the folder {folder}/, where cog-triton does not look; pack what is in that "
            "folder instead of the folder",
        )
    return Check(
        "layout",
        "problem",
        f"{CONFIG_NAME} is missing at the top; pack the whole output directory of the build",
    )


def _no_config(facts: ArchiveFacts) -> Check:
    if CONFIG_NAME not in facts.files:
        return Check(CONFIG_NAME, "problem", "is missing, so ranks and sequence length cannot be told")
    return Check(
        CONFIG_NAME, "problem", "is no JSON object; the build did not finish writing it, so build again"
    )


def _engines(facts: ArchiveFacts) -> dict[str, int]:
    return {name: size for name, size in facts.files.items() if name.endswith(".engine") and "/" not in name}


def _ranks(engine: EngineFacts, world_size: int | None) -> Check:
    world = engine.world_size
    found = f"{_counted(world, 'rank')} (tensor parallelism {engine.tp}, pipeline parallelism {engine.pp})"
    if engine.generation == "unknown":
        return Check("ranks", "unknown", "; ".join(engine.warnings))
    setting = {} if world == _DEFAULT_WORLD_SIZE else {"WORLD_SIZE": str(world)}
    if world_size is not None and world_size != world:
        return Check(
            "ranks",
            "problem",
            f"{found}, but WORLD_SIZE will be {world_size}: serve it with WORLD_SIZE={world} on as many "
            "GPUs, "
            f"or build with a world size of {world_size}",
            setting,
        )
    if engine.warnings:
        return Check("ranks", "warning", f"{found}; {'; '.join(engine.warnings)}", setting)
    if world_size is None and setting:
        return Check(
            "ranks", "warning", f"{found}: set WORLD_SIZE={world}, and give it {world} GPUs", setting
        )
    return Check("ranks", "ok", f"{found}, every file there", setting)


def _sequence_length(engine: EngineFacts, config: Mapping[str, Any]) -> Check:
    """MAX_SEQUENCE_LENGTH bounds prompt and answer together, in tokens."""
    model = engine.max_position_embeddings
    limit = max_length(config)
    best = min((value for value in (model, limit) if value is not None), default=None)
    name = "sequence length"
    if engine.generation == "pretrained_config" and model is not None:
        if limit is None or limit >= model:
            return Check(name, "ok", f"pretrained_config.max_position_embeddings is {model:,} tokens")
        return Check(
            name,
            "warning",
            f"the model takes {model:,} tokens, but the engine was built for {limit:,}: set "
            f"MAX_SEQUENCE_LENGTH={limit}, or longer requests will fail",
            {"MAX_SEQUENCE_LENGTH": str(limit)},
        )
    why = f"{CONFIG_NAME} has no pretrained_config.max_position_embeddings"
    if best is None:
        return Check(
            name,
            "warning",
            f"{why}, and says nowhere how many tokens the engine takes: set MAX_SEQUENCE_LENGTH to that "
            "number",
        )
    return Check(
        name,
        "warning",
        f"{why}: set MAX_SEQUENCE_LENGTH={best}, or cog-triton will not start",
        {"MAX_SEQUENCE_LENGTH": str(best)},
    )


def _tokenizer(facts: ArchiveFacts) -> Iterator[Check]:
    if not any(is_vocabulary(name) for name in facts.files):
        elsewhere = next((name for name in facts.files if is_vocabulary(name.rpartition("/")[2])), None)
        found = f" ({elsewhere} is in a folder)" if elsewhere else ""
        yield Check(
            "tokenizer",
            "problem",
            f"there is none beside the engine{found}; add tokenizer.json (or tokenizer.model, or "
            "vocab.json with "
            f"merges.txt) and {TOKENIZER_CONFIG} to the model's repository and build again",
        )
        return
    parts = {name: _json_object(data) for name, data in facts.contents.items() if name.endswith(".json")}
    verdict = tokenizer_readiness.examine(frozenset(facts.files), parts)
    if verdict.problem is not None:
        yield Check("tokenizer", "problem", verdict.problem)
    elif verdict.doubt is not None:
        yield Check("tokenizer", verdict.doubt_status, verdict.doubt)
    else:
        yield Check("tokenizer", "ok", f"{verdict.tokenizer_class}, with the files that it needs")
    yield _end_of_sequence(verdict)


def _end_of_sequence(verdict: tokenizer_readiness.Verdict) -> Check:
    name, token, number = "end of sequence", verdict.eos_token, verdict.eos_id
    if token is None:
        if verdict.eos_known:
            return Check(
                name,
                "problem",
                "the tokenizer has no eos_token, which cog-triton also pads with; set eos_token in "
                f"{TOKENIZER_CONFIG}",
            )
        return Check(
            name, "unknown", f"nothing names the eos_token; make sure that {verdict.tokenizer_class} has one"
        )
    if number is None:
        return Check(
            name,
            "unknown",
            f"{token!r}; its number could not be told: set END_ID and PAD_ID unless it is {DEFAULT_END_ID}",
        )
    if number != DEFAULT_END_ID:
        return Check(
            name,
            "warning",
            f"{token!r} is token {number}: set END_ID={number} and PAD_ID={number}, or answers will not end",
            {"END_ID": str(number), "PAD_ID": str(number)},
        )
    return Check(name, "ok", f"{token!r} is token {number}")


def _extraction(strict: bool) -> Check:
    if strict:
        return Check("extraction", "ok", "nothing is left after the end-of-archive mark that pget refuses")
    return Check(
        "extraction",
        "problem",
        "its gzip data go on after the tar's end-of-archive mark, at which pget 0.9.1 and later stop and "
        "then refuse what they have not read; fetch the archive as its build has left it, or decompress it "
        "with gunzip: a tar that is not compressed they take",
    )


def _checksums(facts: ArchiveFacts) -> Iterator[Check]:
    problems = list(facts.problems or ())
    if problems == [NO_MANIFEST]:
        yield Check("checksums", "unknown", f"{NO_MANIFEST}; they are listed as they are")
        return
    for problem in problems:
        yield Check("checksums", "problem", f"{problem}; fetch or build the archive again")
    if not problems:
        yield Check(
            "checksums", "ok", f"all {len(facts.files) - 1} files have the SHA-256 that manifest.json lists"
        )


def _json_object(data: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(data) if data is not None else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
