"""TensorRT-LLM and its Triton backend are submodules, pinned, and may stay empty."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from trt_llm_pipeline import toolchain

PINNED = {
    "TensorRT-LLM": "80bc07510ac4ddf13c0d76ad295cdb2b75614618",
    "tensorrtllm_backend": "43446542b75b81d974b7aeaa805f225228f341f0",
}
ADDRESSES = {
    "TensorRT-LLM": "https://github.com/NVIDIA/TensorRT-LLM.git",
    "tensorrtllm_backend": "https://github.com/triton-inference-server/tensorrtllm_backend.git",
}


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_gitlinks_name_the_pinned_commits() -> None:
    found = {}
    for line in git("ls-files", "-s", "--", *PINNED).splitlines():
        mode, commit, rest = line.split(" ", 2)
        assert mode == "160000", f"{rest} is no gitlink"
        found[rest.split("\t")[1]] = commit
    assert found == PINNED


def test_gitmodules_names_each_gitlink_s_address() -> None:
    for name, address in ADDRESSES.items():
        assert git("config", "-f", ".gitmodules", f"submodule.{name}.url").strip() == address
        assert git("config", "-f", ".gitmodules", f"submodule.{name}.path").strip() == name


def test_nothing_of_a_submodule_s_content_is_in_the_repository() -> None:
    assert git("ls-files", "--", *(f"{name}/*" for name in PINNED)) == ""


def test_a_clone_with_empty_submodules_falls_back_to_the_embedded_toolchain(tmp_path: Path) -> None:
    for name in PINNED:
        (tmp_path / name).mkdir()
    (tmp_path / "cpu_toolchain" / "examples").mkdir(parents=True)
    (tmp_path / "cpu_toolchain" / "version.txt").write_text("cpu\nfollows: 0.7.1\n")
    found = toolchain.find({"TRTLLM_PYTHON": sys.executable}, tmp_path)
    assert (found.name, found.root) == ("cpu", tmp_path / "cpu_toolchain")
