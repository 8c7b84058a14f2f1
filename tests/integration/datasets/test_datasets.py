"""Datasets that a config names: downloaded like a model, shown to the steps, named in the statement."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.integration.house import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.config import examine
from trt_llm_pipeline.delivery import beside
from trt_llm_pipeline.errors import ConfigError, ModelAccessDenied, ModelNotFound, RepositoryCodeRefused
from trt_llm_pipeline.inspection.verify import verify
from trt_llm_pipeline.preflight import preview, validate
from trt_llm_pipeline.preflight.fitting import Fitting
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import Fault, HubServer
from trt_llm_pipeline.testing.recorder import Recorder

CNN = "datasets/abisee/cnn_dailymail"
TRAIN = os.urandom(300_000).hex().encode()
FILES = {
    ".gitattributes": b"*.parquet filter=lfs",
    "README.md": b"what it is",
    "data/train.parquet": TRAIN,
    "data/weights.safetensors": b"no weights are left out of a dataset",
    "data/weights.bin": b"of any kind",
}
CONFIG = """\
model_id: owner/model
example_name: faults
datasets:
  cnn: {{id: abisee/cnn_dailymail{revision}}}
build:
  script: reads_dataset.py
  output_dir: ./engine
  args:
    dataset: ${{datasets.cnn}}
    named: cnn
    output_dir: ./engine
