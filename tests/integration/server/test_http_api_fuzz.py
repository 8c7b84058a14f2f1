"""Input that nobody would write: to the config's reader by the thousand, to the HTTP API by the hundred."""

from __future__ import annotations

import base64
import json
import socket
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.house import TOOLCHAIN, House, wait_for
from trt_llm_pipeline import toolchain
from trt_llm_pipeline.config import Loaded, examine
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.plan import Plan, PlannedStep, make_plan
from trt_llm_pipeline.testing.servers import PROJECT_ROOT, CogServer
from trt_llm_pipeline.workspace import SERVICE_FOLDERS, Workspace

QUICK_START = """
model_id: owner/name
example_name: faults
revision: main
convert_to_ft:
  script: behaves.py
  output_dir: ./checkpoint
  args:
    in-file: ${model_dir}
    output_dir: ${convert_to_ft.output_dir}
build:
  script: behaves.py
  timeout: 90m
  output_dir: /src/engine
  args:
    model_dir: ${convert_to_ft.output_dir}
    output_dir: ${build.output_dir}
    remove_input_padding:
    sizes: [1, 2, 0.50]
"""
TOOLS = toolchain.find({"TRTLLM_DIR": str(TOOLCHAIN)})

#: Pieces that mean something somewhere: in YAML, in a path, in a shell, in a reference.
PIECES = st.sampled_from(
    (
        *("..", "/", "~", "/src", "${", "}", "$${", "${model_dir}", "${build.output_dir}", "${build.args.a}"),
        *("-", "--", "-c", ";", "|", "*", "&a", "*a", "<<", "!!", "'", '"', "\\", "%", "#", ": ", "{}", "[]"),
        *("null", "true", "0", "1e3", "\0", "\u2028", "\ufeff", "\U0001f600", "\x1b[31m", "é" * 300),
        *(
            "models",
            "builds",
            ".trt-llm-pipeline",
            "faults",
            "behaves.py",
            "engine",
            "python",
            "trtllm-build",
        ),
    )
)
WORDS = st.lists(PIECES | st.text(string.printable, max_size=4), max_size=5).map("".join)
SCALARS = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.sampled_from(["a", "output_dir", "-b"]) | WORDS
STEPS = st.fixed_dictionaries(
    {},
    optional={
        "script": st.just("behaves.py") | VALUES,
        "executable": st.sampled_from(["python", "trtllm-build"]) | VALUES,
        "output_dir": st.just("./engine") | VALUES,
        "args": st.dictionaries(st.sampled_from(["a", "output_dir", "-b"]) | WORDS, VALUES, max_size=4)
        | VALUES,
        "timeout": VALUES,
    },
)
CONFIGS = st.fixed_dictionaries(
    {"model_id": st.just("owner/name") | VALUES, "example_name": st.just("faults") | VALUES, "build": STEPS},
    optional={
        "convert_to_ft": STEPS,
        "quantize": STEPS | VALUES,
        "revision": VALUES,
        "weight_format": VALUES,
        "model_tar_url": VALUES,
        "requires_trt_llm": VALUES,
        "hf_token": VALUES,
    },
)


PATHS = st.lists(PIECES | st.sampled_from(["a", "b"]), min_size=1, max_size=4).map("/".join)
PLAUSIBLE_STEPS = st.fixed_dictionaries(
    {"script": st.just("behaves.py"), "output_dir": PATHS | WORDS},
    optional={"args": st.dictionaries(st.text("ab-_", min_size=1, max_size=3), SCALARS | PATHS, max_size=3)},
)
PLAUSIBLE = st.fixed_dictionaries(
    {"model_id": st.just("owner/name"), "example_name": st.just("faults"), "build": PLAUSIBLE_STEPS},
    optional={"convert_to_ft": PLAUSIBLE_STEPS},
)


