"""Token ids into text and back, with an engine's tokenizer. See `asking`.

usage: spell.py REQUEST.json REPORT.json

The request names the tokenizer's folder, the prompts, and for each prompt a row of token ids that begins with
the prompt's own, as run.py writes them. Which way of encoding makes every row begin with its prompt is found
out by trying: by `tokenizers`, by `sentencepiece`, by transformers, each with and without special tokens. The
report has for each row the prompt's ids, the ids after it up to the end-of-text token, and their text; and
how many of the prompt's ids are not in the row, because the engine takes no more.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Codec(NamedTuple):
    """Ways to encode, the way to decode, and the end-of-text token if there is one."""

    encodings: Sequence[Callable[[str], list[int]]]
    decode: Callable[[list[int]], str]
    end: int | None


def main() -> None:
    """Reads the request and writes the report."""
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    answers, tried = None, []
    for make in (by_tokenizers, by_sentencepiece, by_transformers):
        try:
            answers = split(request, make(Path(request["folder"])))
        except Exception as error:  # noqa: BLE001 - a library that is absent, a tokenizer of another kind
            tried.append(f"{make.__name__}: {type(error).__name__}: {error}"[:300])
            continue
        if answers is not None:
            break
        tried.append(f"{make.__name__}: the rows do not begin with the prompts")
    Path(sys.argv[2]).write_text(json.dumps({"answers": answers, "tried": tried}), "utf-8")


def split(request: dict[str, Any], codec: Codec) -> list[dict[str, Any]] | None:
    """The answers, if there is an encoding with which every row begins with its prompt; else None."""
    pairs = list(zip(request["prompts"], request["rows"], strict=True))
    for encode in codec.encodings:
        whole = [list(encode(prompt)) for prompt, _ in pairs]
        read = [ids[: request["input_length"]] for ids in whole]
        if all(own and row[: len(own)] == own for own, (_, row) in zip(read, pairs, strict=True)):
            return [
                {**answer(own, row[len(own) :][: request["tokens"]], codec), "cut": len(ids) - len(own)}
                for ids, own, (_, row) in zip(whole, read, pairs, strict=True)
            ]
    return None


def answer(prompt: list[int], tokens: list[int], codec: Codec) -> dict[str, Any]:
    """One answer, up to its end."""
    words = tokens
    if codec.end in tokens:
        words = tokens[: tokens.index(codec.end)]
        tokens = tokens[: len(words) + 1]
    try:
        text = codec.decode(words)
    except Exception:  # noqa: BLE001 - an id beyond the vocabulary, which level 1 will say
        text = ""
    return {"prompt_tokens": prompt, "tokens": tokens, "text": text}


def by_tokenizers(folder: Path) -> Codec:
    """`tokenizer.json`."""
    tokenizer: Any = importlib.import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = end_token(folder)
    return Codec(
        [
            lambda text: list(tokenizer.encode(text).ids),
            lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        ],
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
        None if end is None else tokenizer.token_to_id(end),
    )


def by_sentencepiece(folder: Path) -> Codec:
    """`tokenizer.model`."""
    library: Any = importlib.import_module("sentencepiece")
    processor = library.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    front = [processor.bos_id()]
    return Codec(
        [lambda text: front + processor.encode(text), lambda text: list(processor.encode(text))],
        lambda ids: str(processor.decode(ids)),
        processor.eos_id(),
    )


def by_transformers(folder: Path) -> Codec:
    """Any other, as run.py itself loads it; but never with code that came with it."""
    library: Any = importlib.import_module("transformers")
    tokenizer = library.AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    return Codec(
        [
            lambda text: list(tokenizer.encode(text)),
            lambda text: list(tokenizer.encode(text, add_special_tokens=False)),
        ],
        lambda ids: str(tokenizer.decode(ids)),
        tokenizer.eos_token_id,
    )


def end_token(folder: Path) -> str | None:
    """The text of the end-of-text token, as the tokenizer's files name it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token = json.loads((folder / name).read_text("utf-8")).get("eos_token")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return None


if __name__ == "__main__":
    main()
