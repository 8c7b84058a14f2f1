"""Each kind of failure has its exit code, and `--json` and `build.json` name the kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.conftest import ROOT
from tests.integration.documents.test_documents import rows, section
from tests.integration.house import House
from trt_llm_pipeline.cli.edge import failures
from trt_llm_pipeline.errors import EXIT_CODES
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.workspace import Workspace

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")


@pytest.fixture
def own(hub: HubServer, tmp_path: Path) -> House:
    """A workspace and configs of the test's own, with the scripts of the toolchain of faults."""
    return House(hub, tmp_path)


def run(house: House, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=house.folder,
        env={**os.environ, **house.env, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str], kind: str, name: str) -> dict[str, Any]:
    """What `--json` says of a failure; asserts that the exit code says the same."""
    answer = dict(json.loads(done.stdout))
    assert (answer["kind"], answer["type"]) == (kind, name), done.stdout + done.stderr
    assert done.returncode == EXIT_CODES[kind], done.stderr  # type: ignore[index]
    return answer


def record(house: House) -> dict[str, Any]:
    """`build.json` of the only build."""
    (path,) = house.workspace.glob("builds/*/build.json")
    return dict(json.loads(path.read_text()))


def test_the_document_has_every_kind_with_its_code() -> None:
    table = rows(section(ROOT / "docs" / "operating.md", "Exit codes"))
    assert {kind.strip("`"): int(code) for code, kind, _ in table if kind} == EXIT_CODES
    assert len(EXIT_CODES) == len(set(EXIT_CODES.values()))


def test_config(own: House) -> None:
    done = run(own, "validate", own.text("model_id: a\n"), "--json")
    assert told(done, "config", "ConfigError")["mistakes"]
    assert run(own, "validate", "--no-such-option").returncode == EXIT_CODES["config"]


def test_model_source(own: House) -> None:
    config = Path(own.config())
    config.write_text(config.read_text().replace("sshleifer/tiny-gpt2", "nobody/nothing"))
    told(run(own, "build", str(config), "--json"), "model_source", "NoSuchModel")


def test_step(own: House) -> None:
    done = run(own, "build", own.config("dies.py", "code: 7"), "--json")
    assert told(done, "step", "StepFailed")["exit_code"] == 7
    written = record(own)
    assert (written["kind"], written["type"]) == ("step", "StepFailed")
    assert "exited with code 7" in written["error"]
    assert written["manifest"]["model_id"]
    # It is the record of a failure: nothing is answered with it.
    assert run(own, "build", own.config(check="off")).returncode == 0


@pytest.mark.slow
def test_check(own: House) -> None:
    done = run(own, "build", own.config(check="required"), "--json")
    assert told(done, "check", "CheckFailed")["check"]["status"]
    assert record(own)["kind"] == "check"


def test_an_archive_that_cannot_be_served(own: House, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "engine.tar.gz", "w:gz") as tar:
        tar.add(own.text("text"), "notes.txt")
    done = run(own, "inspect", str(tmp_path / "engine.tar.gz"), "--json")
    assert json.loads(done.stdout)["ready"] is False
    assert done.returncode == EXIT_CODES["check"]


@pytest.mark.slow
def test_what_a_command_is_given_beside_the_config(own: House) -> None:
    for arguments, name in (
        (["build", own.config(), "--output", "/no/such/engine.tar.gz"], "BadArgument"),
        (["build", own.config(), "--destination", "file:///elsewhere/x.tar.gz"], "BadDestination"),
        (["build", own.config(), "--destination", "ftp://host/x.tar.gz"], "BadDestination"),
        (["build", own.config(), "--destination", "nonsense"], "BadDestination"),
        (["verify", "nothing.tar.gz"], "ArchiveMissing"),
        (["inspect", "nothing.tar.gz"], "ArchiveMissing"),
        (["try", "nothing.tar.gz", "Hello"], "ArchiveMissing"),
        (["verify", own.text("no archive"), "--key", "nothing.pem"], "BadArgument"),
        (["verify", own.text("no archive"), "--key", own.text("no key")], "BadArgument"),
        (["verify", own.text("no archive"), "--statement", "nothing.jsonl"], "ArchiveMissing"),
        (["submit", own.config(), "--to", "localhost:5000"], "BadArgument"),
    ):
        told(run(own, *arguments, "--json"), "config", name)


@pytest.mark.slow
def test_an_address_that_gives_no_archive(own: House) -> None:
    for command in ("verify", "inspect"):
        done = run(own, command, "http://127.0.0.1:9/engine.tar.gz", "--json")
        error = told(done, "delivery", "ArchiveUnreachable")["error"]
        assert "http://127.0.0.1:9/engine.tar.gz" in error
        assert "connection refused" in error
        assert "check the address" in error


@pytest.mark.slow
def test_what_is_no_archive(own: House) -> None:
    path = own.text("no archive at all")
    for arguments in (["verify", path], ["inspect", path], ["try", path, "Hello"]):
        error = told(run(own, *arguments, "--json"), "check", "ArchiveDamaged")["error"]
        assert "is no tar or tar.gz archive" in error


@pytest.mark.slow
def test_memory(own: House) -> None:
    script = own.folder / "toolchain" / "examples" / "small" / "small.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--output_dir')\n"
        "parser.parse_args()\nbytearray(1 << 60)\n"
    )
    config = own.text(
        "model_id: sshleifer/tiny-gpt2\nexample_name: small\nbuild:\n  script: small.py\n"
        "  output_dir: ./engine\n  args:\n    output_dir: ./engine\n"
    )
    done = run(own, "build", config, "--json", TRTLLM_DIR=str(script.parents[2]))
    assert "MemoryError" in told(done, "resources", "StepOutOfMemory")["tail"][-1]
    assert record(own)["kind"] == "resources"


@pytest.mark.slow
def test_delivery(own: House) -> None:
    options = ["--destination", "http://127.0.0.1:9/engine.tar.gz", "--json"]
    done = run(own, "build", own.config(check="off"), *options)
    assert "does not answer: Connection refused" in told(done, "delivery", "DeliveryError")["error"]
    assert "step build" not in done.stderr  # it is asked before the first step


def test_busy(own: House) -> None:
    place = Workspace.at(own.workspace)
    place.prepare()
    with place.lock("a test"):
        told(run(own, "build", own.config(), "--json"), "busy", "WorkspaceBusy")


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, failures(True):
        raise KeyboardInterrupt
    assert ended.value.exit_code == EXIT_CODES["interrupted"]
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["type"]) == ("interrupted", "KeyboardInterrupt")


def test_whoever_reads_the_output_may_have_had_enough(own: House) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [COMMAND, "cache", "--json", "--workspace", str(own.workspace)]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_internal(own: House) -> None:
    done = run(own, "build", own.config(), "--json", TRTLLM_DIR=str(own.folder / "nowhere"))
    told(done, "internal", "ToolchainError")