def as_yaml(value: object) -> str:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The quick start with a few lines lost, doubled, moved or filled with something else."""
    lines = QUICK_START.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "indent", "cut", "insert"])):
            case "drop" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "indent":
                lines[at] = " " * draw(st.integers(0, 5)) + lines[at].lstrip()
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, 30))]
            case _:
                lines[at] += draw(WORDS)
    return "\n".join(lines) + "\n"


TEXTS = (CONFIGS | PLAUSIBLE).map(as_yaml) | damaged() | WORDS | st.text(max_size=200)


class TestConfigs:
    """The library itself, where a case takes a millisecond."""

    @settings(max_examples=300)
    @given(text=TEXTS)
    def test_any_text_is_planned_safely_or_refused_in_words(self, tmp_path: Path, text: str) -> None:
        self._examine(tmp_path, text)

    @pytest.mark.slow
    @settings(max_examples=3000)
    @given(text=TEXTS)
    def test_thousands_of_texts(self, tmp_path: Path, text: str) -> None:
        self._examine(tmp_path, text)

    def _examine(self, tmp_path: Path, text: str) -> None:
        workspace = Workspace.at(tmp_path / "workspace")
        try:
            loaded = examine(text, "fuzz.yaml")
        except ConfigError as error:
            loaded = Loaded(None, error.mistakes)
        mistakes = list(loaded.mistakes)
        if loaded.config is not None:
            plan, wrong = make_plan(loaded.config, TOOLS, workspace)
            mistakes += wrong
            for step in plan.steps:
                self._check(plan, step, workspace)
        assert mistakes or loaded.config is not None
        if mistakes:
            message = str(ConfigError(mistakes, "fuzz.yaml"))
            assert "fuzz.yaml" in message
            assert "Traceback" not in message
            assert len(message) < 200_000
        assert list(tmp_path.iterdir()) == []

    @staticmethod
    def _check(plan: Plan, step: PlannedStep, workspace: Workspace) -> None:
        """What runs is a script of the toolchain, and what is emptied is a directory of the builds' own."""
        argv = plan.render(step, plan.expected_dirs()).argv
        assert all(isinstance(argument, str) and "\0" not in argument for argument in argv)
        script = Path(step.program[-1])
        assert (
            script.is_relative_to(TOOLCHAIN / "examples") or "trtllm" in script.name or len(step.program) == 3
        )
        if step.output_dir is not None:
            (first, *_) = step.output_dir.relative_to(workspace.root).parts
            assert first not in SERVICE_FOLDERS


@pytest.fixture(scope="module")
def server(house: House) -> Iterator[CogServer]:
    """A server that must still be READY, and must have changed nothing outside its workspace, at the end."""
    before = files_outside(house)
    with house.server() as cog:
        yield cog
        assert wait_for(lambda: cog.health() == "READY", f"READY:\n{cog.output()[-3000:]}")
        prediction = cog.predict(config=house.config())
        assert prediction["status"] == "succeeded", prediction["error"]
        assert "Traceback" not in cog.output()
    assert {k: v for k, v in files_outside(house).items() if "config-" not in k} == before


def files_outside(house: House) -> dict[str, tuple[int, int]]:
    """Size and time of the files that a build could change by mistake."""
    roots = [PROJECT_ROOT / name for name in ("examples", "cpu_toolchain", ".cog")] + [
        TOOLCHAIN,
        house.folder,
    ]
    found = {}
    for path in [path for root in roots for path in root.rglob("*")]:
        if path.is_file() and not path.is_relative_to(house.workspace) and "__pycache__" not in path.parts:
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def check(status: int, answer: dict[str, Any]) -> None:
    """No server error, and no error that only its programmer understands."""
    assert status < 500, answer
    error = str(answer.get("error") or "")
    assert "Traceback" not in error, error
    for foreign in ("TypeError", "KeyError", "AttributeError", "IndexError", "RecursionError", "OSError"):
        assert foreign not in error, error


BODIES = {
    "empty": b"",
    "cut": b"{",
    "list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "no_utf8": b"\xff\xfe",
    "deep": b'{"input": ' + b"[" * 100_000,
    "infinite": b'{"input": 1e999}',
    "long": b'{"input": {"config": "' + b"x" * 3_000_000 + b'"}}',
    "half_a_pair": b'{"input": {"config": "\\ud800"}}',
}


class TestPredictions:
    """Configs and inputs through a real server."""

    @settings(max_examples=20)
    @given(text=TEXTS)
    def test_any_config(self, server: CogServer, text: str) -> None:
        encoded = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
        server.wait_until_ready()
        body = {"input": {"config": f"data:application/yaml;base64,{encoded}"}}
        check(*server.request("POST", "/predictions", body, timeout=60))

    @settings(max_examples=100)
    @given(value=WORDS | VALUES, more=st.just({}) | st.dictionaries(WORDS, VALUES, max_size=2))
    def test_any_input(self, server: CogServer, value: Any, more: dict[str, Any]) -> None:
        server.wait_until_ready()
        check(*server.request("POST", "/predictions", {"input": {"config": value, **more}}, timeout=60))

    @pytest.mark.parametrize("name", BODIES)
    def test_any_body(self, server: CogServer, name: str) -> None:
        data = BODIES[name]
        head = "POST /predictions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += "Content-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b" 4" in answer.split(b"\r\n")[0] or b'"failed"' in answer
        assert b"Traceback" not in answer


class TestSchema:
    """Every operation of the OpenAPI document but the one that ends the server."""

    def test_no_operation_answers_with_a_server_error(self, server: CogServer) -> None:
        document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        tried = 0
        for result in document.exclude(path="/shutdown").get_all_operations():
            operation = result.ok()

            @settings(max_examples=40, database=None)
            @given(case=operation.as_strategy())
            def try_it(case: schemathesis.Case) -> None:
                nonlocal tried
                tried += 1
                if isinstance(case.body, dict):
                    # Cog makes a folder of that name before anybody else sees it: docs/reliability.md.
                    case.body.pop("id", None)
                server.wait_until_ready()
                response = case.call(timeout=60)
                try:
                    answer = json.loads(response.content)
                except ValueError:
                    answer = {}
                check(response.status_code, answer if isinstance(answer, dict) else {})

            try_it()
        assert tried > 50
