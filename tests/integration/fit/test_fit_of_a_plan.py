"""Whether an engine fits, told before the model is downloaded: plan, validate and build."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import MODEL_ID
from tests.integration.conftest import TOOLCHAIN
from tests.unit.fit.known import known
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.errors import DoesNotFit
from trt_llm_pipeline.fit import find_gpu
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.preflight.fitting import fitting
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.recorder import Recorder
from trt_llm_pipeline.testing.servers import PROJECT_ROOT, ConfigServer

SEVENTY = "examples/llama/llama-2-70b-chat-fp16-4gpu.yaml"
QUICK_START = "examples/gpt/config.yaml"
LLAMA, HUGE, SMALL = "meta-llama/Llama-2-70b-chat-hf", "huge/llama", "small/llama"
NO_WEIGHTS = b"\2\0\0\0\0\0\0\0{}"


@pytest.fixture(scope="module", autouse=True)
def large_models(hub: HubServer) -> None:
    """Models of which the Hub has no more than a `config.json` and an empty file of weights."""
    seventy = known("Llama 2 70B").config
    models = {
        LLAMA: seventy,
        HUGE: {**seventy, "num_hidden_layers": 80_000},  # more than any machine holds
        SMALL: {**seventy, "num_hidden_layers": 1},
        "strange/mamba": {"model_type": "mamba"},
    }
    for model_id, content in models.items():
        files: dict[str, Path | bytes] = {"config.json": json.dumps(content).encode()}
        hub.add_repository(model_id, {**files, "model.safetensors": NO_WEIGHTS})


@pytest.fixture(scope="module", autouse=True)
def several_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A toolchain whose scripts accept any number of ranks, and no list of models, as NVIDIA's are."""
    root = tmp_path_factory.mktemp("toolchain") / "cpu_toolchain"
    shutil.copytree(TOOLCHAIN, root)
    options = root / "trt_llm_cpu" / "options.py"
    text = options.read_text()
    options.write_text(text.replace("if value != 1:", "if value < 1:"))
    assert options.read_text() != text
    version = root / "version.txt"
    version.write_text(version.read_text().partition("ranks: 1\n")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRTLLM_DIR", str(root))
        yield


def environment(hub: HubServer, workspace: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "TRT_LLM_WORKSPACE": str(workspace),
        **more,
    }


def run(env: dict[str, str], *arguments: str) -> Result:
    """Runs the command in this process, which has imported everything already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT_ROOT)
        return CliRunner().invoke(app, arguments, env=env)


def config(tmp_path: Path, text: str, name: str = "config.yaml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def text_of(model_id: str) -> str:
    """The 70B example's text for another model."""
    return (PROJECT_ROOT / SEVENTY).read_text().replace(LLAMA, model_id)


class TestPlan:
    """`plan --gpu NAME` answers with its sums."""

    @pytest.mark.parametrize(
        ("gpu", "answer", "code"), [("A100-80GB", "yes", 0), ("L40S", "yes", 0), ("L4", "no", 6)]
    )
    def test_of_70b_on_four_gpus(
        self, hub: HubServer, tmp_path: Path, gpu: str, answer: str, code: int
    ) -> None:
        done = run(environment(hub, tmp_path / "ws"), "plan", SEVENTY, "--gpu", gpu)
        assert done.exit_code == code, done.stderr
        (row,) = [line.split("  ") for line in done.stdout.split("\n") if line.startswith(f"  {gpu}  ")]
        assert row[-1] == answer
        assert "34,883,518,464 on the largest of 4 ranks" in done.stdout
        assert "2 x 80 layers x 2 heads x 128 x 2 (float16)" in done.stdout
        assert not (tmp_path / "ws").exists()

    @pytest.mark.parametrize(("gpu", "answer", "code"), [("A100-80GB", "yes", 0), ("L40S", "no", 6)])
    def test_of_70b_on_two_gpus(
        self, hub: HubServer, tmp_path: Path, gpu: str, answer: str, code: int
    ) -> None:
        text = text_of(LLAMA).replace("size: 4", "size: 2")
        done = run(environment(hub, tmp_path / "ws"), "plan", config(tmp_path, text), "--gpu", gpu)
        assert done.exit_code == code, done.stderr
        (row,) = [line.split("  ") for line in done.stdout.split("\n") if line.startswith(f"  {gpu}  ")]
        assert row[-1] == answer
        assert "69,240,111,104 on the largest of 2 ranks" in done.stdout

    def test_as_json_has_every_figure_and_what_would_be_enough(self, hub: HubServer, tmp_path: Path) -> None:
        done = run(environment(hub, tmp_path / "ws"), "plan", SEVENTY, "--gpu", "L4", "--json")
        found = json.loads(done.stdout)["fit"]
        assert (found["parameters"], found["rank_weight_bytes"]) == (68_976_648_192, 34_883_518_464)
        (device,) = found["devices"]
        assert (device["answer"], device["memory_bytes"]) == ("no", find_gpu("L4").memory_bytes)
        assert device["remedies"][0]["change"] == "tensor parallelism 8"

    def test_an_unknown_gpu_is_refused_with_those_that_there_are(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        done = run(environment(hub, tmp_path / "ws"), "plan", SEVENTY, "--gpu", "A1000")
        assert done.exit_code == 2
        assert "A100-80GB" in done.stderr

    def test_on_this_machine_the_machine_is_what_the_cpu_engine_is_loaded_on(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        done = run(environment(hub, tmp_path / "ws"), "plan", QUICK_START)
        assert done.exit_code == 0, done.stderr
        assert "fit of gpt2 with" in done.stdout
        assert "  this machine  " in done.stdout


class TestValidate:
    """An error only for what cannot possibly be."""

    def test_names_the_line_and_what_would_be_enough(self, hub: HubServer, tmp_path: Path) -> None:
        text = text_of(HUGE)
        done = run(environment(hub, tmp_path / "ws"), "validate", config(tmp_path, text))
        assert done.exit_code == 6
        line = 1 + text[: text.index("tp_size: 4")].count("\n")
        expected = "the weights of the largest of 4 ranks alone take 34.2 TB as float16, and this machine has"
        assert f"config.yaml:{line}: build.args.tp_size: {expected}" in done.stderr
        assert "fit: off" in done.stderr

    @pytest.mark.parametrize(("more", "env"), [("fit: off\n", {}), ("", {"TRT_LLM_FIT_CHECK": "off"})])
    def test_is_silent_where_nobody_wants_to_know(
        self, hub: HubServer, tmp_path: Path, more: str, env: dict[str, str]
    ) -> None:
        written = config(tmp_path, text_of(HUGE) + more)
        done = run(environment(hub, tmp_path / "ws", **env), "validate", written, "--json")
        assert done.exit_code == 0, done.stdout
        said = json.loads(done.stdout)
        assert said["fit"] is None
        assert not any("fit" in note for note in said["notes"])

    def test_a_family_that_is_not_known_is_let_through_with_a_note(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        text = text_of("strange/mamba")
        done = run(environment(hub, tmp_path / "ws"), "validate", config(tmp_path, text))
        assert done.exit_code == 0
        assert "not checked: the sizes of model_type mamba are not known" in done.stderr

    def test_a_model_for_another_example_is_told_of(self, hub: HubServer, tmp_path: Path) -> None:
        text = (PROJECT_ROOT / QUICK_START).read_text().replace(MODEL_ID, SMALL)
        done = run(environment(hub, tmp_path / "ws"), "validate", config(tmp_path, text))
        assert done.exit_code == 0
        assert "note: the scripts of the example gpt are for models of type gpt2 and" in done.stderr
        assert f"and {SMALL} is of type llama; the example for those is llama\n" in done.stderr

    @pytest.mark.parametrize("command", ["validate", "plan", "build"])
    def test_a_model_for_another_example_is_a_mistake_where_the_toolchain_is_sure(
        self, hub: HubServer, tmp_path: Path, command: str
    ) -> None:
        text = (PROJECT_ROOT / QUICK_START).read_text().replace(MODEL_ID, SMALL)
        env = environment(hub, tmp_path / "ws", TRTLLM_DIR=str(TOOLCHAIN))
        done = run(env, command, config(tmp_path, text))
        assert done.exit_code == 2
        line = 1 + text[: text.index("example_name: gpt")].count("\n")
        expected = "the example gpt of the cpu toolchain builds models of type gpt2"
        assert f"config.yaml:{line}: example_name: {expected}, and {SMALL} is of type llama" in done.stderr
        assert not list((tmp_path / "ws").glob("models/*/*/*"))

    @pytest.mark.parametrize(
        ("env", "reason"),
        [
            ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "connection refused"),
            ({"HF_HUB_OFFLINE": "1"}, "Leave out --offline, and unset HF_HUB_OFFLINE"),
        ],
    )
    def test_without_a_hub_it_says_that_it_is_not_checked(
        self, hub: HubServer, tmp_path: Path, env: dict[str, str], reason: str
    ) -> None:
        done = run(environment(hub, tmp_path / "ws", **env), "validate", SEVENTY, "--json")
        assert done.exit_code == 0
        said = json.loads(done.stdout)
        (note,) = [note for note in said["notes"] if reason in note]
        assert note.startswith("whether it fits is not checked, and the model was not looked at for code")
        assert said["fit"]["not_checked"]

    @pytest.mark.slow
    def test_that_a_model_which_is_here_was_not_asked_for_is_said(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        env = environment(hub, tmp_path / "ws")
        assert run(env, "build", QUICK_START).exit_code == 0
        env["HF_ENDPOINT"] = "http://127.0.0.1:9"
        done = run(env, "validate", QUICK_START, "--json")
        assert done.exit_code == 0
        (note,) = [note for note in json.loads(done.stdout)["notes"] if "http://127.0.0.1:9" in note]
        assert note.startswith("http://127.0.0.1:9 could not be asked whether ")
        assert "that is here is used" in note

    @pytest.mark.parametrize(
        "command", ["validate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plan", "build"))]
    )
    @pytest.mark.parametrize(
        ("model_id", "more", "token", "key", "reason"),
        [
            (
                "no/such",
                "",
                "hf_goodtoken",
                "model_id",
                "has no model no/such: check model_id; if it is private",
            ),
            (
                "no/such",
                "",
                "",
                "model_id",
                "has no model no/such: check model_id; if it is private, give a token",
            ),
            ("tiny", "", "", "model_id", "has no model tiny: check model_id"),
            (
                HUGE,
                "weight_format: pt\n",
                "",
                "weight_format",
                f"{HUGE} has no pt weights; it has",
            ),
            (HUGE, "revision: nope\n", "", "revision", f"{HUGE} has no revision 'nope': check `revision` in"),
        ],
    )
    def test_what_the_hub_says_is_not_there_is_a_mistake_of_the_config(
        self,
        hub: HubServer,
        tmp_path: Path,
        command: str,
        model_id: str,
        more: str,
        token: str,
        key: str,
        reason: str,
    ) -> None:
        text = text_of(model_id) + "fit: off\n" + more
        line = 1 + text[: text.index(f"{key}:")].count("\n")
        env = environment(hub, tmp_path / "ws", HF_TOKEN=token)
        done = run(env, command, config(tmp_path, text), "--json")
        assert done.exit_code == 3, done.stdout
        said = json.loads(done.stdout)
        assert (said["valid"], said["kind"], said["type"]) == (False, "model_source", "NoSuchModel")
        (mistake,) = said["mistakes"]
        assert (mistake["key"], mistake["line"]) == (key, line)
        assert f"config.yaml:{line}: {key}: " in said["error"]
        assert reason in mistake["message"]


class TestBuild:
    """Refused before the download, and recorded after it."""

    def settings(self, hub: HubServer, workspace: Path, **more: str) -> Settings:
        return Settings.from_env(environment(hub, workspace, **more))

    def test_what_cannot_be_loaded_is_refused_before_its_weights_are_downloaded(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        settings = self.settings(hub, tmp_path / "ws")
        validated, before = validate(text_of(HUGE), "config.yaml", settings), len(hub.requests)
        with pytest.raises(DoesNotFit, match=r"build\.args\.tp_size: the weights .* take 34\.2 TB"):
            pipeline.build(validated, settings, Recorder())
        fetched = [r.path for r in hub.requests[before:] if "/resolve/" in r.path]
        assert [path.rpartition("/")[2] for path in fetched] == ["config.json"]
        assert not list((tmp_path / "ws").rglob("*.safetensors"))

    def test_record_manifest_and_the_next_plan_have_the_figures(self, hub: HubServer, tmp_path: Path) -> None:
        settings = self.settings(hub, tmp_path / "ws")
        text = (PROJECT_ROOT / QUICK_START).read_text()
        validated = validate(text, "config.yaml", settings)
        result = pipeline.build(validated, settings, Recorder())
        shape = json.loads((tmp_path / "ws" / "models" / MODEL_ID / "config.json").read_text())
        told: dict[str, Any] = dict(result.record["fit"])
        assert told["kv_bytes_per_token"] == 2 * shape["n_layer"] * shape["n_embd"] * 2
        assert told["devices"][0]["name"] == "this machine"
        manifest = result.record["manifest"]["fit"]
        assert manifest.items() <= told.items()
        assert not set(manifest) & {"host", "devices", "recorded"}
        again = fitting(validated.plan, settings).assessment
        assert again is not None
        (peak,) = again.peaks
        assert peak.build_id == result.build_id
        assert peak.host_bytes == max(step["peak_memory_bytes"] for step in result.record["steps"])

    @pytest.mark.slow
    def test_the_manifest_does_not_depend_on_whether_it_was_checked(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        text = (PROJECT_ROOT / QUICK_START).read_text()
        manifests = []
        for name, more in (("on", {}), ("off", {"TRT_LLM_FIT_CHECK": "off"})):
            settings = self.settings(hub, tmp_path / name, **more)
            result = pipeline.build(validate(text, "config.yaml", settings), settings, Recorder())
            manifests.append(result.record["manifest"])
            assert ("fit" in result.record) == (name == "on")
        assert manifests[0] == manifests[1]

    @pytest.mark.slow
    def test_a_model_in_a_tar_is_looked_at_once_it_is_there(self, hub: HubServer, tmp_path: Path) -> None:
        (tmp_path / "served").mkdir()
        with tarfile.open(tmp_path / "served" / "model.tar", "w") as tar:
            tar.add(models.make_demo_gpt2(tmp_path / "model").folder, arcname=".")
        settings, told = self.settings(hub, tmp_path / "ws"), Recorder()
        with ConfigServer(tmp_path / "served") as server:
            text = (PROJECT_ROOT / QUICK_START).read_text() + f"model_tar_url: {server.url}/model.tar\n"
            validated = validate(text, "config.yaml", settings)
            before = fitting(validated.plan, settings)
            result = pipeline.build(validated, settings, told)
        assert before.reason is not None
        assert "comes in a tar, which is not downloaded yet" in before.reason
        assert result.record["fit"]["parameters"] == result.record["manifest"]["fit"]["parameters"]
        assert not any("not checked" in line for line in told.lines)

    @pytest.mark.slow
    def test_what_may_not_fit_is_said_in_the_log(self, hub: HubServer, tmp_path: Path) -> None:
        settings, told = self.settings(hub, tmp_path / "ws"), Recorder()
        text = (PROJECT_ROOT / QUICK_START).read_text()
        text += "    max_batch_size: 1000000\n    max_input_len: 1000\n    max_output_len: 24\n"
        pipeline.build(validate(text, "config.yaml", settings), settings, told)
        assert any("fit: beside the weights, this machine has room for" in line for line in told.lines)
