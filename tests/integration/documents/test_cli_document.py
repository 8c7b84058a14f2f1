"""docs/cli.md: every command of it is run as it stands there, and prints what stands below it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import TOOLCHAIN
from tests.integration.documents.test_documents import DOCS, command_line, section
from tests.readme import ROOT, Block, blocks
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

PAGE = DOCS / "cli.md"
BLOCKS = blocks(PAGE)
#: Each block of commands, with the text below it where there is one.
EXAMPLES = [
    (block, after.text if after is not None and after.language == "text" else "")
    for block, after in zip(BLOCKS, [*BLOCKS[1:], None], strict=True)
    if block.language == "bash"
]
SHARED = "Options that many commands have"
HELP = {"--help", "-h", "--install-completion", "--show-completion"}


@pytest.fixture(scope="module")
def reader(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder and the environment of somebody who follows the page, with a server."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").symlink_to(ROOT / "examples")
    server = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "TRT_LLM_ALLOW_PRIVATE_ADDRESSES": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with CogServer({**server, "TRT_LLM_WORKSPACE": str(folder / "server")}) as cog:
        own = {"TRT_LLM_WORKSPACE": str(folder / "workspace"), "PATH": path, "SERVER": cog.url}
        yield folder, {**os.environ, **server, **own}


def as_pattern(line: str) -> str:
    """A line of the page as a pattern: `<words>` stand for anything."""
    return "".join(
        ".+?" if part.startswith("<") else re.escape(part) for part in re.split(r"(<[^>]+>)", line)
    )


def missing(expected: str, printed: str) -> list[str]:
    """The lines of `expected` that `printed` has not, in their order; `...` stands for any lines."""
    left, found = printed.split("\n"), []
    for line in expected.rstrip("\n").split("\n"):
        if line == "...":
            continue
        at = next((at for at, each in enumerate(left) if re.fullmatch(as_pattern(line), each)), None)
        if at is None:
            found.append(line)
        else:
            left = left[at + 1 :]
    return found


@pytest.mark.slow
def test_every_command_prints_what_the_page_says(reader: tuple[Path, dict[str, str]]) -> None:
    folder, env = reader
    ran = 0
    for block, expected in EXAMPLES:
        if block.needs is not None:
            continue
        text = block.text.replace("http://localhost:5000", env["SERVER"])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=env, capture_output=True, text=True
        )
        says = re.search(r"^# Exits with code (\d+)", block.text, re.MULTILINE)
        told = f"{block.where}\n{block.text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == (int(says[1]) if says else 0), told
        assert missing(expected, done.stdout + done.stderr) == [], told
        ran += 1
    assert ran > 10


@pytest.mark.parametrize("name", command_line())
def test_every_command_has_its_section_with_every_option(name: str) -> None:
    text = section(PAGE, name) + section(PAGE, SHARED)
    options = {option for option in command_line()[name] if option.startswith("--")} - HELP
    assert {option for option in options if option not in text} == set()
    assert any(re.search(rf"trt-llm-pipeline {name}\b", block.text) for block, _ in EXAMPLES)


def test_a_line_that_is_not_printed_is_found() -> None:
    assert missing("a <x>\n...\nc\n", "a 1\nb\nc\n") == []
    assert missing("a <x>\nd\n", "a 1\nb\n") == ["d"]
    assert missing("c\na\n", "a\nb\nc\n") == ["a"]


def test_blocks_that_need_something_say_so() -> None:
    assert [block.needs for block, _ in EXAMPLES if isinstance(block, Block) and block.needs] == [
        "an account at Replicate: export REPLICATE_API_TOKEN."
    ]
