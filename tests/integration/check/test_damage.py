"""Damaged engines are found, and good ones are let through however strange they talk.

The damage is real: to the weights, the graph or the tokenizer of engines that the embedded toolchain built.
The good engines are of models with random weights, which do strange things by nature: repeat one token, write
bytes that are no text, end at once. docs/reliability.md has the table.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.check import engines
from tests.integration.check.engines import DAMAGES, GENERATIONS, KINDS, TYPES, Damage, Generation, Kind
from tests.integration.documents.test_reliability_document import DOCUMENT

#: What shows without a reference, in any model that has something to say; the rest may show or not.
AT_ONCE = {"weights zeroed", "weights NaN"}
VICTIMS: tuple[tuple[Kind, Generation, str, bool], ...] = (
    ("gpt2 taught", "0.7.1", "float16", False),
    ("llama taught", "0.9.0", "float16", True),
)
MANY = 50


@pytest.fixture(scope="module", params=VICTIMS, ids=[victim[0] for victim in VICTIMS])
def victim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a good engine of it."""
    kind, generation, dtype, int8 = request.param
    folder = tmp_path_factory.mktemp("victim")
    engines.make_model(kind, folder / "model", seed=3)
    return folder / "model", engines.build(kind, generation, dtype, int8, folder / "model", folder)


def damaged(victim: tuple[Path, Path], what: Damage, folder: Path) -> Path:
    shutil.copytree(victim[1], folder / "damaged")
    engines.damage(folder / "damaged", what, folder)
    return folder / "damaged"


def test_the_good_engine_passes_every_level(victim: tuple[Path, Path], tmp_path: Path) -> None:
    model, engine = victim
    verdict = engines.check(engine, model, tmp_path, reference=True)
    assert (verdict.status, verdict.level) == ("passed", 3), verdict.reason
    assert verdict.reference is not None
    assert [one.common for one in verdict.reference.prompts] == [len(a.tokens or ()) for a in verdict.answers]


@pytest.mark.parametrize("what", DAMAGES, ids=[damage.name for damage in DAMAGES])
def test_level_3_finds_it(victim: tuple[Path, Path], what: Damage, tmp_path: Path) -> None:
    engine = damaged(victim, what, tmp_path)
    verdict = engines.check(engine, victim[0], tmp_path / "s", reference=True)
    assert verdict.status == "failed"
    assert verdict.reason
    assert "usual causes: " in verdict.reason


@pytest.mark.parametrize("name", sorted(AT_ONCE))
def test_level_2_finds_what_makes_every_answer_the_same(
    victim: tuple[Path, Path], name: str, tmp_path: Path
) -> None:
    what = next(damage for damage in DAMAGES if damage.name == name)
    verdict = engines.check(damaged(victim, what, tmp_path), victim[0], tmp_path / "s")
    assert (verdict.status, verdict.level) == ("failed", 1)
    assert "the model itself writes" in verdict.reason


def test_a_garbage_answer_is_shown(victim: tuple[Path, Path], tmp_path: Path) -> None:
    verdict = engines.check(damaged(victim, DAMAGES[0], tmp_path), victim[0], tmp_path / "s")
    assert 'after "The capital of France is" it wrote' in verdict.reason
    assert verdict.answers[0].shown() in verdict.reason


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "gpt2" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_false_alarm(kind: Kind, generation: Generation, tmp_path: Path) -> None:
    for seed, (dtype, int8) in enumerate(TYPES):
        assert_good(kind, generation, dtype, int8, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("dtype", "int8"), TYPES)
def test_no_false_alarm_on_fifty(
    kind: Kind, generation: Generation, dtype: str, int8: bool, tmp_path: Path
) -> None:
    for seed in range(100, 100 + MANY):
        assert_good(kind, generation, dtype, int8, seed, tmp_path)


def assert_good(kind: Kind, generation: Generation, dtype: str, int8: bool, seed: int, folder: Path) -> None:
    """Makes one good engine; it must pass, with the reference and without."""
    place = folder / str(seed)
    engines.make_model(kind, place / "model", seed)
    engine = engines.build(kind, generation, dtype, int8, place / "model", place)
    for reference in (False, True):
        verdict = engines.check(engine, place / "model", place / "s", reference=reference)
        assert verdict.status == "passed", f"{kind} {generation} {dtype} int8={int8} {seed}: {verdict.reason}"
    shutil.rmtree(place)


def test_every_damage_has_its_row_in_the_document() -> None:
    text = DOCUMENT.read_text()
    missing = [damage.name for damage in DAMAGES if f"| {damage.name} " not in text]
    assert missing == []
