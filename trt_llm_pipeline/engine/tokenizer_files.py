"""The tokenizer that goes beside an engine, from a model repository, without importing transformers.

Files are taken unchanged. What `AutoTokenizer` would look up in the model's `config.json` is lost beside an
engine, whose `config.json` is another thing, so the class (and, for the generic class, the end-of-sequence
token) is added to `tokenizer_config.json` where the repository does not name it. The names chosen here exist
in transformers 4.38 and in current releases alike.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from trt_llm_pipeline.files import is_the_machines

TOKENIZER_CONFIG = "tokenizer_config.json"

# What holds the vocabulary itself: at least one of these makes a tokenizer.
_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v*",
    "tekken.json",
    "*.tiktoken",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "ice_text.model",
    "source.spm",
    "target.spm",
)
_COMPANIONS = (
    "merges.txt",
    "normalizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",  # servers read the stop tokens from it
)
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_GENERIC = "PreTrainedTokenizerFast"

# The class of a model type, where the repository names none: transformers' own choice (its table of
# tokenizers by
# model type), under a name that 4.38 and current releases both know.
TOKENIZER_CLASSES: Mapping[str, str] = {
    "baichuan": "LlamaTokenizer",
    "bart": "BartTokenizer",
    "bert": "BertTokenizer",
    "bloom": "BloomTokenizerFast",
    "codegen": "CodeGenTokenizer",
    "gemma": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "gpt_bigcode": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizerFast",
    "gptj": "GPT2Tokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "mixtral": "LlamaTokenizer",
    "mpt": "GPTNeoXTokenizerFast",
    "mt5": "T5Tokenizer",
    "opt": "GPT2Tokenizer",
    "phi": "CodeGenTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen2_moe": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "stablelm": "GPTNeoXTokenizerFast",
    "starcoder2": "GPT2Tokenizer",
    "t5": "T5Tokenizer",
    "whisper": "WhisperTokenizer",
}
_BYTE_LEVEL_CLASSES = (
    "GPT2Tokenizer",
    "Qwen2Tokenizer",
    "CodeGenTokenizer",
    "RobertaTokenizer",
    "BartTokenizer",
)
_SENTENCEPIECE_CLASSES = ("LlamaTokenizer", "GemmaTokenizer", "T5Tokenizer")
ONLY_IN_5 = ("TokenizersBackend", "SentencePieceBackend", "PythonBackend", "MistralCommonBackend")
_LARGEST_JSON = 128 << 20


@dataclass(frozen=True)
class TokenizerFiles:
    """The files to put beside an engine.

    Attributes:
        files: by name in the archive: a regular file to copy, or content made here.
        warnings: what keeps the tokenizer from loading, in sentences for the user.
    """

    files: Mapping[str, Path | bytes]
    warnings: tuple[str, ...]


def tokenizer_files(model_dir: Path) -> TokenizerFiles:
    """Collect the tokenizer of the model repository in `model_dir`.

    A repository without a tokenizer, or with one that cannot load, gives warnings. Symbolic links are
    followed only inside the directory, and from a Hub cache's snapshot to its blobs.

    Raises:
        OSError: the machine could not read it just now; an archive would lack what the model has.
    """
    warnings: list[str] = []
    found: dict[str, Path | bytes] = dict(_collect(model_dir, warnings))
    if not any(is_vocabulary(name) for name in found):
        warnings.append(
            f"{model_dir.name} has no tokenizer (no tokenizer.json, tokenizer.model, vocab.json and so on), "
            f"so the "
            "archive has none; a server needs one beside the engine: add it there, or name a repository "
            "that has it"
        )
        return TokenizerFiles(found, tuple(warnings))
    try:
        config = _json_object(found.get(TOKENIZER_CONFIG))
    except ValueError as problem:
        warnings.append(
            f"{TOKENIZER_CONFIG} {problem}, so the tokenizer will not load; it is packed as it is"
        )
        return TokenizerFiles(found, tuple(warnings))
    reader = _Repository(model_dir, found, config)
    added = _additions(reader)
    if added:
        text = json.dumps({**config, **added}, indent=2, ensure_ascii=False) + "\n"
        found[TOKENIZER_CONFIG] = text.encode()
    warnings += _doubts(reader, added)
    return TokenizerFiles(found, tuple(warnings))


@dataclass(frozen=True)
class _Repository:
    folder: Path
    found: Mapping[str, Path | bytes]
    config: Mapping[str, Any]

    def has(self, *names: str) -> bool:
        return any(name in self.found for name in names)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object of the repository; empty when it is missing or is none."""
        try:
            return _json_object(self.found.get(name))
        except ValueError:
            return {}

    def model_config(self) -> dict[str, Any]:
        path = _inside(self.folder, "config.json")
        try:
            return _json_object(path)
        except ValueError:
            return {}


