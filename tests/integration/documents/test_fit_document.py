"""docs/fit.md: every sum on it is right, and is what the code computes."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest

from tests.integration.documents.test_documents import DOCS, rows, section
from tests.readme import ROOT, blocks
from tests.unit.fit.known import known
from trt_llm_pipeline.fit import GPUS, EngineArguments, Host, assess, find_gpu, text_lines
from trt_llm_pipeline.fit.sums import needs

PAGE = DOCS / "fit.md"
SUM = re.compile(r"^(?P<name>\S.*?) {2,}(?P<sum>.+) = (?P<result>[\d,]+)$")
SUMS = [
    match
    for block in blocks(PAGE)
    if block.language == "text"
    for line in block.text.strip().split("\n")
    if (match := SUM.match(line))
]
ARGUMENTS = EngineArguments(tp=4, max_batch_size=8, max_input_len=2048, max_output_len=2048)


def value(text: str) -> int:
    """A sum of whole numbers and 0.9, with + - x / and brackets, rounded down."""
    plain = text.replace(",", "").replace("x", "*")
    assert re.fullmatch(r"[\d\s+\-*/().]+", plain), text
    return math.floor(eval(plain.replace("0.9", "Fraction(9, 10)"), {"Fraction": Fraction}))


def result(name: str) -> int:
    """The result of the first sum of that name."""
    return next(int(match["result"].replace(",", "")) for match in SUMS if match["name"] == name)


@pytest.mark.parametrize("match", SUMS, ids=lambda match: match["name"])
def test_a_person_who_redoes_the_sum_gets_the_same(match: re.Match[str]) -> None:
    assert value(match["sum"]) == int(match["result"].replace(",", ""))


def test_every_line_of_the_sums_was_redone() -> None:
    lines = [
        line for block in blocks(PAGE) if block.language == "text" for line in block.text.strip().split("\n")
    ]
    assert len(lines) == len(SUMS) > 12


def test_the_code_computes_the_same() -> None:
    shape = known("Llama 2 70B").shape
    need = needs(shape, ARGUMENTS)
    assert result("all") == shape.parameters
    assert result("weights of a rank") == need.rank_weights
    assert result("of a token") == need.kv_per_token
    assert result("tokens at once") == need.tokens
    found = assess(shape, ARGUMENTS, [find_gpu("A100-80GB"), find_gpu("L40S"), find_gpu("L4")], Host(1 << 40))
    eighty, forty, small = found.verdicts
    assert (result("A100-80GB"), eighty.answer) == (eighty.room.tokens, "yes")
    assert (result("L40S"), forty.answer) == (forty.room.tokens, "yes")
    assert (small.room.tokens, small.answer) == (0, "no")
    printed = "\n".join(text_lines(found))
    for match in SUMS:
        if match["name"] in ("A100-80GB", "L40S"):
            assert f"{match['name']}: {match['sum']} = {match['result']} tokens" in printed


def test_on_two_gpus_one_kind_is_enough_and_the_other_is_not() -> None:
    two = EngineArguments(tp=2, max_batch_size=8, max_input_len=2048, max_output_len=2048)
    found = assess(known("Llama 2 70B").shape, two, [find_gpu("A100-80GB"), find_gpu("L40S")], Host(1 << 40))
    assert [verdict.answer for verdict in found.verdicts] == ["yes", "no"]
    assert f"{found.need.rank_weights:,}" in PAGE.read_text()


def test_the_table_of_gpus_is_the_code_s() -> None:
    shown = [(name.strip("`"), memory, capability, source) for name, memory, capability, source in table()]
    assert shown == [(gpu.name, f"{gpu.memory_bytes:,}", gpu.compute_capability, gpu.source) for gpu in GPUS]


def table() -> list[list[str]]:
    return rows(section(PAGE, "The GPUs"))


def test_what_the_readme_shows_is_what_is_printed() -> None:
    found = assess(known("Llama 2 70B").shape, ARGUMENTS, [find_gpu("A100-80GB")], Host(1 << 40))
    (shown,) = [block for block in blocks(ROOT / "README.md") if block.text.startswith("fit of llama")]
    printed = text_lines(found)
    for line in filter(None, shown.text.split("\n")):
        assert line in printed
