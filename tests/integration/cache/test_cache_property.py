"""With the cache on, a build gives the bytes that it gives with `cache: false`, whatever happened before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.cache.worlds import Pair, random_change, random_recipe
from trt_llm_pipeline.cache import hashes

QUICK, SLOW = range(2), range(2, 140)


@pytest.fixture(autouse=True)
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered after a few ticks of the clock instead of 2 s, or none would be used here."""
    monkeypatch.setattr(hashes, "_SETTLED_NS", 30_000_000)


def one_history(folder: Path, seed: int, length: int) -> None:
    choose = random.Random(seed)
    pair = Pair(folder)
    recipes = [random_recipe(choose) for _ in range(3)]
    history: list[str] = []
    try:
        for _ in range(length):
            if choose.random() < 0.5:
                history.append(random_change(choose, pair))
            recipe = choose.choice(recipes)
            history.append(f"build {recipes.index(recipe)}")
            runs = pair.build(recipe)
            history[-1] += f" (ran {', '.join(runs) or 'nothing'})"
    except AssertionError as error:
        told = "\n".join([f"seed {seed}", *(recipe.text(cache=True) for recipe in recipes), *history])
        raise AssertionError(f"{error}\n{told}") from None


@pytest.mark.parametrize("seed", QUICK)
def test_any_history_gives_what_no_cache_gives(tmp_path: Path, seed: int) -> None:
    one_history(tmp_path, seed, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW)
def test_any_long_history_gives_what_no_cache_gives(tmp_path: Path, seed: int) -> None:
    one_history(tmp_path, seed, 12)
