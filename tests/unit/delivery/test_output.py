"""Where a copy of an archive may be put."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_llm_pipeline.delivery import check_named
from trt_llm_pipeline.errors import BadArgument


@pytest.mark.parametrize(
    ("name", "compression"),
    [("a.tar.gz", "gzip"), ("a.tgz", "gzip"), ("a.tar", "none"), ("engine", "gzip"), ("a.bin", "none")],
)
def test_a_name_that_does_not_say_otherwise_is_taken(name: str, compression: str) -> None:
    check_named(Path(name), compression)


@pytest.mark.parametrize(
    ("name", "compression", "better"),
    [
        ("a/b.tar", "gzip", "b.tar.gz"),
        ("b.tar.gz", "none", "b.tar"),
        ("B.TGZ", "none", "B.tar"),
        ("v1.two.tar", "gzip", "v1.two.tar.gz"),
    ],
)
def test_a_name_that_says_otherwise_is_refused(name: str, compression: str, better: str) -> None:
    with pytest.raises(BadArgument, match=f"compression: {compression}; name it {better}$"):
        check_named(Path(name), compression)
