"""Which toolchain is chosen, and what it finds in its own directory and never outside."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trt_llm_pipeline import toolchain
from trt_llm_pipeline.errors import ToolchainError
from trt_llm_pipeline.toolchain import PROJECT_ROOT, Toolchain

ENV = {"PATH": os.environ["PATH"]}


def make_tree(root: Path, version: str | None = None, package: str | None = None) -> Path:
    """A toolchain's tree: with a version file like the embedded one, or with NVIDIA's package."""
    (root / "examples/gpt").mkdir(parents=True)
    (root / "examples/gpt/build.py").write_text("")
    if version is not None:
        (root / "version.txt").write_text(version)
    if package is not None:
        (root / "tensorrt_llm").mkdir()
        (root / "tensorrt_llm/version.py").write_text(package)
    return root


def interpreter_with_package(folder: Path, version: str = "0.9.0") -> dict[str, str]:
    """An environment in which `tensorrt_llm` can be imported."""
    (folder / "site/tensorrt_llm").mkdir(parents=True)
    (folder / "site/tensorrt_llm/__init__.py").write_text("")
    info = folder / f"site/tensorrt_llm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: {version}\n")
    return {**ENV, "PYTHONPATH": str(folder / "site")}


class TestTheChoice:
    def test_the_embedded_one_when_nothing_else_is_there(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "cpu_toolchain", "cpu\nfollows: 0.7.1, 0.9.0\n")
        (tmp_path / "TensorRT-LLM").mkdir()  # a submodule that has not been populated
        (tmp_path / "tensorrtllm_backend").mkdir()
        found = toolchain.find(ENV, tmp_path)
        assert (found.name, found.version, found.follows) == ("cpu", "cpu", ("0.7.1", "0.9.0"))
        assert found.root == tmp_path / "cpu_toolchain"
        assert found.describe() == (
            f"toolchain cpu, with the options of 0.7.1, 0.9.0, at {tmp_path}/cpu_toolchain "
            "(found as cpu_toolchain/)"
        )

    def test_a_populated_submodule_before_the_embedded_one(self, tmp_path: Path) -> None:
        env = interpreter_with_package(tmp_path)
        make_tree(tmp_path / "cpu_toolchain", "cpu\n")
        make_tree(tmp_path / "tensorrtllm_backend/tensorrt_llm", package='__version__ = "0.7.1"\n')
        found = toolchain.find(env, tmp_path)
        assert found.root == tmp_path / "tensorrtllm_backend/tensorrt_llm"
        make_tree(tmp_path / "TensorRT-LLM", package='__version__ = "0.7.1"\n')
        found = toolchain.find(env, tmp_path)
        assert found.root == tmp_path / "TensorRT-LLM"
        # What runs is the installed package, whatever the tree says of itself.
        assert (found.name, found.version) == ("tensorrt_llm", "0.9.0")

    def test_trtllm_dir_wins(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "TensorRT-LLM", "other\n")
        chosen = make_tree(tmp_path / "chosen", "mine\n")
        found = toolchain.find({**ENV, "TRTLLM_DIR": str(chosen)}, tmp_path)
        assert (found.root, found.name, found.reason) == (chosen, "mine", "named by TRTLLM_DIR")

    @pytest.mark.parametrize("wrong", ["missing", "empty", "file"])
    def test_trtllm_dir_that_is_no_toolchain_is_an_error(self, tmp_path: Path, wrong: str) -> None:
        make_tree(tmp_path / "cpu_toolchain", "cpu\n")
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("")
        with pytest.raises(
            ToolchainError, match=r"which is not a toolchain: it has no examples/ directory\. Name"
        ):
            toolchain.find({**ENV, "TRTLLM_DIR": str(tmp_path / wrong)}, tmp_path)

    @pytest.mark.parametrize("named", [True, False])
    def test_a_tree_whose_package_cannot_be_imported_is_refused_with_advice(
        self, tmp_path: Path, named: bool
    ) -> None:
        make_tree(tmp_path / "cpu_toolchain", "cpu\n")
        tree = make_tree(tmp_path / "TensorRT-LLM", package='__version__ = "0.7.1"\n')
        env = {**ENV, "TRTLLM_DIR": str(tree)} if named else ENV
        with pytest.raises(ToolchainError) as caught:
            toolchain.find(env, tmp_path)
        message = str(caught.value)
        assert f"needs the Python package tensorrt_llm, which {sys.executable} cannot import" in message
        assert f"or TRTLLM_DIR={PROJECT_ROOT}/cpu_toolchain to build a CPU engine" in message

    def test_optimised_interpreters_are_asked_the_same(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "TensorRT-LLM", package="")
        with pytest.raises(ToolchainError, match="cannot import"):
            toolchain.find({**ENV, "PYTHONOPTIMIZE": "2"}, tmp_path)

    def test_examples_beside_an_installed_package_have_its_release(self, tmp_path: Path) -> None:
        """The published images have examples/ alone; the package is installed."""
        tree = make_tree(tmp_path / "app")
        env = {**interpreter_with_package(tmp_path, "0.12.0.dev2024073000"), "TRTLLM_DIR": str(tree)}
        found = toolchain.find(env, tmp_path)
        assert (found.name, found.version) == ("tensorrt_llm", "0.12.0.dev2024073000")
        assert found.releases_of("build.py", ">=0.12,<0.13")
        assert not found.releases_of("build.py", ">=0.13")

    def test_no_toolchain_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ToolchainError, match=r"no toolchain was found below .*; set TRTLLM_DIR"):
            toolchain.find(ENV, tmp_path)

    @pytest.mark.parametrize(
        ("setup", "version"),
        [
            ("from setuptools import setup\nsetup(name='tensorrt_llm',\n      version='0.5.0')\n", "0.5.0"),
            ("import setuptools\nsetuptools.setup(name='tensorrt_llm', version=\"0.5.0\")\n", "0.5.0"),
            ("from setuptools import setup\nsetup(version=get_version())\n", "unknown"),
            ("setup(version='0.5.0'", "unknown"),
            ("other(version='0.5.0')\n", "unknown"),
        ],
    )
    def test_release_of_0_5_0_is_read_from_its_setup(self, tmp_path: Path, setup: str, version: str) -> None:
        tree = make_tree(tmp_path / "trt-llm")
        (tree / "setup.py").write_text(setup)
        found = toolchain.find({"TRTLLM_DIR": str(tree)})
        assert (found.name, found.version) == ("tensorrt_llm", version)
        assert bool(found.releases_of("build.py", "==0.5.0")) == (version == "0.5.0")

    def test_a_tree_without_a_version_is_unknown_and_meets_no_requirement(self, tmp_path: Path) -> None:
        tree = make_tree(tmp_path / "tree")
        found = toolchain.find({**ENV, "TRTLLM_DIR": str(tree)}, tmp_path)
        assert (found.version, found.follows) == ("unknown", ())
        assert not found.releases_of("build.py", ">=0")

    def test_the_project_has_the_embedded_one(self) -> None:
        found = toolchain.find({**ENV, "TRTLLM_DIR": str(PROJECT_ROOT / "cpu_toolchain")})
        assert found.name == "cpu"
        assert "gpt" in found.example_names()
        assert found.releases_of("build.py") == ("0.5.0", "0.7.1")
        assert found.releases_of("build.py", ">=0.7") == ("0.7.1",)
        assert found.releases_of("trtllm-build") == ("0.9.0",)
        assert found.releases_of("trtllm-build", "==0.7.1") == ()


class TestTheInterpreter:
    def test_is_absolute_wherever_it_was_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_tree(tmp_path / "cpu_toolchain", "cpu\n")
        (tmp_path / "venv/bin").mkdir(parents=True)
        python = tmp_path / "venv/bin/mypython"
        python.symlink_to(sys.executable)
        monkeypatch.chdir(tmp_path)
        for env in (
            {**ENV, "TRTLLM_PYTHON": "venv/bin/mypython"},
            {**ENV, "TRTLLM_PYTHON": "./venv/bin/mypython"},
            {"PATH": str(python.parent), "TRTLLM_PYTHON": "mypython"},
        ):
            # The link itself: what it leads to would not know of its virtual environment.
            assert toolchain.find(env, tmp_path).python == str(python)

    @pytest.mark.parametrize("name", ["no-such-python", "/etc", "/etc/passwd"])
    def test_that_is_no_program_is_an_error(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ToolchainError, match=r"TRTLLM_PYTHON is .*, which is no program; name a Python"):
            toolchain.find({**ENV, "TRTLLM_PYTHON": name}, tmp_path)


class TestExamples:
    def test_are_found_in_every_layout(self, miniature: Toolchain) -> None:
        examples = miniature.root / "examples"
        assert miniature.example_dir("gpt") == examples / "gpt"
        assert miniature.example_dir("qwen") == examples / "models/core/qwen"
        assert miniature.example_dir("dbrx") == examples / "models/contrib/dbrx"
        assert miniature.example_dir("models/core/qwen") == examples / "models/core/qwen"
        assert miniature.example_names() == ["dbrx", "gpt", "llama", "qwen"]

    def test_of_the_older_layout_win(self, miniature: Toolchain) -> None:
        (miniature.root / "examples/qwen").mkdir()
        assert miniature.example_dir("qwen") == miniature.root / "examples/qwen"

    @pytest.mark.parametrize(
        "name",
        ["..", "../toolchain/examples", "gpt/..", "models/core", "/etc", "gpt/build.py", "x" * 300, "a\0b"],
    )
    def test_nothing_else_is_one(self, miniature: Toolchain, name: str) -> None:
        with pytest.raises(ToolchainError, match=r"is no example of the miniature 1\.0 toolchain; "):
            miniature.example_dir(name)

    def test_a_link_out_of_examples_is_none(self, miniature: Toolchain, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (miniature.root / "examples/out").symlink_to(tmp_path / "outside")
        (miniature.root / "examples/circle").symlink_to("circle")
        (miniature.root / "examples/gpt2").symlink_to("gpt")
        for name in ("out", "circle"):
            with pytest.raises(ToolchainError, match="is no example"):
                miniature.example_dir(name)
        assert miniature.example_dir("gpt2") == miniature.root / "examples/gpt"

    def test_a_toolchain_below_a_link_is_itself(self, miniature: Toolchain, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(miniature.root)
        linked = Toolchain(tmp_path / "link", "t", "1", (), sys.executable, "")
        assert linked.script(linked.example_dir("gpt"), "build.py").is_file()


class TestScripts:
    def test_are_in_their_example_or_another(self, miniature: Toolchain) -> None:
        gpt = miniature.example_dir("gpt")
        assert miniature.script(gpt, "build.py") == gpt / "build.py"
        assert miniature.script(gpt, "../llama/convert_checkpoint.py").parent.name == "llama"

    @pytest.mark.parametrize("name", ["../../secret.py", "/etc/passwd", "../../../outside.py", "link.py"])
    def test_outside_examples_are_refused(self, miniature: Toolchain, name: str) -> None:
        (miniature.root / "examples/gpt/link.py").symlink_to(miniature.root / "secret.py")
        with pytest.raises(ToolchainError, match="leads outside the toolchain's examples/ directory"):
            miniature.script(miniature.example_dir("gpt"), name)

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("biuld.py", "it has build.py"),
            ("quantize.py", "write ../quantization/quantize.py$"),
            ("other.py", "write ../models/core/qwen/other.py, or example_name: qwen$"),
            ("gpt/build.py", "write build.py$"),
            ("examples/gpt/build.py", "write build.py$"),
            ("trtllm-build", "that is no script; write executable: trtllm-build$"),
            ("zzz", "it has build.py, hf_gpt_convert.py"),
            (".", "it has "),
            ("x" * 300, "it has "),
            ("a\0b", "it has "),
        ],
    )
    def test_that_are_not_there_are_named_with_the_closest(
        self, miniature: Toolchain, name: str, advice: str
    ) -> None:
        (miniature.root / "examples/models/core/qwen/other.py").write_text("")
        with pytest.raises(ToolchainError, match=f"is not in the example gpt; {advice}"):
            miniature.script(miniature.example_dir("gpt"), name)


class TestExecutables:
    def program(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    def test_the_toolchains_own_then_the_interpreters_then_the_paths(
        self, miniature: Toolchain, tmp_path: Path
    ) -> None:
        python = self.program(tmp_path / "venv/bin/python")
        path = str(tmp_path / "path")
        tools = Toolchain(miniature.root, "t", "1", (), str(python), "", path)
        assert tools.executable("trtllm-build") == (str(python), "-m", "tensorrt_llm.commands.build")
        on_path = self.program(tmp_path / "path/trtllm-build")
        assert tools.executable("trtllm-build") == (str(on_path),)
        beside = self.program(tmp_path / "venv/bin/trtllm-build")
        assert tools.executable("trtllm-build") == (str(beside),)
        own = self.program(miniature.root / "bin/trtllm-build")
        assert tools.executable("trtllm-build") == (str(python), str(own))

    @pytest.mark.parametrize("name", ["python", "python3"])
    def test_python_is_the_toolchains_interpreter(self, miniature: Toolchain, name: str) -> None:
        assert miniature.executable(name) == (sys.executable,)
