"""What a config that came with a request is called."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from trt_llm_pipeline.server.sent import sent_name

TEMPORARY = Path(tempfile.gettempdir())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (TEMPORARY / "tmpxo2062edfile", "config"),
        (TEMPORARY / "tmpxo2062edfile.yaml", "config"),
        (TEMPORARY / "tmpxo2062edmine.yaml", "mine.yaml"),
        (Path("/srv/tmpxo2062edmine.yaml"), "as it was"),
        (TEMPORARY / "mine.yaml", "as it was"),
    ],
)
def test_a_random_name_is_not_repeated(path: Path, name: str) -> None:
    assert sent_name(str(path), "as it was") == name
