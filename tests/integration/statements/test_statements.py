"""Builds and the statements that they leave: where those lie, who signed them, and what they hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MODEL_ID, TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.artifact import pack_engine
from trt_llm_pipeline.artifact.statement import CONFIG_NAME
from trt_llm_pipeline.delivery import beside
from trt_llm_pipeline.errors import EXIT_CODES, DeliveryError, SigningError
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

QUICK_START = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text() + "check: off\n"
TOKEN = "hf_goodtoken"
DIR_HASH = "cut -c3- | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum | cut -f1 -d' '"


Build = Callable[..., tuple[list[str], pipeline.BuildResult]]


@pytest.fixture
def env(tmp_path: Path, hub: HubServer) -> dict[str, str]:
    workspace = str(tmp_path / "ws")
    return {
        "HF_ENDPOINT": hub.url,
        "TRTLLM_DIR": str(TOOLCHAIN),
        "TRT_LLM_WORKSPACE": workspace,
        "PATH": "/usr/bin:/bin",
    }


@pytest.fixture
def build(env: dict[str, str]) -> Build:
    def run(text: str = QUICK_START, **how: Any) -> tuple[list[str], pipeline.BuildResult]:
        settings = Settings.from_env(env | how.pop("env", {}))
        told = Recorder()
        return told.lines, pipeline.build(validate(text, "config.yaml", settings), settings, told, **how)

    return run


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    def make(name: str) -> tuple[Path, Path]:
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        options = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        subprocess.run(["openssl", "genpkey", *options, "-out", private], check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        return private, public

    return make


def statement_of(archive: Path) -> dict[str, Any]:
    envelope = json.loads(beside(archive).read_bytes())
    return dict(json.loads(base64.b64decode(envelope["payload"])))


def verified(archive: Path | str, *options: str | Path) -> tuple[int, dict[str, Any]]:
    """What `trt-llm-pipeline verify --json` says, with its exit code."""
    command = [PROJECT_ROOT / ".venv/bin/trt-llm-pipeline", "verify", archive, *options, "--json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert EXIT_CODES.get(told.get("kind"), 0) == done.returncode
    return done.returncode, told


def dir_hash(folder: Path, find: str) -> str:
    command = f"find {find} | {DIR_HASH}"
    found = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, check=True, text=True)
    return found.stdout.strip()


def dependency(statement: dict[str, Any], name: str) -> dict[str, Any]:
    listed = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    (found,) = [entry for entry in listed if entry["name"] == name]
    return dict(found)


class TestSignatures:
    """Who says so."""

    def test_unsigned_without_a_key_and_said_so(self, build: Build, keys: Any) -> None:
        _, result = build()
        assert result.record["statement"] == {"path": str(beside(result.archive)), "keyid": None}
        code, told = verified(result.newest)
        assert (code, told["verified"], told["signed_by"]) == (0, True, None)
        assert any(check["message"].startswith("unsigned:") for check in told["checks"])
        code, told = verified(result.newest, "--key", keys("any")[1])
        assert (code, told["verified"]) == (5, False)

    def test_signed_by_the_key_that_the_environment_names(self, build: Build, keys: Any) -> None:
        private, public = keys("mine")
        _, result = build(env={"TRT_LLM_SIGNING_KEY": str(private)})
        code, told = verified(result.newest, "--key", public)
        assert (code, told["signed_by"]) == (0, result.record["statement"]["keyid"])
        assert told["content_sha256"] == result.record["archive"]["content_sha256"]
        assert verified(result.newest, "--key", keys("stranger")[1])[0] == 5
        data = bytearray(result.archive.read_bytes())
        data[3000] ^= 1
        result.archive.write_bytes(data)
        code, told = verified(result.archive, "--key", public)
        assert code in (1, 5)  # it depends on the bit whether there still is an archive that can be read

    @pytest.mark.slow
    def test_a_key_made_as_the_document_says(self, build: Build, tmp_path: Path) -> None:
        text = (PROJECT_ROOT / "docs" / "security.md").read_text()
        (commands,) = re.findall(r"```bash\n(openssl [^`]*)```", text)
        subprocess.run(["bash", "-ec", commands], cwd=tmp_path, check=True, capture_output=True)
        _, result = build(env={"TRT_LLM_SIGNING_KEY": str(tmp_path / "signing.pem")})
        assert verified(result.newest, "--key", tmp_path / "signing.pub")[0] == 0

    def test_a_key_that_cannot_be_used_costs_no_download(self, build: Build, tmp_path: Path) -> None:
        with pytest.raises(SigningError, match="TRT_LLM_SIGNING_KEY: cannot read the signing key"):
            build(env={"TRT_LLM_SIGNING_KEY": str(tmp_path / "gone.pem")})
        assert not (tmp_path / "ws").exists()

    def test_a_key_in_the_workspace_is_refused(self, build: Build, keys: Any, tmp_path: Path) -> None:
        (tmp_path / "ws").mkdir()
        private = keys("mine")[0].rename(tmp_path / "ws" / "mine.pem")
        (tmp_path / "link.pem").symlink_to(private)
        for path in (private, tmp_path / "link.pem"):
            with pytest.raises(SigningError, match="lies in the workspace"):
                build(env={"TRT_LLM_SIGNING_KEY": str(path)})

    @pytest.mark.slow
    def test_an_earlier_builds_statement_goes_with_its_archive(self, build: Build, keys: Any) -> None:
        (one, public_one), (two, public_two) = keys("one"), keys("two")
        first = build(env={"TRT_LLM_SIGNING_KEY": str(one)})[1]
        again = build(env={"TRT_LLM_SIGNING_KEY": str(one)})[1]
        assert again.record["answered_from"] == first.build_id
        assert beside(again.archive).read_bytes() == beside(first.archive).read_bytes()
        assert verified(again.newest, "--key", public_one)[0] == 0
        lines, other = build(env={"TRT_LLM_SIGNING_KEY": str(two)})
        assert any("is missing or signed otherwise; packaging again" in line for line in lines)
        assert "answered_from" not in other.record
        assert other.sha256 == first.sha256
        assert verified(other.newest, "--key", public_two)[0] == 0
        assert verified(other.newest, "--key", public_one)[0] == 5
        lines, plain = build()
        assert plain.record["statement"]["keyid"] is None
        assert verified(plain.newest)[0] == 0

    @pytest.mark.slow
    def test_a_build_from_before_there_were_statements(self, build: Build) -> None:
        first = build()[1]
        beside(first.archive).unlink()
        beside(first.newest).unlink()
        code, told = verified(first.newest)
        assert (code, told["verified"]) == (5, False)
        assert "older than statements" in told["checks"][-1]["message"]
        again = build()[1]
        assert "answered_from" not in again.record
        assert verified(again.newest)[0] == 0

    @pytest.mark.slow
    def test_another_archives_statement_is_not_used_again(self, build: Build) -> None:
        first = build()[1]
        other = build(QUICK_START + "compression: none\n")[1]
        beside(first.archive).write_bytes(beside(other.archive).read_bytes())
        again = build()[1]
        assert "answered_from" not in again.record
        assert verified(again.newest)[0] == 0


class TestContent:
    """What is said of a build."""

    @pytest.mark.slow
    def test_what_varies_is_in_the_statement_and_not_in_the_archive(
        self, build: Build, keys: Any, tmp_path: Path
    ) -> None:
        text = QUICK_START + "cache: false\n"
        one = build(text)[1]
        two = build(text, env={"TRT_LLM_SIGNING_KEY": str(keys("k")[0])})[1]
        three = build(text, env={"TRT_LLM_WORKSPACE": str(tmp_path / "elsewhere")})[1]
        assert len({one.sha256, two.sha256, three.sha256}) == 1
        said = [statement_of(result.archive) for result in (one, two, three)]
        for statement, result in zip(said, (one, two, three), strict=True):
            metadata = statement["predicate"]["runDetails"].pop("metadata")
            assert metadata["invocationId"] == result.build_id
            assert metadata["startedOn"] <= metadata["finishedOn"]
        assert said[0] == said[1] == said[2]

    def test_digests_are_what_a_shell_finds(self, build: Build, hub: HubServer) -> None:
        result = build()[1]
        statement = statement_of(result.archive)
        (subject,) = statement["subject"]
        assert subject["name"] == "engine.tar.gz"
        assert subject["digest"]["sha256"] == hashlib.sha256(result.archive.read_bytes()).hexdigest()
        toolchain = dependency(statement, "toolchain")
        sources = "./examples ./bin ./trt_llm_cpu -type f \\( -name '*.py' -o -path './bin/*' \\)"
        assert toolchain["digest"]["dirHash"] == dir_hash(TOOLCHAIN, sources)
        service = dependency(statement, "service")
        own = dir_hash(PROJECT_ROOT, "./trt_llm_pipeline -type f -name '*.py'")
        assert service["digest"]["dirHash"] == own
        model = dependency(statement, "model")
        revision = result.record["manifest"]["revision"]
        assert model["uri"] == f"pkg:huggingface/{MODEL_ID}@{revision}"
        assert model["digest"] == {"gitCommit": revision}
        assert model["downloadLocation"] == f"{hub.url}/{MODEL_ID}"
        folder = result.directory.parent.parent / "models" / MODEL_ID
        files = model["annotations"]["files"]
        weights = hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()
        assert files["pytorch_model.bin"] == f"sha256:{weights}"
        assert set(files) == {path.name for path in folder.iterdir() if path.is_file()}

    @pytest.mark.slow
    def test_a_folder_of_the_users_own_is_told_by_its_content(self, build: Build, hub: HubServer) -> None:
        first = build()[1]
        workspace = first.directory.parent.parent
        (workspace / "models" / MODEL_ID / ".cache").rename(workspace / "gone")
        result = build()[1]
        model = dependency(statement_of(result.archive), "model")
        assert model == {
            "name": "model",
            "digest": {"dirHash": dir_hash(workspace / "models" / MODEL_ID, ". -type f")},
        }
        assert verified(result.newest)[0] == 0

    def test_no_secret_is_in_it(self, build: Build) -> None:
        text = QUICK_START + f"hf_token: {TOKEN}\n"
        result = build(text, env={"HF_TOKEN": TOKEN}, token=TOKEN)[1]
        line = json.loads(beside(result.archive).read_bytes())
        assert TOKEN.encode() not in base64.b64decode(line["payload"])
        assert "hf_token" not in json.dumps(statement_of(result.archive))

    def test_steps_are_not_told_where_the_key_lies(self, env: dict[str, str]) -> None:
        settings = Settings.from_env(env | {"TRT_LLM_SIGNING_KEY": "/keys/signing.pem"})
        assert settings.signing_key == Path("/keys/signing.pem")
        assert "TRT_LLM_SIGNING_KEY" not in settings.env


class TestPlaces:
    """Beside the archive, wherever that is."""

    @pytest.mark.slow
    def test_at_the_workspaces_top_it_is_the_newest_archives(self, build: Build) -> None:
        gzipped = build()[1]
        assert beside(gzipped.newest).samefile(beside(gzipped.archive))
        plain = build(QUICK_START + "compression: none\n")[1]
        top = {path.name for path in plain.newest.parent.iterdir() if path.is_file()}
        assert top == {"engine.tar", "engine.tar.intoto.jsonl"}
        assert verified(plain.newest)[0] == 0

    @pytest.mark.slow
    def test_a_file_of_the_users_own_stays(self, build: Build, tmp_path: Path) -> None:
        (tmp_path / "ws").mkdir()
        mine = tmp_path / "ws" / "engine.tar.gz.intoto.jsonl"
        mine.write_text("mine")
        build()
        result = build(QUICK_START + "cache: false\n")[1]
        assert mine.read_text() == "mine"
        assert verified(result.archive)[0] == 0
        code, told = verified(result.newest)
        assert (code, told["checks"][-1]["name"]) == (5, "statement")

    @pytest.mark.slow
    def test_in_a_folder_of_the_workspace_it_is_replaced_with_its_archive(
        self, build: Build, tmp_path: Path
    ) -> None:
        target = tmp_path / "ws" / "out" / "my.tar.gz"
        for text in (QUICK_START, QUICK_START + "cache: false\n", QUICK_START):
            result = build(text, destination=f"file://{target}")[1]
            assert result.record["statement"]["address"] == f"file://{beside(target)}"
            assert verified(target)[0] == 0
            assert verified(f"file://{target}")[0] == 0
        beside(target).write_text("mine")
        with pytest.raises(DeliveryError, match=r"my.tar.gz.intoto.jsonl is there already"):
            build(destination=f"file://{target}")


VERIFY = """
import sys
from pathlib import Path
from trt_llm_pipeline.cli import app
code = app(["verify", sys.argv[1]], standalone_mode=False)
status = Path("/proc/self/status").read_text()
print(code, next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_a_large_archive_is_not_read_into_memory(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    with (engine / "rank0.engine").open("wb") as file:
        file.truncate(400_000_000)
    (tmp_path / "engine.tar.gz.intoto.jsonl").write_text("{}")
    pack_engine(engine, tmp_path / "engine.tar.gz", extra={CONFIG_NAME: b"a: 1\n"}, manifest={})
    command = [sys.executable, "-c", VERIFY, str(tmp_path / "engine.tar.gz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 files, as its manifest lists them" in done.stdout
    code, kilobytes = done.stdout.split()[-2:]
    assert code == "5"
    assert int(kilobytes) < 150_000


@pytest.mark.slow
def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for place, message, kind in (
        (tmp_path / "gone.tar.gz", "no such file", "config"),
        (tmp_path, "it is a directory; name the file in it", "config"),
        ("ftp://host/a.tar.gz", "cannot read ftp://host/a.tar.gz: ftp:// is not supported", "config"),
    ):
        code, told = verified(place)
        assert (code, told["kind"]) == (EXIT_CODES[kind], kind)
        assert message in told["error"]
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    code, told = verified(tmp_path / "a.tar.gz", "--statement", tmp_path / "gone")
    assert (code, "gone: no such file" in told["error"]) == (2, True)
