"""Whether a packed tokenizer will load and where a text ends, judged by its files, without transformers.

Which files a class reads and which end-of-sequence token it has by default is transformers' own definition,
the same in 4.38 and in current releases (https://github.com/huggingface/transformers, `tokenization_*.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from trt_llm_pipeline.engine.tokenizer_files import (
    ONLY_IN_5,
    TOKENIZER_CONFIG,
    has_paired_merges,
    known_classes,
)

_BYTE_PAIRS = ("vocab.json", "merges.txt")

# Without its Fast ending: the files that do instead of tokenizer.json (none: only that will do), and the
# end-of-sequence token where no file names another (None: it has none of its own).
_CLASSES: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    "PreTrainedTokenizer": ((), None),
    "BartTokenizer": (_BYTE_PAIRS, "</s>"),
    "BertTokenizer": (("vocab.txt",), None),
    "BloomTokenizer": ((), "</s>"),
    "CodeGenTokenizer": (_BYTE_PAIRS, "<|endoftext|>"),
    "GPT2Tokenizer": (_BYTE_PAIRS, "<|endoftext|>"),
    "GPTNeoXTokenizer": ((), "<|endoftext|>"),
    "GemmaTokenizer": (("tokenizer.model",), "<eos>"),
    "LlamaTokenizer": (("tokenizer.model",), "</s>"),
    "Qwen2Tokenizer": (_BYTE_PAIRS, "<|endoftext|>"),
    "RobertaTokenizer": (_BYTE_PAIRS, "</s>"),
    "T5Tokenizer": (("spiece.model",), "</s>"),
    "WhisperTokenizer": (_BYTE_PAIRS, "<|endoftext|>"),
}


@dataclass(frozen=True)
class Verdict:
    """What can be said of a tokenizer.

    Attributes:
        tokenizer_class: its class, or None.
        problem: why it will not load, and what to do; None where nothing stands against it.
        doubt, doubt_status: why it might not load, and how grave that is.
        eos_token: the end-of-sequence token's text, or None.
        eos_known: whether None there means that there is none, rather than that it could not be told.
        eos_id: its number, or None where it could not be told.
    """

    tokenizer_class: str | None
    problem: str | None
    doubt: str | None
    doubt_status: Literal["warning", "unknown"]
    eos_token: str | None
    eos_known: bool
    eos_id: int | None


def examine(names: Set[str], parts: Mapping[str, Mapping[str, Any] | None]) -> Verdict:
    """Judge a tokenizer by its files.

    Args:
        names: the files beside the engine.
        parts: those that were read and are JSON, parsed; None for what is no JSON object.
    """
    config = parts.get(TOKENIZER_CONFIG) or {}
    written = config.get("tokenizer_class")
    name = written if isinstance(written, str) and written else None
    problem = _problem(name, names, parts)
    doubt, status = (None, "warning") if problem else _doubt(name, parts)
    token, known = _eos(name, config, parts.get("special_tokens_map.json") or {})
    number = None if token is None else next(_numbers(token, parts), None)
    return Verdict(name, problem, doubt, status, token, known, number)


def _problem(name: str | None, names: Set[str], parts: Mapping[str, Mapping[str, Any] | None]) -> str | None:
    if TOKENIZER_CONFIG not in names:
        return (
            f"there is no {TOKENIZER_CONFIG}, so AutoTokenizer cannot know its class; add one with "
            "tokenizer_class"
        )
    broken = sorted(file for file, part in parts.items() if part is None and file in _READ and file in names)
    if broken:
        return f"{broken[0]} is not a JSON object; put a good one into the model's repository and build again"
    if name is None:
        return (
            f"{TOKENIZER_CONFIG} has no tokenizer_class, and config.json beside it is an engine's and "
            "names no "
            "model type; add tokenizer_class"
        )
    base = name.removesuffix("Fast")
    auto_map = (parts[TOKENIZER_CONFIG] or {}).get("auto_map")
    if isinstance(auto_map, dict) and "AutoTokenizer" in auto_map and base not in known_classes():
        return (
            f"{name} is the repository's own Python code, which is not packed and which a server does not "
            "run; "
            "serve it with a converted tokenizer.json"
        )
    if name in ONLY_IN_5:
        return (
            f"{name} is known only to transformers 5 and later; put tokenizer_class: PreTrainedTokenizerFast "
            f"into {TOKENIZER_CONFIG}, if there is a tokenizer.json"
        )
    if base in _CLASSES and "tokenizer.json" not in names:
        needed = _CLASSES[base][0]
        missing = [file for file in needed if file not in names]
        if missing or not needed:
            instead = f" (or {' and '.join(missing)})" if missing else ""
            return f"{name} needs tokenizer.json{instead}, which is missing; add it and build again"
    return None


_READ = (TOKENIZER_CONFIG, "tokenizer.json", "special_tokens_map.json")


def _doubt(
    name: str | None, parts: Mapping[str, Mapping[str, Any] | None]
) -> tuple[str | None, Literal["warning", "unknown"]]:
    if has_paired_merges(parts.get("tokenizer.json") or {}):
        return (
            "tokenizer.json lists its merges as pairs, which transformers before 4.45 cannot read; serve "
            "it with "
            "a later one, or put one that lists them as strings into the model's repository",
            "warning",
        )
    if str(name).removesuffix("Fast") not in _CLASSES:
        return (
            f"{name} is not among the classes whose files are known; load it where it will be served",
            "unknown",
        )
    return None, "warning"


def _eos(name: str | None, config: Mapping[str, Any], special: Mapping[str, Any]) -> tuple[str | None, bool]:
    for source in (config, special):
        token = _text(source.get("eos_token"))
        if token:
            return token, True
    if "eos_token" in config:
        return None, True
    base = str(name).removesuffix("Fast")
    if base in _CLASSES:
        return _CLASSES[base][1], True
    return None, False


def _text(token: object) -> str | None:
    """A token's text: written plainly, or as the `content` of an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _numbers(token: str, parts: Mapping[str, Mapping[str, Any] | None]) -> Iterator[int]:
    """The number of a token, from whichever file says."""
    tokenizer = parts.get("tokenizer.json") or {}
    added = tokenizer.get("added_tokens")
    for entry in added if isinstance(added, list) else []:
        if isinstance(entry, dict) and entry.get("content") == token and _is_number(entry.get("id")):
            yield entry["id"]
    decoder = (parts.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    for number, entry in decoder.items() if isinstance(decoder, dict) else ():
        if _text(entry) == token and str(number).isdecimal():
            yield int(number)
    model = tokenizer.get("model")
    inner = model.get("vocab") if isinstance(model, dict) else None
    for vocabulary in (parts.get("added_tokens.json"), parts.get("vocab.json"), inner):
        if isinstance(vocabulary, dict) and _is_number(vocabulary.get(token)):
            yield vocabulary[token]
    stop = (parts.get("generation_config.json") or {}).get("eos_token_id")
    if isinstance(stop, list) and len(stop) == 1:
        stop = stop[0]
    if _is_number(stop):
        yield stop


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
