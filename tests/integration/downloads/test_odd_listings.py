"""Hubs that list what makes no sense: refused in words before anything is written."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit.net.test_client import Answer, says, server
from trt_llm_pipeline.errors import ModelSourceError, ModelUnavailable
from trt_llm_pipeline.model_source import ModelRequest, fetch, plan
from trt_llm_pipeline.net.retrying import RetryLimits

QUICK = RetryLimits(attempts=2, first_wait=0.02, longest_wait=0.1, patience=5.0, silence=2.0)
NOTHING = "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n"


def hub_that_lists(siblings: list[Any], otherwise: str, sha: object = "a" * 40) -> Answer:
    """A Hub with one model, and one answer to everything else."""
    listing = json.dumps({"id": "owner/model", "sha": sha, "gated": False, "siblings": siblings})

    def answer(connection: socket.socket, head: bytes) -> bool:
        listed = f"HTTP/1.1 200 OK\nContent-Length: {len(listing)}\n\n{listing}"
        text = listed if b"/api/" in head else otherwise
        return says(text, keep="Connection: close" not in text)(connection, head)

    return answer


FILES = [
    {"rfilename": "config.json", "size": 2, "blobId": "1" * 40},
    {"rfilename": "model.safetensors", "size": 5, "blobId": "2" * 40},
]
WEIGHTS = FILES[1]


def named(name: Any) -> list[Any]:
    return [*FILES, {**WEIGHTS, "rfilename": name}]


def with_lfs(**changes: Any) -> list[Any]:
    lfs = {"size": 5, "sha256": "3" * 64, "pointerSize": 1, **changes}
    return [FILES[0], {**WEIGHTS, "lfs": lfs}]


@pytest.mark.parametrize(
    ("siblings", "why"),
    [
        *(
            ([FILES[0], {**WEIGHTS, "size": size}], "model.safetensors of owner/model with the size ")
            for size in ("5", 5.5, -5, True, 10**30, [], {})
        ),
        *(
            (named(name), "owner/model with a file named ")
            for name in (5, None, [], "\ud800.json", "x\x1b]0;x\x07")
        ),
        *(
            (named(name), "owner/model with a file named ")
            for name in ("n" * 256, "./a", "a//b", "a/./b", "a/")
        ),
        ([FILES[0], {**WEIGHTS, "blobId": 5}], "the digest 5"),
        ([FILES[0], {**WEIGHTS, "blobId": "../x"}], "the digest '../x'"),
        (with_lfs(sha256="../x"), "the digest '../x'"),
        (with_lfs(sha256=5), "the digest 5"),
        (with_lfs(size="5"), "the size '5'"),
        (with_lfs(size=-1), "the size -1"),
        ([*FILES, {**WEIGHTS, "size": 6}], "model.safetensors of owner/model with two contents"),
        (named("config.json/x"), "config.json of owner/model with a file below it, config.json/x"),
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(tmp_path: Path, siblings: list[Any], why: str) -> None:
    models = tmp_path / "models"
    with server(hub_that_lists(siblings, NOTHING)) as (url, heads):
        request, env = ModelRequest("owner/model"), {"HF_ENDPOINT": url}
        with pytest.raises(ModelSourceError) as caught:
            plan(request, models, token=None, env=env, limits=QUICK)
        with pytest.raises(ModelSourceError):
            fetch(request, models, token=None, log=print, env=env, limits=QUICK)
    assert why in str(caught.value)
    assert "makes no sense; nothing was written. Check HF_ENDPOINT" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(heads) == 2
    assert not models.exists()


@pytest.mark.parametrize("sha", [5, None, "", "../x", "a\nb"])
def test_a_commit_that_is_none_is_refused(tmp_path: Path, sha: object) -> None:
    with (
        server(hub_that_lists(FILES, NOTHING, sha)) as (url, _),
        pytest.raises(ModelSourceError, match=r"lists owner/model with the commit"),
    ):
        plan(ModelRequest("owner/model"), tmp_path, token=None, env={"HF_ENDPOINT": url}, limits=QUICK)


@pytest.mark.parametrize("sibling", [5, "x", None, [], {}, {"rfilename": "x", "lfs": 5}])
def test_an_entry_that_is_none_is_refused(tmp_path: Path, sibling: Any) -> None:
    with (
        server(hub_that_lists([sibling], NOTHING)) as (url, _),
        pytest.raises(ModelUnavailable),
    ):
        plan(ModelRequest("owner/model"), tmp_path, token=None, env={"HF_ENDPOINT": url}, limits=QUICK)


def test_a_file_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    with server(hub_that_lists([*FILES, *FILES], NOTHING)) as (url, _):
        found = plan(
            ModelRequest("owner/model"), tmp_path, token=None, env={"HF_ENDPOINT": url}, limits=QUICK
        )
    assert sorted(file.path for file in found.files) == ["config.json", "model.safetensors"]


def test_a_mirror_that_tells_a_size_below_nothing_is_refused(tmp_path: Path) -> None:
    names = [{"rfilename": file["rfilename"]} for file in FILES]
    answer = f'HTTP/1.1 200 OK\nX-Repo-Commit: {"a" * 40}\nETag: "x"\nX-Linked-Size: -5\n\n'
    with (
        server(hub_that_lists(names, answer)) as (url, _),
        pytest.raises(ModelSourceError, match=r"config.json of owner/model with the size -5"),
    ):
        plan(ModelRequest("owner/model"), tmp_path, token=None, env={"HF_ENDPOINT": url}, limits=QUICK)


@pytest.mark.parametrize("length", ["Content-Length: 2\n", ""])
def test_a_file_that_begins_again_and_again_is_given_up(tmp_path: Path, length: str) -> None:
    answer = f"HTTP/1.1 200 OK\n{length}Connection: close\n\n{{}}"
    with (
        server(hub_that_lists([FILES[1]], answer)) as (url, _),
        pytest.raises(ModelUnavailable, match=r"model\.safetensors could not be downloaded"),
    ):
        fetch(
            ModelRequest("owner/model"),
            tmp_path,
            token=None,
            log=print,
            env={"HF_ENDPOINT": url},
            limits=QUICK,
        )
