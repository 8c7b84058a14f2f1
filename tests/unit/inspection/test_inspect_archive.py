"""Inspecting an archive: what is printed of it, and what a build that is about to be packed is told."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from trt_llm_pipeline.artifact import pack_engine
from trt_llm_pipeline.errors import ArtifactError
from trt_llm_pipeline.inspection import Inspection, inspect
from trt_llm_pipeline.inspection.inspect_archive import facts_of_build
from trt_llm_pipeline.inspection.readiness import readiness
from trt_llm_pipeline.inspection.tokenizer_trial import try_tokenizer

CONFIG = {"version": "0.9.0", "pretrained_config": {"max_position_embeddings": 64}}
EXTRA = {
    "tokenizer_config.json": b'{"tokenizer_class": "LlamaTokenizer"}',
    "tokenizer.model": b"\x00" * 9,
    "generation_config.json": b'{"eos_token_id": 2}',
}
MANIFEST = {
    "schema": 1,
    "model_id": "acme/tiny",
    "revision": "0123",
    "toolchain": {"name": "tensorrt_llm", "version": "0.9.0"},
    "gpus": [{"name": "NVIDIA H100", "compute_capability": "9.0"}],
    "steps": [{"name": "build", "argv": ["trtllm-build", "--workers", "1"]}],
}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    directory = tmp_path / "engine_outputs"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "rank0.engine").write_bytes(b"engine" * 99)
    return directory


@pytest.fixture
def archive(engine: Path, tmp_path: Path) -> Path:
    return pack_engine(engine, tmp_path / "engine.tar.gz", extra=EXTRA, manifest=MANIFEST).path


def statuses(found: Inspection) -> dict[str, str]:
    return {check.name: check.status for check in found.checks}


@pytest.mark.parametrize("check", [3, "passed", {"status": "passed", "answers": [{"text": float("nan")}]}])
def test_a_record_beside_it_that_none_has_written_says_nothing(archive: Path, check: object) -> None:
    beside = {"sha256": inspect(str(archive)).contents.sha256, "name": archive.name}
    (archive.parent / "build.json").write_text(json.dumps({"archive": beside, "check": check}))
    found = inspect(str(archive))
    assert found.talk is None
    assert "what it wrote" not in found.as_text()


def test_a_good_archive_is_ready_and_everything_of_it_is_shown(archive: Path) -> None:
    found = inspect(str(archive), serve_on="sm90", trt_llm="0.9.0", world_size=1)
    assert set(statuses(found).values()) == {"ok"}
    text = found.as_text()
    for said in (
        "acme/tiny",
        "0123",
        "tensorrt_llm 0.9.0",
        "NVIDIA H100, compute capability 9.0",
        "--workers 1",
    ):
        assert said in text, said
    for file in found.contents.files:
        assert file.sha256 in text
        assert file.name in text
    assert found.contents.sha256 in text
    assert text.startswith("ready\n")


def test_a_toolchain_whose_release_is_its_name_is_named_once(engine: Path, tmp_path: Path) -> None:
    manifest = {**MANIFEST, "toolchain": {"name": "cpu", "version": "cpu"}}
    packed = pack_engine(engine, tmp_path / "cpu.tar.gz", extra=EXTRA, manifest=manifest).path
    assert "toolchain  cpu\n" in inspect(str(packed)).as_text()


def test_a_plain_tar_is_said_to_be_one(engine: Path, tmp_path: Path) -> None:
    packed = pack_engine(engine, tmp_path / "e.tar", extra=EXTRA, manifest=MANIFEST, compression="none").path
    assert ", not compressed, sha256 " in inspect(str(packed)).as_text()


def test_json_has_the_same_as_plain_values(archive: Path) -> None:
    found = inspect(str(archive), serve_on="sm86")
    values = json.loads(json.dumps(found.as_json()))
    assert values["ready"] is False
    assert values["manifest"]["model_id"] == "acme/tiny"
    assert [file["name"] for file in values["files"]][-1] == "manifest.json"
    gpu = next(check for check in values["checks"] if check["name"] == "GPU")
    assert gpu["status"] == "problem"
    assert values["sha256"] == found.contents.sha256


def test_an_altered_byte_is_found(archive: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered.tar"
    with tarfile.open(archive) as old, tarfile.open(altered, "w") as new:
        for member in old:
            data = old.extractfile(member).read()  # type: ignore[union-attr]
            altered_data = data.upper() if member.name == "rank0.engine" else data
            new.addfile(member, io.BytesIO(altered_data))
    found = inspect(str(altered))
    assert found.verdict == "not ready"
    assert any("rank0.engine was altered" in check.message for check in found.checks)
    assert statuses(found)["extraction"] == "ok"  # padded as tar does, with zeros


def test_names_cannot_move_a_terminals_cursor(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("\x1b[2J\x1b[31mconfig.json\r\n"), io.BytesIO())
    text = inspect(str(path)).as_text()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\\x1b[2J" in text


def test_what_is_no_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no archive at all")
    with pytest.raises(ArtifactError, match=r"is no tar or tar.gz archive"):
        inspect(str(tmp_path / "x"))


def test_a_build_is_judged_before_it_is_packed_as_it_is_after(engine: Path, archive: Path) -> None:
    before = readiness(facts_of_build(engine, EXTRA, MANIFEST), "sm90", "0.9.0", 1)
    after = inspect(str(archive), serve_on="sm90", trt_llm="0.9.0", world_size=1).checks
    assert before == tuple(check for check in after if check.name not in ("extraction", "checksums"))


def test_an_engines_own_file_wins_over_the_repositorys(engine: Path) -> None:
    (engine / "tokenizer_config.json").write_bytes(b'{"tokenizer_class": "T5Tokenizer"}')
    facts = facts_of_build(engine, EXTRA, MANIFEST)
    assert facts.contents["tokenizer_config.json"] == b'{"tokenizer_class": "T5Tokenizer"}'
    assert facts.files["tokenizer_config.json"] == 34


class TestTrial:
    """Loading the tokenizer by the interpreter that is there."""

    @staticmethod
    def interpreter(folder: Path, body: str) -> str:
        """A program that ignores its arguments and does what `body` says, in place of an interpreter."""
        path = folder / "python"
        path.write_text(f"#!{sys.executable} -I\nimport json, os, sys, time\n{body}\n")
        path.chmod(0o755)
        return str(path)

    @pytest.mark.parametrize(
        ("told", "status", "said"),
        [
            (
                {"version": "4.38.2", "class": "X", "eos": "</s>", "id": 2},
                "ok",
                "transformers 4.38.2 loads it as X",
            ),
            ({"version": "5.0", "class": "X", "eos": None, "id": None}, "problem", "without an eos_token"),
            (
                {"version": "5.0", "error": "ValueError: no\nmore"},
                "problem",
                "cannot load it: ValueError: no;",
            ),
            ({"absent": "No module named 'transformers'"}, "unknown", "set TRTLLM_PYTHON"),
        ],
    )
    def test_what_the_interpreter_tells(
        self, tmp_path: Path, told: dict[str, object], status: str, said: str
    ) -> None:
        python = self.interpreter(tmp_path, f"print('noise'); print({json.dumps(json.dumps(told))})")
        check = try_tokenizer({}, python, {})
        assert check.status == status
        assert said in check.message

    def test_a_number_other_than_cog_tritons_own_is_a_setting(self, tmp_path: Path) -> None:
        told = json.dumps({"version": "5", "class": "X", "eos": "e", "id": 7})
        check = try_tokenizer({}, self.interpreter(tmp_path, f"print({told!r})"), {})
        assert check.settings == {"END_ID": "7", "PAD_ID": "7"}

    @pytest.mark.parametrize("body", ["sys.exit(3)", "os.abort()", "print('[]')"])
    def test_an_interpreter_that_says_nothing_leaves_it_unknown(self, tmp_path: Path, body: str) -> None:
        assert try_tokenizer({}, self.interpreter(tmp_path, body), {}).status == "unknown"

    def test_no_interpreter_leaves_it_unknown(self, tmp_path: Path) -> None:
        assert try_tokenizer({}, str(tmp_path / "absent"), {}).status == "unknown"

    def test_the_process_sees_the_files_and_no_hub(self, tmp_path: Path) -> None:
        body = (
            "seen = {'files': sorted(os.listdir(sys.argv[-1])), 'offline': os.environ['HF_HUB_OFFLINE']}\n"
            "print(json.dumps({'error': json.dumps(seen)}))"
        )
        files = {"config.json": b"{}", "tokenizer.json": b"{}", "../escaped.json": b"{}", "sub/x.json": b"{}"}
        check = try_tokenizer(files, self.interpreter(tmp_path, body), {})
        assert '{"files": ["config.json", "tokenizer.json"], "offline": "1"}' in check.message
        assert not (tmp_path.parent / "escaped.json").exists()
