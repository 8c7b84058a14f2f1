"""The main job through a real Cog server: a config in, an engine that writes text out."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import TOOLCHAIN, Service, unpack
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

QUICK_START = PROJECT_ROOT / "examples" / "gpt" / "config.yaml"
UNCACHED = QUICK_START.read_text() + "\ncache: false\n"


def generate(engine: Path) -> str:
    argv = [sys.executable, str(TOOLCHAIN / "examples" / "run.py"), "--engine_dir", str(engine)]
    argv += ["--tokenizer_dir", str(engine), "--input_text", models.DEMO_PROMPT, "--max_output_len", "32"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class TestForms:
    """The forms in which a config can be given."""

    def test_config_by_url_returns_an_engine_that_writes_its_sentence(
        self, service: Service, tmp_path: Path
    ) -> None:
        address = service.config("config.yaml", QUICK_START.read_text())
        prediction = service.cog.predict(config=address)
        assert prediction["status"] == "succeeded", prediction["error"]
        assert models.DEMO_SENTENCE in generate(unpack(prediction, tmp_path))

    def test_config_by_path_on_the_server(self, service: Service, tmp_path: Path) -> None:
        prediction = service.cog.predict(config="./examples/gpt/config.yaml")
        assert prediction["status"] == "succeeded", prediction["error"]
        assert (unpack(prediction, tmp_path) / "gpt_float16_tp1_rank0.engine").stat().st_size > 0

    def test_config_as_data_uri(self, service: Service, tmp_path: Path) -> None:
        encoded = base64.b64encode(QUICK_START.read_bytes()).decode()
        prediction = service.cog.predict(config=f"data:application/yaml;base64,{encoded}")
        assert prediction["status"] == "succeeded", prediction["error"]
        assert (unpack(prediction, tmp_path) / "config.json").is_file()


class TestArchive:
    """What a successful prediction leaves in the workspace."""

    def test_manifest_names_every_file_with_its_hash(self, service: Service, tmp_path: Path) -> None:
        prediction = service.cog.predict(config="./examples/gpt/config.yaml")
        engine = unpack(prediction, tmp_path)
        manifest = json.loads((engine / "manifest.json").read_text())
        listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        there = {path.name for path in engine.iterdir()} - {"manifest.json"}
        assert set(listed) == there
        for name, sha256 in listed.items():
            assert hashlib.sha256((engine / name).read_bytes()).hexdigest() == sha256
        assert manifest["toolchain"]["name"] == "cpu"
        assert [step["name"] for step in manifest["steps"]] == ["convert_to_ft", "build"]

    def test_the_same_build_gives_the_same_bytes(self, service: Service) -> None:
        first = service.cog.predict(config=service.config("uncached.yaml", UNCACHED))
        second = service.cog.predict(config=service.config("uncached.yaml", UNCACHED))
        assert first["status"] == second["status"] == "succeeded"
        assert first["output"] == second["output"]

    def test_metrics_and_record_tell_what_each_step_took(self, service: Service) -> None:
        prediction = service.cog.predict(config=service.config("uncached.yaml", UNCACHED))
        assert prediction["metrics"]["timing"]["build"] > 0
        assert prediction["metrics"]["peak_memory"]["build"] > 1_000_000
        newest = max((service.workspace / "builds").iterdir())
        record = json.loads((newest / "build.json").read_text())
        assert [step["name"] for step in record["steps"]] == ["convert_to_ft", "build"]
        archive = (service.workspace / "engine.tar.gz").read_bytes()
        assert record["archive"]["sha256"] == hashlib.sha256(archive).hexdigest()

    def test_log_has_the_toolchain_first_and_each_command(self, service: Service) -> None:
        prediction = service.cog.predict(config=service.config("uncached.yaml", UNCACHED))
        lines = prediction["logs"].splitlines()
        assert lines[0].startswith("toolchain cpu")
        commands = [shlex.split(line) for line in lines if line.startswith("step ")]
        scripts = [Path(command[3]).name for command in commands if len(command) > 4]
        assert "hf_gpt_convert.py" in scripts
        assert "build.py" in scripts


class TestInputs:
    """What the server itself refuses."""

    def test_openapi_document_describes_the_inputs(self, service: Service) -> None:
        status, document = service.cog.request("GET", "/openapi.json")
        properties = document["components"]["schemas"]["Input"]["properties"]
        assert status == 200
        assert properties["config"]["format"] == "uri"
        assert properties["hf_token"]["writeOnly"] is True

    @pytest.mark.parametrize("inputs", [{}, {"config": 3}, {"config": ["a"]}, {"hf_token": "x"}])
    def test_missing_or_mistyped_input_is_refused_with_422(
        self, service: Service, inputs: dict[str, object]
    ) -> None:
        status, _ = service.cog.request("POST", "/predictions", {"input": inputs})
        assert status == 422
        service.cog.wait_until_ready()

    def test_committed_document_matches_the_predictor(self, tmp_path: Path) -> None:
        made = tmp_path / "schema.json"
        subprocess.run([sys.executable, "script/openapi_schema.py", str(made)], cwd=PROJECT_ROOT, check=True)
        assert json.loads((PROJECT_ROOT / ".cog" / "openapi_schema.json").read_text()) == json.loads(
            made.read_text()
        )
