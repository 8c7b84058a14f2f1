"""The documents agree with the code: keys, options, variables, limits, links."""

from __future__ import annotations

import ast
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from tests.conftest import ROOT
from tests.dockerfile import tracked_files
from tests.readme import blocks
from trt_llm_pipeline import settings
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.config import BuildConfig, DatasetConfig, StepConfig, loads, yaml_reader
from trt_llm_pipeline.config.schema import json_schema
from trt_llm_pipeline.fleet import matrix
from trt_llm_pipeline.plan.command import render, shell_line
from trt_llm_pipeline.server import answer
from trt_llm_pipeline.units import parse_size

DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def library() -> list[Path]:
    """The library's modules, without those for tests."""
    package = ROOT / "trt_llm_pipeline"
    return sorted(path for path in package.rglob("*.py") if path.relative_to(package).parts[0] != "testing")


def section(path: Path, heading: str) -> str:
    """The text below a heading, up to the next of the same or a higher level."""
    text = path.read_text()
    start = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert start is not None, f"{path.name} has no heading {heading!r}"
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, without its head."""
    lines = [line for line in text.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_table(text: str) -> str:
    match = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert match is not None
    return match[0]


class TestConfigReference:
    """docs/config.md and docs/config.schema.json against BuildConfig."""

    @pytest.mark.parametrize("heading", ["Keys", "Keys of a step", "Keys of a dataset"])
    def test_table_has_every_key_as_the_code_describes_it(self, heading: str) -> None:
        expected = runpy.run_path(str(ROOT / "script" / "docs.py"))["tables"]()[heading]
        table = first_table(section(DOCS / "config.md", heading))
        assert table == expected, "run script/docs, which writes this table"
        models = {"Keys": BuildConfig, "Keys of a step": StepConfig, "Keys of a dataset": DatasetConfig}
        for name in models[heading].model_fields:
            assert f"| `{name}` |" in table

    def test_schema_file_is_what_the_command_prints(self) -> None:
        assert json.loads((DOCS / "config.schema.json").read_text()) == json_schema()
        assert json.loads((DOCS / "fleet.schema.json").read_text()) == matrix.json_schema()

    def test_options_are_rendered_as_the_table_says(self) -> None:
        shown = rows(section(DOCS / "config.md", "args"))
        assert len(shown) > 8
        for written, expected in shown:
            head = "model_id: a/b\nexample_name: gpt\nbuild:\n  script: build.py\n  args:\n    "
            text = head + written.strip("`") + "\n"
            arguments = render(loads(text).build.args, lambda value: value)
            assert shell_line(arguments.argv) == expected.strip("`"), written

    def test_limits_are_the_code_s(self) -> None:
        text = section(DOCS / "config.md", "Limits")
        assert f"{yaml_reader.MAX_BYTES // 1024} KiB" in text
        assert f"{yaml_reader.MAX_DEPTH} levels" in text
        assert f"{yaml_reader.MAX_NODES:,} values" in text

    def test_references_in_the_table_can_be_resolved(self) -> None:
        names = re.findall(r"\$\{([^}.]+)\}", first_table(section(DOCS / "config.md", "References")))
        assert set(names) >= {"model_dir", "model_id", "example_name", "revision"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
class TestEveryDocument:
    """Rules for all of them."""

    def test_links_lead_somewhere(self, path: Path) -> None:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            if name.startswith(("http://", "https://")):
                continue
            linked = (path.parent / name).resolve() if name else path
            assert linked.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
                assert anchor in {anchor_of(heading) for heading in headings}, target

    def test_full_configs_in_it_are_accepted(self, path: Path) -> None:
        for block in blocks(path):
            if block.language == "yaml" and "model_id:" in block.text and "..." not in block.text:
                loads(block.text)

    def test_commands_and_options_in_it_exist(self, path: Path) -> None:
        commands = command_line()
        for name, rest in re.findall(r"trt-llm-pipeline ([a-z]\w+)([^\n`]*)", path.read_text()):
            assert name in commands, name
            for option in re.findall(r"(?<=\s)--[a-z][\w-]+", rest):
                assert option in commands[name], f"{name} {option}"

    def test_scripts_in_it_exist(self, path: Path) -> None:
        for name in re.findall(r"\bscript/[a-z_.]+\b", path.read_text()):
            assert (ROOT / name).is_file(), name


def command_line() -> dict[str, set[str]]:
    """The command line's commands, with the options that are for people."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return {
        name: {
            option
            for one in (command, *getattr(command, "commands", {}).values())
            for parameter in one.params
            if not getattr(parameter, "hidden", False)
            for option in parameter.opts
        }
        for name, command in group.commands.items()
    }


