"""Tokenizers trained on the spot, on a paragraph of plain English."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

END_OF_TEXT = "<|endoftext|>"
BEGIN_OF_TEXT = "<|begin_of_text|>"

PARAGRAPH = """\
An engine is a model compiled for the machine that will run it. The compiler reads the weights, chooses how
every layer will run, and writes what it chose to a file that the server loads. A large model is split into
parts, one for each rank, and the ranks run side by side. The tokenizer turns text into numbers and numbers
into text; it has to be the one that the model was trained with. A small model is good for tests, because it
is made in a moment and read in a moment. The old lighthouse keeper counted the ships that came home every
evening, and wrote their names in a book. When the wind turned to the north, the boats stayed in the harbour
and their crews told stories until the morning. Nothing in the world is quite as quiet as a street after snow.
Bread, salt and water were on the table; the door was open and the garden smelled of rain. She read the letter
twice, folded it, and put it back where it had been. There are 12 months in a year, 7 days in a week and 24
hours in a day. Who has seen the river in spring, when the ice breaks and the water is as high as the bridge?
"""


def train_byte_level_bpe(special: tuple[str, ...], vocab_size: int) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer`, the same on every run.

    Args:
        special: special tokens; they get the first ids.
        vocab_size: at most this many tokens, the 256 bytes and the special ones included.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PARAGRAPH.splitlines(), trainer)
    return tokenizer


def write_gpt2_tokenizer(folder: Path, vocab_size: int, *, positions: int) -> Any:
    """GPT-2's tokenizer files; returns the `tokenizers.Tokenizer`."""
    tokenizer = train_byte_level_bpe((END_OF_TEXT,), vocab_size)
    _save(tokenizer, folder)
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            **special,
            "model_max_length": positions,
            "tokenizer_class": "GPT2TokenizerFast",
        },
    )
    return tokenizer


def write_llama3_tokenizer(folder: Path, vocab_size: int, *, positions: int) -> Any:
    """Tokenizer files in the manner of Llama 3: `tokenizer.json` only, begin-of-text comes first."""
    from tokenizers import processors

    tokenizer = train_byte_level_bpe((BEGIN_OF_TEXT, END_OF_TEXT), vocab_size)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BEGIN_OF_TEXT} $A",
                pair=f"{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT}:1 $B:1",
                special_tokens=[(BEGIN_OF_TEXT, tokenizer.token_to_id(BEGIN_OF_TEXT))],
            ),
        ]
    )
    _save(tokenizer, folder)
    special = {"bos_token": BEGIN_OF_TEXT, "eos_token": END_OF_TEXT}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "clean_up_tokenization_spaces": False,
            "model_max_length": positions,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    return tokenizer


def write_sentencepiece_tokenizer(folder: Path, vocab_size: int, *, positions: int) -> Any:
    """Tokenizer files in the manner of Llama 2: `tokenizer.model`, bytes for what it does not know.

    Returns:
        The `sentencepiece.SentencePieceProcessor`; `<s>` is 1 and `</s>` is 2.
    """
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PARAGRAPH.splitlines()),
        model_writer=written,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            **special,
            "legacy": False,
            "model_max_length": positions,
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
        },
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _save(tokenizer: Any, folder: Path) -> None:
    """Writes `tokenizer.json` with merges as strings, which every release of `tokenizers` reads."""
    document = json.loads(tokenizer.to_str())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(document, indent=2, ensure_ascii=False))
