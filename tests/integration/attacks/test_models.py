"""Models that bring code: it runs with permission, and without it nothing of them runs or is downloaded."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import INSIDE
from tests.integration.attacks import hostile_models
from tests.integration.house import TOOLCHAIN
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.errors import RepositoryCodeRefused
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder

MODEL_ID = "somebody/evil"
CONFIG = """\
model_id: somebody/evil
example_name: faults
{keys}
build:
  script: loads_like_nvidia.py
  output_dir: ./engine
  args:
    model_dir: ${{model_dir}}
    output_dir: ./engine
"""
WITH_CODE = list(hostile_models.with_code("pass"))
PICKLES = list(hostile_models.pickles("pass"))
#: A few of each kind, in which the code is reached by other means; the rest is the slow half's.
QUICK = {"auto_map of the config", "compiled", "reduce", "build", "memo, plain", "seven bits, older form"}


def each(ways: Iterable[str]) -> list[object]:
    """As values of a parameter."""
    return [pytest.param(way, marks=() if way in QUICK else pytest.mark.slow) for way in ways]


WEIGHTS = ("pytorch_model.bin", "model.safetensors")


@dataclass
class Victim:
    """Somebody's service, and what tells that the attacker's code has run in it."""

    hub: HubServer
    folder: Path

    @property
    def canary(self) -> Path:
        return self.folder / "canary"

    @property
    def deed(self) -> str:
        return hostile_models.statement(self.canary)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def build(self, keys: str = "", **env: str) -> tuple[pipeline.BuildResult, list[str]]:
        settings = Settings.from_env(
            {
                "HF_ENDPOINT": self.hub.url,
                "TRTLLM_DIR": str(TOOLCHAIN),
                "TRT_LLM_SANDBOX": "off",  # what is tried here must hold without it
                **INSIDE,
                **env,
            },
            workspace=self.workspace,
        )
        log = Recorder()
        text = CONFIG.format(keys=keys)
        return pipeline.build(validate(text, "config.yaml", settings), settings, log), log.lines

    def refused(self, keys: str = "", **env: str) -> RepositoryCodeRefused:
        with pytest.raises(RepositoryCodeRefused) as raised:
            self.build(keys, **env)
        assert not self.canary.exists()
        return raised.value

    def asked_for(self) -> list[str]:
        """The files that were downloaded, or asked about one by one."""
        resolved = [request.path for request in self.hub.requests if "/resolve/" in request.path]
        assert not [request for request in self.hub.requests if request.path.startswith("/storage/")] or any(
            path.endswith(WEIGHTS) for path in resolved
        )
        return [path.rpartition("/")[2] for path in resolved]


@pytest.fixture(scope="module")
def one_hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def victim(one_hub: HubServer, tmp_path: Path) -> Victim:
    one_hub.clear_requests()
    return Victim(one_hub, tmp_path)


def code_files(victim: Victim, way: str) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "gpt2"}',
        "tokenizer.json": b"{}",
        "pytorch_model.bin": hostile_models.good_weights(),
        **hostile_models.with_code(victim.deed)[way],
    }


def pickle_files(victim: Victim, way: str, name: str = "pytorch_model.bin") -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "gpt2"}',
        name: hostile_models.pickles(victim.deed)[way],
    }


def tar_of(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"model/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


class TestRepositoryWithCode:
    """Python files, and configs that make transformers import them."""

    @pytest.mark.parametrize("way", each(WITH_CODE))
    def test_code_is_refused_before_the_weights_and_runs_with_permission(
        self, victim: Victim, way: str
    ) -> None:
        files = code_files(victim, way)
        suspects = set(hostile_models.with_code(victim.deed)[way])
        victim.hub.add_repository(MODEL_ID, files)
        error = victim.refused()
        assert not [name for name in victim.asked_for() if name.endswith(WEIGHTS)]
        assert set(error.files) == suspects
        assert all(name in str(error) for name in [*suspects, "`allow_repository_code: true`"])
        assert not (victim.workspace / "models" / "somebody").exists()

        result, log = victim.build("allow_repository_code: true")
        assert victim.canary.read_text() == "here"
        expected = {name: hashlib.sha256(files[name]).hexdigest() for name in suspects}
        code = result.record["manifest"]["repository_code"]
        assert {file["path"]: file["sha256"] for file in code} == expected
        said = next(line for line in log if "allow_repository_code: true" in line)
        page = (result.directory / "report.html").read_text()
        for name, digest in expected.items():
            assert name in said
            assert digest in said
            assert digest in page

    @pytest.mark.parametrize("way", WITH_CODE[::3])
    def test_code_in_a_tar_is_refused(self, victim: Victim, way: str) -> None:
        url = victim.hub.add_file("evil.tar.gz", tar_of(code_files(victim, way)))
        error = victim.refused(f"model_tar_url: {url}")
        assert "`allow_repository_code: true`" in str(error)
        assert not (victim.workspace / "models" / "somebody").exists()

    @pytest.mark.parametrize("way", WITH_CODE[2::4])
    def test_code_in_a_folder_of_the_users_is_refused(self, victim: Victim, way: str) -> None:
        for name, content in code_files(victim, way).items():
            place = victim.workspace / "models" / MODEL_ID / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        error = victim.refused()
        assert set(error.files) == set(hostile_models.with_code(victim.deed)[way])
        victim.build("allow_repository_code: true")
        assert victim.canary.exists()


class TestPickledWeights:
    """Weights that are programs, whatever they look like."""

    @pytest.mark.parametrize("way", each(PICKLES))
    def test_pickle_reaches_no_step_without_permission_and_runs_with_it(
        self, victim: Victim, way: str
    ) -> None:
        """That it runs with permission shows that the attack is one."""
        files = pickle_files(victim, way)
        victim.hub.add_repository(MODEL_ID, files)
        error = victim.refused()
        assert error.files == ("pytorch_model.bin",)
        assert "pytorch_model.bin" in str(error)
        assert "`allow_repository_code: true`" in str(error)

        result, log = victim.build("allow_repository_code: true")
        assert victim.canary.exists(), "\n".join(log)
        (code,) = result.record["manifest"]["repository_code"]
        assert code["sha256"] == hashlib.sha256(files["pytorch_model.bin"]).hexdigest()

    @pytest.mark.parametrize("way", ["reduce", "seven bits", "a tar that is also pickles"])
    def test_pickle_in_a_tar_is_refused(self, victim: Victim, way: str) -> None:
        url = victim.hub.add_file("evil.tar.gz", tar_of(pickle_files(victim, way)))
        victim.refused(f"model_tar_url: {url}")
        assert not (victim.workspace / "models" / "somebody").exists()


class TestOtherNames:
    """An index says which files are weights, so names say nothing."""

    @pytest.mark.parametrize("name", ["notes.txt", "weights", "model.safetensors", "vocab.json"])
    def test_pickle_by_another_name_is_refused(self, victim: Victim, name: str) -> None:
        files = pickle_files(victim, "seven bits", name)
        files["pytorch_model.bin"] = hostile_models.good_weights()
        files["pytorch_model.bin.index.json"] = json.dumps({"weight_map": {"a": name}}).encode()
        victim.hub.add_repository(MODEL_ID, files)
        assert victim.refused("weight_format: bin" if name != "model.safetensors" else "").files == (name,)

    def test_index_that_leads_out_is_refused(self, victim: Victim) -> None:
        files = {
            "config.json": b"{}",
            "pytorch_model.bin": hostile_models.good_weights(),
            "pytorch_model.bin.index.json": b'{"weight_map": {"a": "../../other/model/pytorch_model.bin"}}',
        }
        victim.hub.add_repository(MODEL_ID, files)
        assert victim.refused().files == ("pytorch_model.bin.index.json",)


class TestWhoDecides:
    """The config asks; the operator has the last word."""

    @pytest.fixture
    def evil(self, victim: Victim) -> Victim:
        victim.hub.add_repository(MODEL_ID, code_files(victim, "auto_map of the config"))
        return victim

    def test_service_refuses_what_a_config_allows(self, evil: Victim) -> None:
        error = evil.refused("allow_repository_code: true", TRT_LLM_REPOSITORY_CODE="refuse")
        assert "TRT_LLM_REPOSITORY_CODE=refuse" in str(error)
        assert "allow_repository_code: true" not in str(error)

    def test_service_allows_what_no_config_does(self, evil: Victim) -> None:
        _, log = evil.build(TRT_LLM_REPOSITORY_CODE="allow")
        assert evil.canary.exists()
        assert any("allowed by TRT_LLM_REPOSITORY_CODE=allow" in line for line in log)

    def test_code_that_one_config_has_allowed_is_refused_to_the_next(self, evil: Victim) -> None:
        """Though the model is on the disk, complete, and the build's results are in the cache."""
        evil.build("allow_repository_code: true")
        evil.canary.unlink()
        evil.refused()
        evil.refused(f"revision: {evil.hub.repository(MODEL_ID).branches['main']}")
        evil.refused(HF_HUB_OFFLINE="1")

    def test_permission_for_a_model_without_code_says_nothing(self, victim: Victim) -> None:
        victim.hub.add_repository(
            MODEL_ID, {"config.json": b"{}", "pytorch_model.bin": hostile_models.good_weights()}
        )
        result, log = victim.build("allow_repository_code: true")
        assert "repository_code" not in result.record["manifest"]
        assert not [line for line in log if "allowed" in line]

    def test_clean_model_whose_repository_turns_hostile_is_kept(self, victim: Victim) -> None:
        clean = {"config.json": b"{}", "pytorch_model.bin": hostile_models.good_weights()}
        victim.hub.add_repository(MODEL_ID, clean)
        victim.build()
        victim.hub.add_repository(MODEL_ID, code_files(victim, "auto_map of the config"))
        victim.refused()
        folder = victim.workspace / "models" / MODEL_ID
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == clean
        shutil.rmtree(folder)
