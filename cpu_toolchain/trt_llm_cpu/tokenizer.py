"""A model's tokenizer: tokenizer.json, tokenizer.model, or vocab.json with merges.txt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_cpu.console import BadInputError
from trt_llm_cpu.tensors import read_json


@dataclass(frozen=True)
class TextCodec:
    """Text to tokens and back.

    Attributes:
        encode: text to token ids, with the tokens that the model expects in front.
        encode_bare: the same without them.
        decode: token ids to text.
        end_id: the token that ends a text, or None where the tokenizer names none.
    """

    encode: Callable[[str], list[int]]
    encode_bare: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    end_id: int | None


def load_tokenizer(directory: Path) -> TextCodec:
    """Loads a directory's tokenizer. Raises BadInputError when there is none, or it is damaged."""
    try:
        if (directory / "tokenizer.json").is_file():
            return _load_json(directory)
        if (directory / "tokenizer.model").is_file():
            return _load_sentencepiece(directory)
        if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
            return _load_byte_level_bpe(directory)
    except BadInputError:
        raise
    except Exception as error:  # noqa: BLE001 - the libraries raise bare Exception for a damaged file
        raise BadInputError(
            f"{directory}: the tokenizer cannot be read: {str(error).splitlines()[0]}."
        ) from None
    raise BadInputError(
        f"{directory} has no tokenizer: no tokenizer.json, no tokenizer.model, no vocab.json with merges.txt."
    )


def _load_json(directory: Path) -> TextCodec:
    from tokenizers import Tokenizer

    return _codec(Tokenizer.from_file(str(directory / "tokenizer.json")), directory)


def _load_byte_level_bpe(directory: Path) -> TextCodec:
    # What GPT-2's repositories held before tokenizer.json existed.
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    model = models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _codec(tokenizer, directory)


def _codec(tokenizer: Any, directory: Path) -> TextCodec:
    end = _end_token(directory)
    end_id = tokenizer.token_to_id(end) if end else _configured_end_id(directory)
    return TextCodec(
        lambda text: tokenizer.encode(text).ids,
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True),
        end_id,
    )


def _load_sentencepiece(directory: Path) -> TextCodec:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    settings = _settings(directory)
    front = [processor.bos_id()] if settings.get("add_bos_token", True) and processor.bos_id() >= 0 else []
    end = processor.eos_id()
    return TextCodec(
        lambda text: front + processor.encode(text),
        lambda text: list(processor.encode(text)),
        lambda ids: processor.decode(list(ids)),
        end if end >= 0 else _configured_end_id(directory),
    )


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _end_token(directory: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = directory / name
        token = read_json(path).get("eos_token") if path.is_file() else None
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return None


def _configured_end_id(directory: Path) -> int | None:
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        end = read_json(path).get("eos_token_id") if path.is_file() else None
        if isinstance(end, list) and end:
            end = end[0]
        if type(end) is int:
            return end
    return None
