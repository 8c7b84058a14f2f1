"""What documents name as proof exists; docs/reliability.md leaves out none of the tests that make faults."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from trt_llm_pipeline.testing.servers import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "tests" / "integration"
DOCUMENT = PROJECT_ROOT / "docs" / "reliability.md"
#: Every test of these must have its row. The others have tests of more than faults.
COMPLETE = ("faults/test_*.py", "attacks/test_*.py", "server/test_http_api_fuzz.py")
NOT_FAULTS = {"test_server_is_ready_after_all_of_this"}


def names_in(path: Path) -> set[str]:
    """The tests of a file, as the document names them."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    name = path.relative_to(FOLDER)
    return {f"{name}::{function.name}" for function in functions if function.name.startswith("test_")}


@pytest.mark.parametrize(("document", "least"), [("reliability.md", 50), ("security.md", 3)])
def test_every_test_in_the_document_exists(document: str, least: int) -> None:
    named = set(re.findall(r"`(\w+/test_\w+\.py::test_\w+)`", DOCUMENT.with_name(document).read_text()))
    there = set().union(*(names_in(path) for path in FOLDER.glob("*/test_*.py")))
    assert len(named) >= least
    assert named <= there, named - there


def test_every_fault_has_its_row() -> None:
    text = DOCUMENT.read_text()
    paths = [path for pattern in COMPLETE for path in FOLDER.glob(pattern)]
    tests = set().union(*(names_in(path) for path in paths))
    assert {
        name for name in tests if f"`{name}`" not in text and name.split("::")[1] not in NOT_FAULTS
    } == set()