def anchor_of(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


class TestReadme:
    """It and the pages that continue it have every command of the original's, which people know."""

    @pytest.mark.parametrize(
        "command",
        [
            "export COG_TRT_LLM_VERSION=<version-id-here>",
            "export REPLICATE_API_TOKEN=<token-here>",
            "docker run -d -p 5000:5000 --gpus=all r8.im/replicate-internal/cog-trt-llm@sha256:",
            "docker pull r8.im/replicate-internal/cog-trt-llm@sha256:${COG_TRT_LLM_VERSION}",
            "docker images",
            "docker tag <image id> cog-trt-llm:latest",
            "sudo apt-get install git-lfs",
            "git lfs install",
            "git lfs pull",
            "git submodule update --init --recursive",
            "--workdir /src --net=host --volume $(pwd)/.:/src/. --ulimit memlock=-1 --shm-size=20g "
            "cog-trt-llm /bin/bash",
            "python -m cog.server.http",
            "python3 -m http.server 8003 --bind 0.0.0.0",
            '"config":"http://localhost:8003/examples/llama/llama-2-7b-chat-int8-1gpu.yaml"',
            '"config":"http://localhost:8003/examples/gpt/config.yaml"',
            '"config":"./examples/gpt/config.yaml"',
            "http://localhost:5000/predictions",
            "apt-get update && apt-get -y install git git-lfs",
            "export TRT_LLM_VERSION=0.7.1",
            "git checkout v${TRT_LLM_VERSION}",
            "make -C docker release_build",
            "cog build --dockerfile Dockerfile",
            "docker build -t cog-trt-llm .",
            'cog-trt-llm bash -c "python -m cog.server.http"',
            "export COG_TRITON_IMAGE=cog-trt-llm",
            "LOCAL_TEST=true python3 -m pytest tests/smoke/test_gpt_convert_and_build.py",
            "git clone https://github.com/NVIDIA/TensorRT-LLM.git",
            "make -C docker run",
            "python3 ./scripts/build_wheel.py --trt_root /usr/local/tensorrt",
            "pip install ./build/tensorrt_llm*.whl",
            "--workdir /src --entrypoint /bin/bash --volume $(pwd)/.:/src/. cog-trt-llm",
        ],
    )
    def test_has_the_command(self, command: str) -> None:
        pages = [ROOT / "README.md", DOCS / "server.md", DOCS / "container.md"]
        commands = "\n".join(
            block.text for page in pages for block in blocks(page) if block.language == "bash"
        )
        assert command in re.sub(r" \\\n +", " ", commands)

    def test_is_short(self) -> None:
        assert len((ROOT / "README.md").read_text().split("\n")) < 320

    def test_explains_every_package_that_the_service_needs(self) -> None:
        needed = {}
        for line in (ROOT / "requirements" / "service.txt").read_text().split("\n"):
            name, _, reason = (part.strip() for part in line.partition("#"))
            if name:
                needed[name] = reason
        table = {row[0]: row[1] for row in rows(section(ROOT / "README.md", "Development"))}
        assert set(table) == set(needed)
        assert all(reason for reason in [*table.values(), *needed.values()])
        toolchain = (ROOT / "cpu_toolchain" / "requirements.txt").read_text()
        for name in re.findall(r"^(\w+)", toolchain, re.MULTILINE):
            assert name in section(ROOT / "README.md", "Development")


class TestOperatingNotes:
    """docs/operating.md against the code that reads the environment."""

    LIBRARY = (*library(), ROOT / "predict.py")
    OURS = re.compile(r"(TRT_?LLM|HF|HUGGING_?FACE)_[A-Z_]+")

    def table(self) -> dict[str, list[str]]:
        found = {}
        for names, default, meaning in rows(section(DOCS / "operating.md", "Environment variables")):
            for name in re.findall(r"`(\w+)`", names):
                found[name] = [default, meaning]
        return found

    def read_by_the_code(self) -> set[str]:
        """Names of variables among the library's strings, but for keys of dicts: those are set, not read."""
        found = set()
        for path in self.LIBRARY:
            tree = ast.parse(path.read_text())
            keys = {id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
            for node in ast.walk(tree):
                value = node.value if isinstance(node, ast.Constant) and id(node) not in keys else None
                if isinstance(value, str) and self.OURS.fullmatch(value):
                    found.add(value)
        return found

    def test_every_variable_that_the_code_reads_is_in_the_table(self) -> None:
        read = self.read_by_the_code()
        assert {"TRT_LLM_WORKSPACE", "TRTLLM_DIR", "HF_TOKEN"} <= read
        assert read - set(self.table()) == set()

    def test_every_variable_in_the_table_is_read_by_the_code(self) -> None:
        passed_on = {"HF_ENDPOINT", "PATH", "PYTHONPATH"}
        source = "".join(path.read_text() for path in self.LIBRARY)
        assert set(self.table()) - self.read_by_the_code() <= passed_on
        assert all(name in source for name in self.table())

    def test_defaults_are_the_code_s(self) -> None:
        assert self.table()["TRT_LLM_KEEP_BUILDS"][0] == str(settings.KEEP_BUILDS)
        limit = self.table()["TRT_LLM_INLINE_LIMIT"][0]
        assert parse_size(limit) == answer.DEFAULT_INLINE_LIMIT


class TestTroubleshooting:
    """docs/troubleshooting.md against the messages in the code."""

    def messages(self) -> list[str]:
        return [
            block.text.strip() for block in blocks(DOCS / "troubleshooting.md") if block.language == "text"
        ]

    def test_each_message_is_in_the_code(self) -> None:
        templates = "\n".join(text_of_strings())
        for message in self.messages():
            parts = [part.strip(" .,") for part in re.split(r"<[^>]+>|[;:()]", message)]
            telling = [part for part in parts if len(part.split()) >= 3]
            assert telling, message
            for part in telling:
                assert part in templates, (part, message)

    def test_every_pain_has_its_message(self) -> None:
        said = "\n".join(self.messages())
        for word in (
            "no option",
            "out of memory",
            "still running",
            "config.json",
            "ranks",
            "gated",
            "tokenizer_class",
        ):
            assert word in said


def text_of_strings() -> Iterator[str]:
    """Every string of the library's code, with what is filled in later left out."""
    for path in library():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                yield "".join(str(part) for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"\{\w+\}", "\0", node.value)


class TestArchitecture:
    """docs/architecture.md against the modules that there are, and the layers that script/lint holds."""

    def test_map_names_every_module_and_no_other(self) -> None:
        tracked = [Path(name) for name in tracked_files()]
        library = [path for path in tracked if path.parts[0] == "trt_llm_pipeline" and path.suffix == ".py"]
        there: dict[str, set[str]] = {}
        for path in library:
            room = path.parts[1]
            if room == "__init__.py":
                continue
            modules = there.setdefault(room.removesuffix(".py"), set())
            if len(path.parts) == 3 and path.stem != "__init__":
                modules.add(path.stem)
            elif len(path.parts) > 3:
                modules.add(f"{path.parts[2]}/")
        there["testing"] = set()  # its modules are the tests' and the demo's
        drawn = {}
        for line in section(DOCS / "architecture.md", "The map").splitlines():
            if match := re.fullmatch(r"  (\w+)/? +(\S.*)", line):
                listed = match[2].rpartition(": ")[2] if ": " in match[2] and f"{match[1]}/" in line else ""
                drawn[match[1]] = set(listed.split(", ")) if listed else set()
        assert drawn == there

    def test_layers_are_those_of_the_linter(self) -> None:
        text = (ROOT / "pyproject.toml").read_text()
        held = re.findall(
            r'^    "([^"]+)",$', text.partition("\nlayers = [")[2].partition("]")[0], re.MULTILINE
        )
        assert "\n".join(held) in section(DOCS / "architecture.md", "The layers")
        assert len(held) > 8
