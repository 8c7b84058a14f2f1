"""trt-llm-pipeline inspect, as a command, on an archive that the pipeline built, as a file and over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.engine.tokenizer_files import tokenizer_files
from trt_llm_pipeline.inspection.tokenizer_trial import try_tokenizer
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT
from trt_llm_pipeline.testing.tiny_text import write_gpt2_tokenizer

COMMAND = Path(sys.executable).parent / "trt-llm-pipeline"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> tuple[pipeline.BuildResult, list[str]]:
    """The quick start's engine, and what its build has said."""
    env = {
        "HF_ENDPOINT": hub.url,
        "TRTLLM_DIR": str(TOOLCHAIN),
        "TRT_LLM_WORKSPACE": str(tmp_path_factory.mktemp("ws")),
        "PATH": "/usr/bin:/bin",
    }
    settings, log = Settings.from_env(env), Recorder()
    text = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text()
    return pipeline.build(validate(text, "config.yaml", settings), settings, log), log.lines


@pytest.fixture
def address(built: tuple[pipeline.BuildResult, list[str]]) -> Iterator[str]:
    """The archive over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(built[0].directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/engine.tar.gz?signature=secret"
        server.shutdown()
        thread.join()


def inspect(*arguments: str, load: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs the command; only with `load` by an interpreter that has transformers, which takes seconds."""
    python = sys.executable if load else str(shutil.which("true"))
    env = {**os.environ, "TRTLLM_PYTHON": python}
    return subprocess.run(
        [COMMAND, "inspect", *arguments], capture_output=True, text=True, timeout=120, env=env
    )


def test_a_cpu_engine_is_for_demonstration_and_the_verdict_is_the_first_line(
    built: tuple[pipeline.BuildResult, list[str]],
) -> None:
    archive = str(built[0].archive)
    plain = inspect(archive)
    assert plain.returncode == 5
    first, second, *_ = plain.stdout.splitlines()
    assert first == "not ready: TensorRT-LLM: demo engine: not for serving"
    assert second == "set for cog-triton: MAX_SEQUENCE_LENGTH=400 END_ID=0 PAD_ID=0"
    assert built[0].sha256 in plain.stdout
    served = inspect(archive, "--serve-on", "sm70", "--trt-llm", "0.9.0", "--json", load=True)
    assert served.returncode == 5
    said = json.loads(served.stdout)
    assert (said["verdict"], said["ready"]) == ("not ready", False)
    checks = {check["name"]: check["status"] for check in said["checks"]}
    problems = {name for name, status in checks.items() if status == "problem"}
    assert problems == {"TensorRT-LLM", "GPU"}
    assert checks["tokenizer loads"] == checks["checksums"] == checks["extraction"] == "ok"


def test_an_archive_is_read_over_http_and_its_signature_is_not_shown(address: str) -> None:
    ran = inspect(address, "--world-size", "2")
    assert ran.returncode == 5
    assert "WORLD_SIZE will be 2" in ran.stdout
    assert f"{address.partition('?')[0]}: " in ran.stdout
    assert "secret" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--serve-on", "hopper"), 2, "--serve-on: 'hopper' is no compute capability; write it like sm90"),
        (("--trt-llm", "newest"), 2, "--trt-llm: 'newest' is no TensorRT-LLM release"),
        (("--world-size", "0"), 2, "greater than or equal to 1"),
    ],
)
def test_options_that_cannot_be_read_are_explained(
    built: tuple[pipeline.BuildResult, list[str]], arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = inspect(str(built[0].archive), *arguments)
    assert ran.returncode == code
    assert said in ran.stderr
    assert ran.stdout == ""


def test_a_file_address_is_read_as_the_file(built: tuple[pipeline.BuildResult, list[str]]) -> None:
    ran = inspect(f"file://{built[0].archive}")
    assert (ran.returncode, "what it wrote when it was checked" in ran.stdout) == (5, True), ran.stderr


def test_an_archive_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ran = inspect(str(tmp_path / "engine.tar"))
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: cannot read")
    assert ran.stderr.count("\n") == 1


def test_the_builds_log_has_the_same_table(built: tuple[pipeline.BuildResult, list[str]]) -> None:
    result, lines = built
    told = [
        line.removeprefix("warning: ")
        for line in lines
        if line.removeprefix("warning: not ready for ").startswith("cog-triton: ")
    ]
    answer = json.loads(inspect(str(result.archive), "--json").stdout)
    assert answer["kind"] == "check"
    printed = answer["checks"]
    assert told == [
        f"not ready for cog-triton: {check['name']}: {check['message']}"
        if check["status"] == "problem"
        else f"cog-triton: {check['status']}: {check['name']}: {check['message']}"
        for check in printed
        if check["name"] not in ("tokenizer loads", "extraction", "checksums")
    ]
    assert len(told) == 7
    names = [line.split(": ")[1 if line.startswith("not ready") else 2] for line in told]
    assert [check["name"] for check in result.record["readiness"]] == names


@pytest.mark.slow
@pytest.mark.parametrize("taken_away", [(), ("vocab.json", "merges.txt"), ("tokenizer.json",)])
def test_transformers_agrees_that_a_packed_tokenizer_loads(
    tmp_path: Path, taken_away: tuple[str, ...]
) -> None:
    write_gpt2_tokenizer(tmp_path, 300, positions=64)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    for name in taken_away:
        (tmp_path / name).unlink()
    files = tokenizer_files(tmp_path).files
    packed = {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in files.items()}
    check = try_tokenizer({**packed, "config.json": b'{"builder_config": {}}'}, sys.executable, {})
    assert (check.status, "'<|endoftext|>' is token" in check.message) == ("ok", True)


@pytest.mark.slow
def test_transformers_agrees_that_a_tokenizer_without_a_class_does_not(tmp_path: Path) -> None:
    write_gpt2_tokenizer(tmp_path, 300, positions=64)
    files = {name: (tmp_path / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    check = try_tokenizer({**files, "config.json": b'{"builder_config": {}}'}, sys.executable, {})
    assert check.status == "problem"
