"""Level 3: asking the Hugging Face model itself, by the toolchain's interpreter, and comparing.
 transformers and torch do it where that interpreter has them. The embedded toolchain has a reference of its
own, `examples/reference.py`, which needs numpy alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.check.asking import PROGRAMS, Asker
from trt_llm_pipeline.check.judging import LENIENCY, agrees, common_prefix
from trt_llm_pipeline.check.verdict import Answer, Compared, Reference

_OWN = "reference.py"


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        reference: the model's side.
        agrees: whether the engine wrote what the model would have, as far as its precision allows.
        misread: the first answer whose prompt the archive's tokenizer reads otherwise than the model's own,
            with the model's ids; None where they read alike.
    """

    reference: Reference
    agrees: bool
    misread: tuple[Answer, tuple[int, ...]] | None


def compare(
    asker: Asker, model_dir: Path, answers: Sequence[Answer], *, own_first: bool = False
) -> Comparison | str:
    """Compares answers with what the model itself writes.

    Args:
        asker: has asked the engine.
        model_dir: the Hugging Face model.
        answers: what the engine wrote.
        own_first: to prefer the toolchain's own reference, which is quicker, where it has one.

    Returns:
        The comparison, or in words why there is none.
    """
    programs = [PROGRAMS / _OWN]
    own = asker.toolchain.examples / _OWN
    if own.is_file():
        programs.insert(0 if own_first else 1, own)
    request = {
        "model_dir": str(model_dir),
        "tokens": asker.limits.output_len,
        "answers": [
            {
                "prompt": answer.prompt,
                "prompt_tokens": list(answer.prompt_tokens or ()),
                "tokens": list(answer.tokens or ()),
            }
            for answer in answers
        ],
    }
    reasons = []
    for program in programs:
        told, ran = asker.program(program, request)
        prompts = (told or {}).get("prompts")
        if told is not None and isinstance(prompts, list) and len(prompts) == len(answers):
            return _compared(asker.limits.precision, str(told.get("by")), answers, prompts)
        absent = (told or {}).get("absent")
        last = ran.tail[-1] if ran.tail else f"exit code {ran.exit_code}"
        reasons.append(str(absent) if absent else "took too long" if ran.timed_out else last)
    return "; ".join(reasons)


def _compared(
    precision: str, by: str, answers: Sequence[Answer], prompts: Sequence[Mapping[str, Any]]
) -> Comparison:
    leniency = LENIENCY[precision]
    compared, lengths = [], []
    misread = None
    for answer, told in zip(answers, prompts, strict=True):
        if answer.tokens is None:  # texts only: letter by letter
            common = len(os.path.commonprefix([answer.text, str(told["text"])]))  # noqa: RUF071
            lengths.append(len(answer.text))
        else:
            common = common_prefix(told["gaps"], leniency.tie)
            lengths.append(len(answer.tokens))
        compared.append(Compared(answer.prompt, common, tuple(told["tokens"]), str(told["text"])))
        encodings = [tuple(ids) for ids in told["encodings"]]
        mine = answer.prompt_tokens
        if misread is None and mine and encodings and not any(ids[: len(mine)] == mine for ids in encodings):
            misread = answer, encodings[0]
    same = agrees([one.common for one in compared], lengths, leniency)
    return Comparison(Reference(by, tuple(compared)), same and misread is None, misread)
