"""Which files count as code, who may allow them, and what a refusal says."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import ModelSourceError, RepositoryCodeRefused
from trt_llm_pipeline.model_source import CodeFile, Permission
from trt_llm_pipeline.model_source.repository_code import code_by_name, code_of, refuse, with_digests

CONF = CodeFile("conf.py", "Python code")


@pytest.mark.parametrize(
    "path",
    [
        "a.py",
        "b/c.PY",
        "__pycache__/a.cpython-311.pyc",
        "a.so",
        "liba.so.1.2",
        "a.dll",
        "a.pyd",
        "x.whl",
        "x.egg",
    ],
)
def test_code(path: str) -> None:
    assert code_by_name(path) is not None


@pytest.mark.parametrize("path", ["a.txt", "py", "a.pyi.txt", "model.safetensors", "so", "a.bin"])
def test_no_code(path: str) -> None:
    assert code_by_name(path) is None


@pytest.mark.parametrize(
    ("permission", "granted"),
    [
        (Permission(), False),
        (Permission(config=True), True),
        (Permission("ask", False), False),
        (Permission("refuse", True), False),
        (Permission("allow", False), True),
    ],
)
def test_the_operator_has_the_last_word(permission: Permission, granted: bool) -> None:
    assert permission.granted is granted
    if granted:
        refuse("a/b", [CONF], permission, "")
    else:
        with pytest.raises(RepositoryCodeRefused):
            refuse("a/b", [CONF], permission, "")


def test_nothing_found_is_nothing_to_refuse() -> None:
    refuse("a/b", [], Permission("refuse"), "")


def test_a_refusal_names_files_key_and_commit() -> None:
    many = [CodeFile(f"{at:02}.py", "Python code") for at in range(20)]
    with pytest.raises(RepositoryCodeRefused) as raised:
        refuse("a/b", many, Permission(), "Nothing was downloaded.", "0123abc")
    assert len(raised.value.files) == 20
    for part in ("a/b comes with", "00.py (Python code)", "and 8 more", "Nothing was downloaded."):
        assert part in str(raised.value)
    assert "`allow_repository_code: true`" in str(raised.value)
    assert "`revision: 0123abc`" in str(raised.value)


def test_everything_in_a_folder_is_looked_at_but_the_services_records(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    for name in ("a.py", ".cache/huggingface/b.py", ".hidden/c.py", ".cache/trt-llm-pipeline/d.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    elsewhere.mkdir()
    (elsewhere / "weights.bin").write_bytes(pickle.dumps(os.system, 0))
    (folder / "linked").symlink_to(elsewhere)
    (folder / "round").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "missing")
    (folder / "file").symlink_to(elsewhere / "weights.bin")
    found = code_of(folder)
    paths = [".cache/huggingface/b.py", ".hidden/c.py", "a.py", "file", "linked/weights.bin"]
    assert [code.path for code in found] == paths
    digest = hashlib.sha256((elsewhere / "weights.bin").read_bytes()).hexdigest()
    assert [code.sha256 for code in with_digests(folder, found[3:], {"file": "known"})] == ["known", digest]


def test_a_config_that_nobody_would_write_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(1 << 40)
    (found,) = code_of(tmp_path)
    assert "too large" in found.what


def test_a_file_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bin").write_bytes(b"")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # root may read anything
    with pytest.raises(ModelSourceError, match="cannot be looked at before"):
        code_of(tmp_path)