"""


@dataclass
class Caller:
    """Builds with a dataset."""

    hub: HubServer
    workspace: Path

    @property
    def folder(self) -> Path:
        return self.workspace / ".trt-llm-pipeline" / "datasets" / "abisee" / "cnn_dailymail"

    def settings(self, **env: str) -> Settings:
        return Settings.from_env(
            {"HF_ENDPOINT": self.hub.url, "TRTLLM_DIR": str(TOOLCHAIN), **env}, self.workspace
        )

    def build(
        self, text: str = CONFIG, revision: str = "", keys: str = "", token: str | None = None, **env: str
    ) -> tuple[pipeline.BuildResult, list[str]]:
        settings, told = self.settings(**env), Recorder()
        text = text.format(revision=f", revision: {revision}" if revision else "") + keys
        return pipeline.build(validate(text, "c.yaml", settings), settings, told, token=token), told.lines

    def downloaded(self) -> set[str]:
        """The files of the dataset that were asked for since the log was cleared."""
        marker = f"/{CNN}/resolve/"
        paths = [request.path for request in self.hub.requests if request.method == "GET"]
        return {path.partition(marker)[2].partition("/")[2] for path in paths if marker in path}


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    with HubServer(tokens=["hf_granted", "hf_stranger"]) as hub:
        hub.add_repository("owner/model", {"config.json": b"{}", "model.safetensors": b"weights"})
        hub.add_repository(CNN, FILES)
        yield Caller(hub, tmp_path / "workspace")


def ran(lines: list[str]) -> bool:
    return any("read: " in line for line in lines)


def test_it_is_downloaded_whole_shown_read_only_and_recorded(caller: Caller) -> None:
    result, lines = caller.build()
    commit = caller.hub.repository(CNN).branches["main"]
    there = {
        str(path.relative_to(caller.folder)): path.read_bytes()
        for path in caller.folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
    assert there == {name: content for name, content in FILES.items() if name != ".gitattributes"}
    assert sum("read: " + TRAIN.decode()[:50] in line for line in lines) == 2
    assert not [line for line in lines if "changed: " in line]
    assert sum("refused: " in line for line in lines) == 3
    assert not (caller.workspace / "cnn").exists()  # the name is the step's alone
    manifest = result.record["manifest"]
    assert manifest["datasets"] == {"cnn": {"id": "abisee/cnn_dailymail", "revision": commit}}
    (step,) = manifest["steps"]
    assert "/src/.trt-llm-pipeline/datasets/abisee/cnn_dailymail" in step["argv"]


def test_the_statement_names_it_with_its_digests_and_verify_compares_them(caller: Caller) -> None:
    result, _ = caller.build()
    commit = caller.hub.repository(CNN).branches["main"]
    envelope = json.loads(beside(result.archive).read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    listed = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    (found,) = [entry for entry in listed if entry["name"] == "dataset cnn"]
    assert found["uri"] == f"pkg:huggingface/datasets/abisee/cnn_dailymail@{commit}"
    assert found["digest"] == {"gitCommit": commit}
    assert found["downloadLocation"] == f"{caller.hub.url}/{CNN}"
    assert set(found["annotations"]["files"]) == set(FILES) - {".gitattributes"}
    archive = result.archive.read_bytes()

    def holds() -> bool:
        text = json.dumps({**envelope, "payload": base64.b64encode(json.dumps(said).encode()).decode()})
        return verify(io.BytesIO(archive), text.encode(), label="a").holds

    assert holds()
    found["digest"]["gitCommit"] = "0" * 40
    assert not holds()
    listed.remove(found)
    assert not holds()


def test_what_is_there_is_not_downloaded_again_and_what_is_half_there_is_resumed(caller: Caller) -> None:
    settings = caller.settings()
    text = CONFIG.format(revision="")
    shown = preview.preview(validate(text, "c.yaml", settings), settings)
    assert shown.as_json()["datasets"]["cnn"]["missing_bytes"] == sum(map(len, FILES.values())) - len(
        FILES[".gitattributes"]
    )
    assert "dataset cnn: abisee/cnn_dailymail at " in shown.as_text()
    assert not caller.folder.exists()
    caller.build()
    caller.hub.clear_requests()
    caller.build()
    assert caller.downloaded() == set()
    (caller.folder / "data" / "train.parquet").unlink()
    caller.hub.faults.add(Fault("corrupt", "*/train.parquet"))
    caller.build()
    assert caller.downloaded() == {"data/train.parquet"}
    assert (caller.folder / "data" / "train.parquet").read_bytes() == TRAIN
    shown = preview.preview(validate(text, "c.yaml", settings), settings)
    assert shown.as_json()["datasets"]["cnn"]["missing_bytes"] == 0
    assert [step.cached for step in shown.steps] == [True]
    assert re.search(r"free, about [^:]+ needed: [\d.]+ \w+ for the archive$", shown.as_text(), re.MULTILINE)


@pytest.mark.slow
def test_another_commit_of_it_runs_the_steps_again_and_a_pinned_one_does_not(caller: Caller) -> None:
    first = caller.hub.repository(CNN).branches["main"]
    assert ran(caller.build()[1])
    assert not ran(caller.build()[1])
    caller.hub.add_repository(CNN, {**FILES, "data/train.parquet": b"other"})
    result, lines = caller.build()
    assert any("read: other" in line for line in lines)
    assert any("runs, because a dataset changed since its results were cached" in line for line in lines)
    result, lines = caller.build(revision=first)
    assert result.record["manifest"]["datasets"]["cnn"]["revision"] == first
    assert (caller.folder / "data" / "train.parquet").read_bytes() == TRAIN


def test_code_in_it_is_refused_like_a_models(caller: Caller) -> None:
    caller.hub.add_repository(CNN, {**FILES, "cnn_dailymail.py": b"print('loading')"})
    settings = caller.settings()
    with pytest.raises(RepositoryCodeRefused, match="abisee/cnn_dailymail comes with code") as refused:
        caller.build()
    assert refused.value.files == ("cnn_dailymail.py",)
    assert "data/train.parquet" not in caller.downloaded()
    for ask in (preview.preview, partial(preview.look_for_code, fitted=Fitting(None))):
        with pytest.raises(RepositoryCodeRefused):
            ask(validate(CONFIG.format(revision=""), "c.yaml", settings), settings)
    result, lines = caller.build(keys="allow_repository_code: true\n")
    (code,) = result.record["manifest"]["repository_code"]
    assert (code["path"], code["dataset"]) == ("cnn_dailymail.py", "cnn")
    assert any("cnn_dailymail.py" in line and "is allowed by" in line for line in lines)


@pytest.mark.slow
def test_a_gated_one_is_given_to_whom_the_hub_gives_it(caller: Caller) -> None:
    caller.hub.add_repository(CNN, FILES, gated=True, granted=["hf_granted"])
    commit = caller.hub.repository(CNN).branches["main"]
    with pytest.raises(ModelAccessDenied, match=f"{caller.hub.url}/{CNN}"):
        caller.build()
    caller.build(token="hf_granted")
    for revision, token in (("", "hf_stranger"), (commit, None)):
        with pytest.raises(ModelAccessDenied):
            caller.build(revision=revision, token=token)


def test_one_that_there_is_not(caller: Caller) -> None:
    where = r"c\.yaml:\d+: datasets\.cnn\.id: "
    with pytest.raises(ModelNotFound, match=f"{where}.* has no dataset abisee/nothing: check its id"):
        caller.build(CONFIG.replace("abisee/cnn_dailymail", "abisee/nothing"))


def test_it_may_be_called_as_a_script_asks_for_it(caller: Caller) -> None:
    text = CONFIG.replace("  cnn:", "  ccdv/cnn_dailymail:").replace(
        "datasets.cnn", "datasets.ccdv/cnn_dailymail"
    )
    _, lines = caller.build(text.replace("named: cnn", "named: ccdv/cnn_dailymail"))
    assert sum("read: " in line for line in lines) == 2
    assert not (caller.workspace / "ccdv").exists()


def test_a_file_of_the_users_keeps_its_name(caller: Caller) -> None:
    (caller.workspace / "cnn" / "data").mkdir(parents=True)
    (caller.workspace / "cnn" / "data" / "train.parquet").write_text("mine")
    _, lines = caller.build()
    assert any("read: mine" in line for line in lines)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ("datasets: abisee/cnn_dailymail", "must be a mapping of names to datasets"),
        ("datasets: {cnn: abisee/cnn_dailymail}", "datasets.cnn: must be a mapping with id and revision"),
        ("datasets: {cnn: {}}", "datasets.cnn.id: is missing; name the dataset as on the Hub"),
        ("datasets: {cnn: }", "datasets.cnn: must be a mapping with id and revision"),
        ("datasets: {cnn: {id: ../x}}", "datasets.cnn.id: '../x' is not a valid"),
        ("datasets: {cnn: {id: a/b, revison: x}}", "is not a known key; did you mean revision?"),
        ("datasets: {../x: {id: a/b}}", "'../x' is no name for a dataset"),
        ("datasets: {a/b/c: {id: a/b}}", "'a/b/c' is no name for a dataset"),
        ("datasets: {a: {id: a/b}, c: {id: a/b}}", "a and c are the same dataset a/b"),
    ],
)
def test_mistakes_are_named(datasets: str, message: str) -> None:
    text = CONFIG.format(revision="").replace("datasets:\n  cnn: {id: abisee/cnn_dailymail}", datasets)
    (mistake,) = examine(text, "c.yaml").mistakes
    assert message in mistake.render("c.yaml")
    assert mistake.line == 3


def test_one_that_is_not_in_the_config_is_an_unknown_reference(caller: Caller) -> None:
    text = CONFIG.format(revision="").replace("  cnn:", "  other:")
    with pytest.raises(
        ConfigError, match=r"the reference \$\{datasets.cnn\} is unknown; known: .*datasets.other"
    ) as caught:
        validate(text, "c.yaml", caller.settings())
    assert "c.yaml:9" in str(caught.value)


def test_another_builds_dataset_cannot_be_named(caller: Caller) -> None:
    caller.build()
    text = CONFIG.format(revision="").replace("datasets:\n  cnn: {id: abisee/cnn_dailymail}\n", "")
    text = text.replace("${datasets.cnn}", "/src/.trt-llm-pipeline/datasets/abisee/cnn_dailymail")
    with pytest.raises(ConfigError, match="where the service keeps its records"):
        validate(text, "c.yaml", caller.settings())
