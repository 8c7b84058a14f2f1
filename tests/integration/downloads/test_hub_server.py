"""The loopback Hub, as an unmodified `huggingface_hub` sees it, and as a process."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from trt_llm_pipeline.testing.hub import Fault, HubServer
from trt_llm_pipeline.testing.models import DEMO_PROMPT, make_demo_gpt2

WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sub/dir/x.txt": b"deep"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer(tokens=["hf_granted", "hf_stranger"]) as server:
        server.add_repository("owner/model", FILES)
        yield server


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()


def test_snapshot_download_brings_every_file(hub: HubServer, tmp_path: Path) -> None:
    snapshot_download("owner/model", local_dir=tmp_path / "out", endpoint=hub.url, token=False)
    for path, content in FILES.items():
        assert (tmp_path / "out" / path).read_bytes() == content


def test_a_folder_of_repositories_is_served(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/config.json").write_text("{}")
    with HubServer(tmp_path) as server:
        assert HfApi(endpoint=server.url, token=False).list_repo_files("a/b") == ["config.json"]
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{server.url}/api/models/a/%2e%2e")
        assert caught.value.code == 401
        caught.value.close()


def test_model_info_announces_sizes_and_hashes(api: HfApi) -> None:
    info = api.model_info("owner/model", files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings}
    assert siblings["config.json"].blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert siblings["config.json"].lfs is None
    assert siblings["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert siblings["model.safetensors"].size == len(WEIGHTS)


def test_the_tree_lists_folders_and_files(api: HfApi) -> None:
    assert [entry.path for entry in api.list_repo_tree("owner/model")] == [
        "config.json",
        "model.safetensors",
        "sub",
    ]
    everything = [entry.path for entry in api.list_repo_tree("owner/model", recursive=True)]
    assert everything == ["config.json", "model.safetensors", "sub", "sub/dir", "sub/dir/x.txt"]
    assert [entry.path for entry in api.list_repo_tree("owner/model", "sub/dir")] == ["sub/dir/x.txt"]


def test_branches_tags_and_commits_resolve(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    first = api.model_info("owner/model").sha
    hub.add_tag("owner/model", "v1", "main")
    second = hub.add_repository("owner/model", {"config.json": b"[]"})
    third = hub.add_repository("owner/model", {"config.json": b"3"}, revision="feature/x")
    wanted = {"main": second, "v1": first, first: first, "feature/x": third}
    assert {name: api.model_info("owner/model", revision=name).sha for name in wanted} == wanted
    names = {ref.name for ref in api.list_repo_refs("owner/model").branches}
    assert names == {"main", "feature/x"}
    path = hf_hub_download(
        "owner/model", "config.json", revision="feature/x", local_dir=tmp_path, endpoint=hub.url, token=False
    )
    assert Path(path).read_bytes() == b"3"


def test_the_same_files_give_the_same_commit(hub: HubServer) -> None:
    assert hub.add_repository("other/model", FILES) == hub.add_repository("owner/model", FILES)


def test_large_files_are_at_another_origin_and_the_token_does_not_follow(
    hub: HubServer, tmp_path: Path
) -> None:
    url = hf_hub_url("owner/model", "model.safetensors", endpoint=hub.url)
    metadata = get_hf_file_metadata(url, token="hf_granted", endpoint=hub.url)
    assert metadata.etag == hashlib.sha256(WEIGHTS).hexdigest()
    assert metadata.size == len(WEIGHTS)
    assert metadata.location.startswith(hub.storage_url)
    hf_hub_download(
        "owner/model", "model.safetensors", local_dir=tmp_path, endpoint=hub.url, token="hf_granted"
    )
    stored = [request for request in hub.requests if request.path.startswith("/storage/")]
    assert stored
    assert not any("authorization" in request.headers for request in stored)


def test_ranges(hub: HubServer) -> None:
    url = hub.add_file("x", b"0123456789")
    status, headers, body = get(url, Range="bytes=3-5")
    assert (status, body, headers["content-range"]) == (206, b"345", "bytes 3-5/10")
    assert get(url, Range="bytes=8-")[2] == b"89"
    etag = headers["etag"]
    assert get(url, **{"Range": "bytes=8-", "If-Range": etag})[0] == 206
    assert get(url, **{"Range": "bytes=8-", "If-Range": '"other"'})[0] == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(url, Range="bytes=10-")
    assert caught.value.code == 416
    caught.value.close()
    assert hub.requests[0].headers["range"] == "bytes=3-5"


@pytest.mark.parametrize(
    ("token", "error", "status"),
    [(False, GatedRepoError, 401), ("hf_stranger", GatedRepoError, 403), ("hf_unknown", HfHubHTTPError, 401)],
)
def test_a_gated_repository_is_listed_but_not_given(
    hub: HubServer, tmp_path: Path, token: str | bool, error: type[HfHubHTTPError], status: int
) -> None:
    hub.add_repository("owner/gated", FILES, gated=True, granted=["hf_granted"])
    assert HfApi(endpoint=hub.url, token=False).model_info("owner/gated").gated == "manual"
    url = hf_hub_url("owner/gated", "config.json", endpoint=hub.url)
    with pytest.raises(error) as caught:
        get_hf_file_metadata(url, token=token, endpoint=hub.url)
    assert caught.value.response.status_code == status
    assert get_hf_file_metadata(url, token="hf_granted", endpoint=hub.url).size == 2


def test_private_and_missing_repositories_look_the_same(hub: HubServer) -> None:
    hub.add_repository("owner/private", FILES, private=True, granted=["hf_granted"])
    for token, status in ((False, 401), ("hf_stranger", 404)):
        for model_id in ("owner/private", "owner/missing"):
            with pytest.raises(RepositoryNotFoundError) as caught:
                HfApi(endpoint=hub.url, token=token).model_info(model_id)
            assert caught.value.response.status_code == status
    assert HfApi(endpoint=hub.url, token="hf_granted").model_info("owner/private").private


def test_missing_revisions_and_files_have_their_own_errors(hub: HubServer, api: HfApi) -> None:
    with pytest.raises(RevisionNotFoundError):
        api.model_info("owner/model", revision="nope")
    with pytest.raises(RemoteEntryNotFoundError):
        get_hf_file_metadata(hf_hub_url("owner/model", "nope", endpoint=hub.url), token=False)


def test_faults_happen_as_often_as_asked_for(hub: HubServer) -> None:
    url = hub.add_file("x", b"0" * 1000)
    hub.faults.add(Fault("status", "/files/*", times=2, status=429, retry_after=7))
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(url)
        assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "7")
        caught.value.close()
    assert get(url)[0] == 200
    hub.faults.add(Fault("corrupt", "/files/*", after=500))
    assert get(url)[2] == b"0" * 500 + b"1" + b"0" * 499
    hub.faults.add(Fault("short", "/files/*", after=10))
    assert get(url)[2] == b"0" * 10
    hub.faults.add(Fault("reset", "/files/*", after=10))
    with pytest.raises(ConnectionError):
        get(url)
    assert get(url)[2] == b"0" * 1000


def test_it_listens_only_while_it_is_entered() -> None:
    server = HubServer()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url
    with server:
        url = server.url
    with pytest.raises(urllib.error.URLError):
        get(url + "/files/x")


def test_the_process_prints_its_address_serves_tiny_models_and_ends_on_sigterm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trt_llm_pipeline.testing.hub", "--model", "sshleifer/tiny-gpt2=gpt2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            path = hf_hub_download(
                "sshleifer/tiny-gpt2", "pytorch_model.bin", local_dir=tmp_path, endpoint=url, token=False
            )
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert make_demo_gpt2(tmp_path / "again").prompt == DEMO_PROMPT
    # Made in another process, and the same to the byte.
    assert Path(path).read_bytes() == (tmp_path / "again/pytorch_model.bin").read_bytes()


def test_the_process_names_a_port_that_is_taken() -> None:
    with HubServer() as hub:
        port = hub.url.rpartition(":")[2]
        command = [sys.executable, "-m", "trt_llm_pipeline.testing.hub", "--port", port]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 2
    assert told.stderr.endswith(
        f"cannot listen on 127.0.0.1:{port}: Address already in use; --port 0 picks another\n"
    )