def _additions(repository: _Repository) -> dict[str, str | bool]:
    """What `tokenizer_config.json` must say besides what it says already."""
    if repository.config.get("tokenizer_class"):
        return {}
    name = _chosen_class(repository)
    if name is None:
        return {}
    added: dict[str, str | bool] = {"tokenizer_class": name}
    if name == _GENERIC and not _declares_eos(repository):
        eos = _eos_by_id(repository)
        if eos is not None:
            added["eos_token"] = eos
    bare = repository.has("tokenizer.model") and not repository.has("tokenizer.json")
    if name == "LlamaTokenizer" and bare and "add_bos_token" not in repository.config:
        added["add_bos_token"] = True  # the default of transformers 4, which 5 changed
    return added


def _chosen_class(repository: _Repository) -> str | None:
    """The tokenizer class for a repository that names none; None when there is nothing to go by.

    1. The class that the model's `config.json` names, if it is one of those known here.
    2. The class of the model type. A SentencePiece class is passed over where the only vocabulary is a
       `tokenizer.json` of another kind (Llama 3's is byte-level): the class would rebuild it wrongly.
    3. By the files: `tokenizer.json` loads with the generic class; `tokenizer.model` is Llama's kind;
       `vocab.json` with `merges.txt` is GPT-2's.
    """
    model = repository.model_config()
    named = model.get("tokenizer_class")
    if isinstance(named, str) and named.removesuffix("Fast") in known_classes():
        return named
    by_type = TOKENIZER_CLASSES.get(str(model.get("model_type")))
    if by_type is not None and _fits(by_type, repository):
        return by_type
    if repository.has("tokenizer.json"):
        return _GENERIC
    if repository.has("tokenizer.model"):
        return "LlamaTokenizer"
    if repository.has("spiece.model"):
        return "T5Tokenizer"
    if repository.has("vocab.json") and repository.has("merges.txt"):
        return "GPT2Tokenizer"
    if repository.has("vocab.txt"):
        return "BertTokenizer"
    return None


def known_classes() -> set[str]:
    """Tokenizer classes that transformers 4.38 and current releases have, without a `Fast` ending."""
    return {name.removesuffix("Fast") for name in (*TOKENIZER_CLASSES.values(), _GENERIC)}


def _fits(name: str, repository: _Repository) -> bool:
    if name in _SENTENCEPIECE_CLASSES and not repository.has(*_SENTENCEPIECE):
        return not _is_byte_level(repository.read("tokenizer.json"))
    if name in _BYTE_LEVEL_CLASSES and not (repository.has("vocab.json") and repository.has("merges.txt")):
        return repository.has("tokenizer.json") and _is_byte_level(repository.read("tokenizer.json"))
    return True


