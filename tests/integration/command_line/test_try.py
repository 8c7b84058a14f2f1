"""`trt-llm-pipeline try`: an archive is unpacked aside and asked through the toolchain's run.py."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import MODEL_ID
from tests.integration.conftest import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.check import trial as trials
from trt_llm_pipeline.check.trial import Trial
from trt_llm_pipeline.check.verdict import Answer
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT


@pytest.fixture(scope="module")
def archive(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick start's engine."""
    place = tmp_path_factory.mktemp("ws")
    env = {"HF_ENDPOINT": hub.url, "TRTLLM_DIR": str(TOOLCHAIN), "PATH": "/usr/bin:/bin"}
    settings = Settings.of_one_owner(env, place)
    text = (PROJECT_ROOT / "examples" / "gpt" / "config.yaml").read_text() + "check: off\n"
    result = pipeline.build(validate(text, "config.yaml", settings), settings, Recorder())
    assert result.archive is not None
    return result.archive


def run(*arguments: str, toolchain: Path = TOOLCHAIN, temporary: Path | None = None) -> Result:
    env = {"TRTLLM_DIR": str(toolchain)}
    return CliRunner().invoke(app, ["try", *arguments], env=env)


def test_it_writes_what_its_model_was_made_to_write(archive: Path, tmp_path: Path) -> None:
    model = models.make_demo_gpt2(tmp_path / MODEL_ID)
    done = run(str(archive), str(model.prompt), "--tokens", "32", "--json")
    assert done.exit_code == 0, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert told["text"].strip() == str(model.sentence).strip()
    assert 1 < told["tokens"] <= 32
    assert told["seconds"] > 0
    plain = run(str(archive), str(model.prompt), "--tokens", "2")
    assert plain.stdout.strip()
    assert "2 tokens in " in plain.stderr


def without(archive: Path, path: Path, name: str, positions: int | None = None) -> str:
    """The archive as a tar without one of its files, and with another length of the model."""
    with tarfile.open(archive) as source, tarfile.open(path, "w") as tar:
        for member in source:
            data = (file := source.extractfile(member)) and file.read()
            if member.name == name or data is None:
                continue
            if member.name == "config.json" and positions is not None:
                config = json.loads(data)
                config["builder_config"]["max_position_embeddings"] = positions
                data = json.dumps(config).encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def test_a_prompt_that_the_engine_would_take_a_part_of_is_refused(archive: Path) -> None:
    done = run(str(archive), "The wind turned to the north. " * 100)
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert "tokens, and the engine takes 200 at most; shorten it" in done.stderr


@pytest.mark.slow
def test_no_more_tokens_than_there_is_room_for_after_the_prompt(archive: Path, tmp_path: Path) -> None:
    small = without(archive, tmp_path / "small.tar", "manifest.json", positions=12)
    done = run(small, "An engine", "--tokens", "1023")
    assert done.exit_code == 0, done.stderr
    assert "; the engine has room for no more after this prompt" in done.stderr
    told = json.loads(run(small, "An engine", "--tokens", "1023", "--json").stdout)
    assert told["tokens"] == told["room"] < 12


def test_an_archive_without_an_engine_says_so(archive: Path, tmp_path: Path) -> None:
    bare = tmp_path / "other.tar.gz"
    with tarfile.open(bare, "w:gz") as tar:
        tar.add(__file__, "notes.txt")
    done = run(str(bare), "x")
    assert (done.exit_code, done.stdout) == (5, "")
    said = "other.tar.gz holds no engine that can be tried: config.json is missing\n"
    assert done.stderr == f"error: {bare.parent / said}"


def test_an_engine_of_another_toolchain_is_not_tried(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "examples" / "gpt").mkdir(parents=True)
    (other / "version.txt").write_text("tensorrt_llm\nfollows: 0.9.0\n")
    done = run(str(archive), "x", toolchain=other)
    assert done.exit_code == 1
    assert "built by the toolchain cpu" in done.stderr


def test_what_leads_out_of_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    for name, kind in (("../escaped", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        path = tmp_path / "bad.tar"
        with tarfile.open(path, "w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        done = run(str(path), "x")
        assert done.exit_code == 5
        assert "bad.tar" in done.stderr
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.tar.gz", "cut.tar.gz is cut off: "),
        ("none.tar.gz", "none.tar.gz is no tar or tar.gz archive"),
        ("sum.tar.gz", "sum.tar.gz is damaged: its content is not what gzip's checksum says"),
        ("altered.tar", "rank0.engine was altered: its SHA-256 is "),
    ],
)
def test_a_damaged_archive_is_not_tried(archive: Path, tmp_path: Path, name: str, words: str) -> None:
    data = archive.read_bytes()
    plain = bytearray(gzip.decompress(data))
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        engine = next(member for member in tar if member.name.endswith(".engine"))
    plain[engine.offset_data + engine.size // 2] ^= 16  # one bit of a weight
    made = {
        "cut.tar.gz": data[:5000],
        "none.tar.gz": b"not one",
        "sum.tar.gz": data[:-8] + bytes(4) + data[-4:],
        "altered.tar": bytes(plain),
    }
    (tmp_path / name).write_bytes(made[name])
    done = run(str(tmp_path / name), "x")
    assert (done.exit_code, done.stdout) == (5, "")
    assert words in done.stderr
    assert done.stderr.endswith("; fetch or build it again\n")


def test_an_empty_prompt_is_refused_before_the_archive_is_read(tmp_path: Path) -> None:
    done = run(str(tmp_path / "missing.tar.gz"), "")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "the prompt is empty" in done.stderr


def test_a_prompt_that_is_no_text_is_refused_in_a_line(tmp_path: Path) -> None:
    done = run(str(tmp_path / "missing.tar.gz"), os.fsdecode(b"x\xff\xfe"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: the prompt is not valid UTF-8 text; give it in UTF-8\n"
    told = json.loads(run(str(tmp_path / "missing.tar.gz"), os.fsdecode(b"\xff"), "--json").stdout)
    assert told["kind"] == "config"


@pytest.mark.slow
def test_an_archive_that_was_packed_again_from_its_folder_is_tried(archive: Path, tmp_path: Path) -> None:
    folder, again = tmp_path / "unpacked", tmp_path / "again.tar.gz"
    with tarfile.open(archive) as source, tarfile.open(again, "w:gz") as tar:
        names = source.getnames()
        source.extractall(folder, filter="data")
        tar.add(folder, "./", recursive=False)
        for name in names:
            tar.add(folder / name, f"./{name}")
    done = run(str(again), "An engine", "--tokens", "2")
    assert (done.exit_code, done.stdout != "") == (0, True), done.stderr
    env = {"TRTLLM_PYTHON": "/bin/false"}
    told = json.loads(CliRunner().invoke(app, ["inspect", str(again), "--json"], env=env).stdout)
    found = {check["name"]: check["status"] for check in told["checks"]}
    assert [found[name] for name in ("layout", "ranks", "tokenizer", "checksums")] == ["ok"] * 4
    assert found["extraction"] == "problem"
    plain = tmp_path / "again.tar"
    plain.write_bytes(gzip.decompress(again.read_bytes()))
    told = json.loads(CliRunner().invoke(app, ["inspect", str(plain), "--json"], env=env).stdout)
    assert {check["name"]: check["status"] for check in told["checks"]}["extraction"] == "ok"


@pytest.mark.parametrize("manifest", ["{}", "no JSON"])
def test_a_manifest_that_says_nothing_is_to_blame(archive: Path, tmp_path: Path, manifest: str) -> None:
    path = tmp_path / "bad.tar"
    without(archive, path, "manifest.json")
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        tar.addfile(member, io.BytesIO(manifest.encode()))
    done = run(str(path), "x")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "bad.tar is not as a build has left it: manifest.json " in done.stderr


@pytest.mark.slow
def test_more_tokens_are_not_asked_for_of_an_engine_that_has_ended(archive: Path, tmp_path: Path) -> None:
    model = models.make_demo_gpt2(tmp_path / MODEL_ID)
    done = run(str(archive), str(model.prompt), "--tokens", "150", "--json")
    told = json.loads(done.stdout)
    assert told["tokens"] < 150
    assert told["ended"] is True
    less = json.loads(run(str(archive), str(model.prompt), "--tokens", "2", "--json").stdout)
    assert (less["tokens"], less["ended"]) == (2, False)


def test_an_archive_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = run(str(tmp_path / "missing.tar.gz"), "x")
    assert (done.exit_code, "missing.tar.gz: no such file" in done.stderr) == (2, True), done.stderr


SHORT = (
    "14 tokens in 0.8 s with loading; that is too short beside the loading to measure a rate: "
    "give more --tokens"
)


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (Trial("x", 32, 2.0, 40.0), "32 tokens in 2.0 s with loading, 40.0 tokens/s after it"),
        (Trial("x", 14, 0.8, None), SHORT),
        (
            Trial("x", 14, 0.8, None, ended=True),
            "14 tokens in 0.8 s with loading; the engine ended its text there, which is too short beside the "
            "loading to measure a rate",
        ),
        (
            Trial("x", 14, 0.8, None, room=14),
            "14 tokens in 0.8 s with loading; the engine has room for no more after this prompt; that is too "
            "short beside the loading to measure a rate",
        ),
        (Trial("x", 1, 0.8, None), "1 token in 0.8 s with loading"),
        (Trial("x", 0, 0.8, None), "0 tokens in 0.8 s with loading"),
        (Trial("x", None, 2.0, None), "text in 2.0 s with loading; run.py does not tell its tokens"),
    ],
)
def test_the_rate_is_said_only_where_it_is_known(trial: Trial, words: str) -> None:
    assert trial.in_words() == words


@pytest.mark.parametrize(
    ("first_s", "all_s", "rate"),
    [(0.5, 1.5, 7.0), (0.5, 0.95, None), (40.0, 49.0, None), (40.0, 54.0, 0.5)],
)
def test_a_rate_is_measured_where_writing_takes_time_beside_loading(
    first_s: float, all_s: float, rate: float | None
) -> None:
    answer = Answer("x", (1,), tuple(range(8)), "text")
    assert trials._trial(answer, first_s, all_s).tokens_per_second == rate