def _is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` spells bytes as GPT-2 does, anywhere in its decoder."""
    decoder = tokenizer.get("decoder")
    if not isinstance(decoder, dict):
        return False
    parts = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    return isinstance(parts, list) and any(
        isinstance(part, dict) and part.get("type") == "ByteLevel" for part in parts
    )


def _declares_eos(repository: _Repository) -> bool:
    return bool(
        repository.config.get("eos_token") or repository.read("special_tokens_map.json").get("eos_token")
    )


def _eos_by_id(repository: _Repository) -> str | None:
    """The text of the token that the model's config calls end of sequence."""
    for config in (repository.model_config(), repository.read("generation_config.json")):
        wanted = config.get("eos_token_id")
        if isinstance(wanted, list) and wanted:
            wanted = wanted[0]
        if not isinstance(wanted, int) or isinstance(wanted, bool):
            continue
        added = repository.read("tokenizer.json").get("added_tokens")
        for token in added if isinstance(added, list) else []:
            if (
                isinstance(token, dict)
                and token.get("id") == wanted
                and isinstance(token.get("content"), str)
            ):
                return str(token["content"])
    return None


def _doubts(repository: _Repository, added: Mapping[str, str | bool]) -> list[str]:
    """What will keep the tokenizer from loading, or from saying where a text ends."""
    name = added.get("tokenizer_class") or repository.config.get("tokenizer_class")
    if not isinstance(name, str):
        return [
            f"no tokenizer class could be found out for {repository.folder.name}, so AutoTokenizer will not "
            f"load it beside the engine; set tokenizer_class in the repository's {TOKENIZER_CONFIG}"
        ]
    auto_map = repository.config.get("auto_map")
    remote = isinstance(auto_map, dict) and "AutoTokenizer" in auto_map
    if remote and name.removesuffix("Fast") not in known_classes():
        return [
            f"the tokenizer class {name} is the repository's own Python code, which is not packed and which "
            f"a server does not run; serve it with a converted tokenizer.json instead"
        ]
    if name in ONLY_IN_5:
        return [
            f"the tokenizer class {name} is known only to transformers 5 and later; a server with "
            f"transformers 4 will not load it. If it has one, put tokenizer_class: {_GENERIC} into "
            f"{TOKENIZER_CONFIG}"
        ]
    doubts = []
    if has_paired_merges(repository.read("tokenizer.json")):
        doubts.append(
            "tokenizer.json lists its merges as pairs, which transformers before 4.45 (tokenizers before "
            "0.20) cannot read; serve the engine with a later one, or put a tokenizer.json that lists them "
            "as strings into the repository"
        )
    if name == _GENERIC and "eos_token" not in added and not _declares_eos(repository):
        doubts.append(
            f"the tokenizer names no eos_token, so a server cannot tell where a text ends; add it to the "
            f"repository's {TOKENIZER_CONFIG}"
        )
    return doubts


def is_tokenizer_file(name: str) -> bool:
    """Whether a file of that name at a repository's top belongs to its tokenizer."""
    return is_vocabulary(name) or name in _COMPANIONS


def has_paired_merges(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a parsed `tokenizer.json` has its merges in the form that came with tokenizers 0.20."""
    model = tokenizer.get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    return isinstance(merges, list) and bool(merges) and isinstance(merges[0], list)


def is_vocabulary(name: str) -> bool:
    """Whether a file of that name holds a tokenizer's vocabulary."""
    return any(fnmatchcase(name, pattern) for pattern in _VOCABULARIES)


def _collect(folder: Path, warnings: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    try:
        names = sorted(child.name for child in folder.iterdir())
    except OSError as problem:
        if is_the_machines(problem):
            raise
        warnings.append(f"cannot look for a tokenizer in {folder}: {problem.strerror}")
        return found
    for name in names:
        if not is_tokenizer_file(name):
            continue
        path = _inside(folder, name)
        if path is None:
            warnings.append(
                f"{name} in {folder} is left out of the archive: it is not a regular file of the repository"
            )
        else:
            found[name] = path
    return found


def _inside(folder: Path, name: str) -> Path | None:
    """The regular file that `name` stands for, if it belongs to the repository."""
    base = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(base / name))
    homes = [base]
    if base.parent.name == "snapshots":  # a Hub cache: snapshots/<revision>/<name> links to blobs/<hash>
        homes.append(base.parent.parent / "blobs")
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
    except OSError as problem:
        if is_the_machines(problem):
            raise
        return None
    return path if regular and any(path.is_relative_to(home) for home in homes) else None


def _json_object(source: Path | bytes | None) -> dict[str, Any]:
    """Parse a JSON object; an absent one is empty.

    Raises:
        ValueError: it is none; the text says what it is instead.
        OSError: the machine could not read it just now.
    """
    if source is None:
        return {}
    try:
        if isinstance(source, Path):
            if source.stat().st_size > _LARGEST_JSON:
                raise ValueError("is too large to read")
            source = source.read_bytes()
        value = json.loads(source)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("is not valid JSON") from None
    except OSError as problem:
        if is_the_machines(problem):
            raise
        raise ValueError(f"cannot be read ({problem.strerror})") from problem
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value
