"""Models from a Hub: real HTTP from loopback, real faults."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import (
    DiskFull,
    ModelAccessDenied,
    ModelNotFound,
    ModelSourceError,
    ModelUnavailable,
    PipelineError,
    WorkspaceError,
)
from trt_llm_pipeline.model_source import (
    DownloadPlan,
    ModelRequest,
    Snapshot,
    fetch,
    model_files,
    peek_config,
    plan,
)
from trt_llm_pipeline.model_source.record import record_path
from trt_llm_pipeline.net.retrying import RetryLimits
from trt_llm_pipeline.server.cancellation import delivered
from trt_llm_pipeline.testing.hub import Fault, HubServer
from trt_llm_pipeline.testing.servers import free_port

QUICK = RetryLimits(attempts=4, first_wait=0.02, longest_wait=0.1, patience=5.0, silence=0.5)
BIG = os.urandom(3_000_000)
FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": BIG,
    "model-00002-of-00002.safetensors": os.urandom(500_000),
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"pickle",
    "pytorch_model.bin.index.json": b"{}",
    "tf_model.h5": b"tensorflow",
    "flax_model.msgpack": b"flax",
    "onnx/model.onnx": b"onnx",
    "tokenizer.model": b"sentencepiece",
    "custom.tiktoken": b"IQ== 0",
}
SAFETENSORS = {
    path: content
    for path, content in FILES.items()
    if not path.startswith(("pytorch", "tf_", "flax", "onnx"))
}
WEIGHTS = "model-00001-of-00002.safetensors"
DOWNLOAD = f"/*/resolve/*/{WEIGHTS}"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(tokens=["hf_granted", "hf_stranger"]) as server:
        server.add_repository("owner/model", FILES)
        yield server


class Caller:
    """Asks the Hub for models and keeps the log."""

    def __init__(self, hub: HubServer, models: Path) -> None:
        self.hub, self.models = hub, models
        self.lines: list[str] = []
        self.env = {"HF_ENDPOINT": hub.url}

    def fetch(self, model_id: str = "owner/model", token: str | None = None, **options) -> Snapshot:
        calls = {name: options.pop(name) for name in ("progress", "limits") if name in options}
        calls.setdefault("limits", QUICK)
        request = ModelRequest(model_id, **options)
        return fetch(request, self.models, token=token, log=self.lines.append, env=self.env, **calls)

    def plan(self, model_id: str = "owner/model", token: str | None = None, **options) -> DownloadPlan:
        request = ModelRequest(model_id, **options)
        return plan(request, self.models, token=token, env=self.env, limits=QUICK)

    @property
    def folder(self) -> Path:
        return self.models / "owner/model"

    def downloads(self) -> list[str]:
        """Names of the files that were asked for since the log was last cleared, metadata aside."""
        return [
            request.path.rpartition("/")[2]
            for request in self.hub.requests
            if "/resolve/" in request.path and request.method == "GET"
        ]


@pytest.fixture
def caller(hub: HubServer, tmp_path: Path) -> Caller:
    return Caller(hub, tmp_path / "models")


def contents(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in model_files(folder)}


class TestWhatIsFetched:
    def test_weights_of_one_format_and_all_that_is_not_weights(self, caller: Caller) -> None:
        told: list[tuple[int, int | None]] = []
        snapshot = caller.fetch(progress=lambda done, total: told.append((done, total)))
        assert contents(snapshot.path) == SAFETENSORS
        assert snapshot.source == "hub"
        assert snapshot.downloaded_bytes == sum(map(len, SAFETENSORS.values()))
        assert told[-1] == (snapshot.downloaded_bytes, snapshot.downloaded_bytes)
        assert len(caller.lines) == 2
        assert snapshot.revision[:12] in caller.lines[0]
        assert re.search(r"downloaded 3\.5 MB in \d+\.\d s \(\d+\.\d [kMG]B/s\)$", caller.lines[1])

    def test_the_format_that_the_config_names(self, caller: Caller) -> None:
        snapshot = caller.fetch(weight_format="bin")
        assert "pytorch_model.bin" in contents(snapshot.path)
        assert not [path for path in contents(snapshot.path) if "safetensors" in path]

    def test_files_of_the_same_content_do_not_meet(self, hub: HubServer, caller: Caller) -> None:
        files = {"model.safetensors": b"w", **{f"{number}.json": b"{}" for number in range(40)}}
        hub.add_repository("owner/twins", files)
        assert contents(caller.fetch("owner/twins").path) == files

    def test_a_format_that_is_not_there_names_those_that_are(self, caller: Caller) -> None:
        with pytest.raises(ModelSourceError, match=r"has no pt weights; it has safetensors and bin"):
            caller.fetch(weight_format="pt")
        assert not caller.models.exists()

    def test_every_file_is_of_the_commit_that_the_branch_named_first(
        self, hub: HubServer, caller: Caller
    ) -> None:
        hub.faults.add(Fault("slow", DOWNLOAD, after=3_000_000))
        moved = False

        def move_the_branch(done: int, total: int | None) -> None:
            nonlocal moved
            if not moved:
                hub.add_repository("owner/model", {**FILES, "config.json": b'{"moved": 1}'})
                moved = True

        before = caller.plan().revision
        snapshot = caller.fetch(progress=move_the_branch)
        assert snapshot.revision == before
        assert contents(snapshot.path) == SAFETENSORS
        asked = {request.path.split("/")[4] for request in hub.requests if "/resolve/" in request.path}
        assert asked == {before}

    def test_a_plan_writes_nothing_and_tells_the_sizes(self, caller: Caller) -> None:
        planned = caller.plan()
        assert {file.path: file.size for file in planned.files} == {
            path: len(content) for path, content in SAFETENSORS.items()
        }
        assert planned.total_bytes == planned.missing_bytes == sum(map(len, SAFETENSORS.values()))
        assert not caller.models.exists()
        caller.fetch()
        assert caller.plan().files == ()
        assert caller.plan().missing_bytes == 0
        assert caller.plan().total_bytes == planned.total_bytes


class TestWhatIsThere:
    def test_a_complete_snapshot_is_not_downloaded_again(self, hub: HubServer, caller: Caller) -> None:
        first = caller.fetch()
        hub.clear_requests()
        again = caller.fetch()
        assert (again.revision, again.downloaded_bytes) == (first.revision, 0)
        assert caller.downloads() == []

    def test_a_commit_that_is_complete_is_not_even_asked_about(self, hub: HubServer, caller: Caller) -> None:
        commit = caller.fetch().revision
        hub.clear_requests()
        assert caller.fetch(revision=commit).downloaded_bytes == 0
        assert hub.requests == ()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.unlink(),
            lambda path: path.write_bytes(BIG[:-1]),
            lambda path: path.write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1])),
        ],
        ids=["missing", "short", "changed"],
    )
    def test_only_what_is_missing_or_damaged_is_fetched(self, hub: HubServer, caller: Caller, damage) -> None:
        caller.fetch()
        damage(caller.folder / WEIGHTS)
        hub.clear_requests()
        assert [file.path for file in caller.plan().files] == [WEIGHTS]
        caller.fetch()
        assert caller.downloads() == [WEIGHTS]
        assert contents(caller.folder) == SAFETENSORS

    @pytest.mark.parametrize("revision", [None, "commit"])
    def test_a_file_changed_with_size_and_date_kept_is_fetched_again(
        self, hub: HubServer, caller: Caller, revision: str | None
    ) -> None:
        first = caller.fetch()
        path = caller.folder / "tokenizer.model"
        before = path.stat()
        path.write_bytes(b"SENTENCEPIECE")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        hub.clear_requests()
        caller.fetch(revision=revision and first.revision)
        assert caller.downloads() == ["tokenizer.model"]
        assert contents(caller.folder) == SAFETENSORS

    def test_a_file_with_another_date_but_the_same_content_is_kept(
        self, hub: HubServer, caller: Caller
    ) -> None:
        caller.fetch()
        os.utime(caller.folder / WEIGHTS, (1, 1))
        hub.clear_requests()
        assert caller.fetch().downloaded_bytes == 0
        assert caller.downloads() == []

    def test_another_revision_replaces_what_changed_and_removes_what_is_gone(
        self, hub: HubServer, caller: Caller
    ) -> None:
        caller.fetch()
        (caller.folder / "notes.txt").write_text("the user's own")
        kept = {path: FILES[path] for path in ("config.json", WEIGHTS)}
        hub.add_repository("owner/model", {**kept, "tokenizer.model": b"other"}, revision="next")
        hub.clear_requests()
        snapshot = caller.fetch(revision="next")
        assert caller.downloads() == ["tokenizer.model"]
        assert contents(snapshot.path) == {
            **kept,
            "tokenizer.model": b"other",
            "notes.txt": b"the user's own",
        }

    def test_another_weight_format_replaces_the_weights(self, caller: Caller) -> None:
        caller.fetch()
        assert caller.plan(weight_format="bin").missing_bytes == 8
        caller.fetch(weight_format="bin")
        weights = [path for path in contents(caller.folder) if "model" in path and "py" in path]
        assert weights == ["pytorch_model.bin", "pytorch_model.bin.index.json"]
        caller.fetch(weight_format="safetensors")
        assert contents(caller.folder) == SAFETENSORS

    def test_a_folder_that_the_user_filled_is_used_as_it_is(self, hub: HubServer, caller: Caller) -> None:
        caller.folder.mkdir(parents=True)
        (caller.folder / "config.json").write_text("mine")
        snapshot = caller.fetch()
        assert (snapshot.source, snapshot.downloaded_bytes) == ("local", 0)
        assert "did not download" in snapshot.warnings[0]
        assert [path.name for path in caller.folder.iterdir()] == ["config.json"]
        assert caller.plan().source == "local"
        assert hub.requests == ()

    def test_an_owners_folder_with_models_in_it_is_no_model(self, caller: Caller) -> None:
        caller.fetch()
        mine = caller.folder.parent / "mine"
        mine.mkdir()
        (mine / "config.json").write_text("mine")
        for ask in (caller.plan, caller.fetch):
            with pytest.raises(ModelNotFound):
                ask("owner")
        assert contents(caller.folder) == SAFETENSORS
        (caller.folder.parent / "config.json").write_text("mine")
        assert caller.plan("owner").source == "local"

    def test_a_damaged_record_is_no_proof_of_anything(self, caller: Caller) -> None:
        caller.fetch()
        record = caller.folder / ".cache/trt-llm-pipeline/snapshot.json"
        record.write_text(record.read_text()[:100])
        (caller.folder / WEIGHTS).write_bytes(b"x" * len(BIG))
        caller.fetch()
        assert contents(caller.folder) == SAFETENSORS

    def test_another_snapshots_record_does_not_lead_out_of_the_folder(
        self, caller: Caller, tmp_path: Path
    ) -> None:
        caller.fetch()
        victim = tmp_path / "victim"
        victim.write_text("precious")
        record = caller.folder / ".cache/trt-llm-pipeline/snapshot.json"
        value = json.loads(record.read_text())
        value["files"].append({"path": "../../../victim", "size": 8, "digest": "", "mtime_ns": None})
        record.write_text(json.dumps(value))
        caller.fetch(weight_format="bin")
        assert victim.read_text() == "precious"


class TestOffline:
    def test_a_complete_snapshot_is_used(self, hub: HubServer, caller: Caller) -> None:
        first = caller.fetch()
        caller.env["HF_HUB_OFFLINE"] = "1"
        hub.clear_requests()
        assert caller.fetch().revision == first.revision
        assert caller.plan().missing_bytes == 0
        assert hub.requests == ()

    def test_an_incomplete_one_is_not(self, hub: HubServer, caller: Caller) -> None:
        caller.env["HF_HUB_OFFLINE"] = "1"
        with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
            caller.fetch()
        assert hub.requests == ()

    def test_a_hub_that_is_down_leaves_a_complete_snapshot_usable(
        self, hub: HubServer, caller: Caller
    ) -> None:
        first = caller.fetch()
        caller.env["HF_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        again = caller.fetch()
        assert again.revision == first.revision
        assert len(again.warnings) == 1
        with pytest.raises(ModelUnavailable, match="connection refused"):
            caller.fetch(weight_format="bin")

    def test_a_branch_that_is_gone_says_how_to_build_with_what_is_here(
        self, hub: HubServer, caller: Caller
    ) -> None:
        hub.add_tag("owner/model", "v1", "main")
        here = caller.fetch(revision="v1")
        repository = hub.repository("owner/model")
        assert repository is not None
        del repository.tags["v1"]
        for ask in (caller.fetch, caller.plan):
            with pytest.raises(ModelNotFound, match="has no revision 'v1'") as caught:
                ask(revision="v1")
            assert f"`revision: {here.revision}`" in str(caught.value)
            assert caught.value.part == "revision"


class TestWhoMayHaveIt:
    @pytest.fixture(autouse=True)
    def _gated(self, hub: HubServer) -> None:
        hub.add_repository("owner/gated", FILES, gated=True, granted=["hf_granted"])
        hub.add_repository("owner/private", FILES, private=True, granted=["hf_granted"])

    def test_gated_without_a_token(self, caller: Caller) -> None:
        for ask in (caller.fetch, caller.plan):
            with pytest.raises(ModelAccessDenied) as caught:
                ask("owner/gated")
            assert f"{caller.hub.url}/owner/gated" in str(caught.value)
            assert "hf_token" in str(caught.value)
        assert not caller.models.exists()

    @pytest.mark.parametrize("token", ["hf_stranger", "hf_unknown"])
    def test_gated_with_the_wrong_token(self, caller: Caller, token: str) -> None:
        with pytest.raises(ModelAccessDenied, match="the given token") as caught:
            caller.fetch("owner/gated", token=token)
        assert token not in str(caught.value) + "".join(caller.lines)

    @pytest.mark.parametrize("model_id", ["owner/gated", "owner/private"])
    def test_with_the_right_token(self, caller: Caller, model_id: str) -> None:
        snapshot = caller.fetch(model_id, token="hf_granted")
        assert contents(snapshot.path) == SAFETENSORS
        books = "".join(path.read_text("latin-1") for path in snapshot.path.rglob("*.json"))
        assert "hf_granted" not in books + "".join(caller.lines)

    def test_the_token_is_taken_from_the_environment(self, caller: Caller) -> None:
        caller.env["HF_TOKEN"] = "hf_granted"
        assert caller.fetch("owner/gated").downloaded_bytes > 0

    def test_the_token_does_not_follow_to_another_origin(self, hub: HubServer, caller: Caller) -> None:
        caller.fetch("owner/private", token="hf_granted")
        stored = [request for request in hub.requests if request.path.startswith("/storage/")]
        assert stored
        assert not any("authorization" in request.headers for request in stored)

    def test_private_or_missing(self, caller: Caller) -> None:
        for model_id in ("owner/private", "owner/missing"):
            with pytest.raises(ModelNotFound, match=f"has no model {model_id}"):
                caller.fetch(model_id)

    def test_no_such_revision(self, caller: Caller) -> None:
        with pytest.raises(ModelNotFound, match="no revision 'nope'"):
            caller.fetch(revision="nope")


class TestWhoMayHaveItAgain:
    """A model that is on the disk because of one user's token is not everybody's."""

    @pytest.fixture(params=["owner/gated", "owner/private"])
    def model_id(self, request: pytest.FixtureRequest, hub: HubServer) -> str:
        model_id = str(request.param)
        kind = model_id.partition("/")[2]
        hub.add_repository(model_id, FILES, granted=["hf_granted"], **{kind: True})
        return model_id

    def refused(self, caller: Caller, model_id: str, revision: str | None, *tokens: str | None) -> None:
        request = ModelRequest(model_id, revision)
        for token in tokens:
            for ask in (
                lambda token=token: caller.fetch(model_id, token, revision=revision),
                lambda token=token: caller.plan(model_id, token, revision=revision),
                lambda token=token: peek_config(request, caller.models, token=token, env=caller.env),
            ):
                with pytest.raises((ModelAccessDenied, ModelNotFound)):
                    ask()

    @pytest.mark.parametrize("by", ["commit", "branch"])
    def test_another_token_is_asked_about_and_refused(self, caller: Caller, model_id: str, by: str) -> None:
        commit = caller.fetch(model_id, "hf_granted").revision
        revision = commit if by == "commit" else None
        self.refused(caller, model_id, revision, None, "hf_stranger", "hf_unknown")
        caller.hub.clear_requests()
        assert caller.fetch(model_id, "hf_granted", revision=revision).downloaded_bytes == 0
        assert caller.plan(model_id, "hf_granted", revision=revision).missing_bytes == 0
        assert caller.downloads() == []

    def test_a_token_that_has_lost_its_access_is_refused(
        self, hub: HubServer, caller: Caller, model_id: str
    ) -> None:
        commit = caller.fetch(model_id, "hf_granted").revision
        kind = model_id.partition("/")[2]
        hub.add_repository(model_id, FILES, granted=["hf_stranger"], **{kind: True})
        self.refused(caller, model_id, commit, "hf_granted")
        assert caller.fetch(model_id, "hf_stranger", revision=commit).downloaded_bytes == 0

    @pytest.mark.parametrize("model_id", ["owner/gated"], indirect=True)
    @pytest.mark.parametrize("revision", [pytest.param(None, marks=pytest.mark.slow), "commit"])
    def test_a_hub_that_is_down_gives_it_to_nobody(
        self, caller: Caller, model_id: str, revision: str | None
    ) -> None:
        commit = caller.fetch(model_id, "hf_granted").revision
        revision = commit if revision else None
        caller.env["HF_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        for ask in (caller.fetch, caller.plan):
            with pytest.raises(ModelUnavailable, match="could not be asked whether this request may have it"):
                ask(model_id, revision=revision)
        for name in ("TRT_LLM_SHARED_MODELS", "HF_HUB_OFFLINE"):
            other = Caller(caller.hub, caller.models)
            other.env = {**caller.env, name: "1"}
            assert other.fetch(model_id, revision=revision).downloaded_bytes == 0

    def test_a_machine_with_one_owner_is_told_how_to_have_what_is_here(
        self, caller: Caller, model_id: str
    ) -> None:
        commit = caller.fetch(model_id, "hf_granted").revision
        for ask in (caller.fetch, caller.plan):
            with pytest.raises((ModelAccessDenied, ModelNotFound)) as strangers:
                ask(model_id)
            assert commit not in str(strangers.value)
        caller.env["TRT_LLM_SHARED_MODELS"] = "1"
        for ask in (caller.fetch, caller.plan):
            with pytest.raises((ModelAccessDenied, ModelNotFound), match=f"`revision: {commit}` in the"):
                ask(model_id)

    def test_a_machine_with_one_owner_asks_nobody(self, caller: Caller, model_id: str) -> None:
        commit = caller.fetch(model_id, "hf_granted").revision
        caller.hub.clear_requests()
        caller.env["TRT_LLM_SHARED_MODELS"] = "1"
        assert caller.fetch(model_id, revision=commit).downloaded_bytes == 0
        peek_config(ModelRequest(model_id, commit), caller.models, token=None, env=caller.env)
        assert caller.hub.requests == ()
        caller.env["TRT_LLM_SHARED_MODELS"] = "yes"
        with pytest.raises(PipelineError, match="TRT_LLM_SHARED_MODELS is 'yes'; set it to 1 or 0"):
            caller.fetch(model_id, revision=commit)

    def test_a_record_that_does_not_say_is_asked_about(self, caller: Caller, model_id: str) -> None:
        snapshot = caller.fetch(model_id, "hf_granted")
        path = record_path(snapshot.path)
        record = json.loads(path.read_text())
        assert record.pop("restricted") is True
        path.write_text(json.dumps(record))
        self.refused(caller, model_id, snapshot.revision, None, "hf_stranger")

    def test_a_public_model_is_everybodys(self, caller: Caller) -> None:
        commit = caller.fetch(token="hf_granted").revision
        caller.hub.clear_requests()
        assert caller.fetch(revision=commit).downloaded_bytes == 0
        assert caller.hub.requests == ()


class TestFaults:
    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    @pytest.mark.parametrize("where", ["/api/*", DOWNLOAD])
    def test_a_server_error_is_waited_out(
        self, hub: HubServer, caller: Caller, status: int, where: str
    ) -> None:
        hub.faults.add(Fault("status", where, times=2, status=status))
        assert contents(caller.fetch().path) == SAFETENSORS
        assert sum(f"HTTP {status}" in line for line in caller.lines) == 2

    @pytest.mark.parametrize("where", ["/api/*", DOWNLOAD])
    def test_a_server_that_goes_on_failing_is_given_up(
        self, hub: HubServer, caller: Caller, where: str
    ) -> None:
        hub.faults.add(Fault("status", where, times=99, status=503))
        with pytest.raises(ModelUnavailable, match="HTTP 503, after 4 attempts"):
            caller.fetch()

    def test_too_many_requests_are_waited_for_as_long_as_asked(self, hub: HubServer, caller: Caller) -> None:
        hub.faults.add(Fault("status", DOWNLOAD, status=429, retry_after=1))
        started = time.monotonic()
        caller.fetch()
        assert time.monotonic() - started >= 1
        assert any("429" in line and "in 1 s" in line for line in caller.lines)

    def test_a_wait_beyond_all_patience_is_said_at_once(self, hub: HubServer, caller: Caller) -> None:
        hub.faults.add(Fault("status", "/api/*", status=429, retry_after=3600))
        with pytest.raises(ModelUnavailable, match="asks to wait 3600 s"):
            caller.fetch()

    @pytest.mark.parametrize("kind", ["reset", "stall", "short"])
    def test_a_file_that_breaks_off_is_resumed(self, hub: HubServer, caller: Caller, kind: str) -> None:
        hub.faults.add(Fault(kind, DOWNLOAD, times=2, after=2_000_000, seconds=100))
        snapshot = caller.fetch()
        assert contents(snapshot.path) == SAFETENSORS
        assert snapshot.downloaded_bytes == sum(map(len, SAFETENSORS.values()))
        ranges = [request.headers["range"] for request in hub.requests if "range" in request.headers]
        assert ranges
        assert any(WEIGHTS in line and "attempt 2 of 4" in line for line in caller.lines)

    def test_a_server_that_ignores_ranges_is_read_from_the_start(
        self, hub: HubServer, caller: Caller
    ) -> None:
        hub.faults.add(Fault("stall", DOWNLOAD, after=1_000_000, seconds=100))
        hub.faults.add(Fault("ignore_range", DOWNLOAD))
        assert contents(caller.fetch().path) == SAFETENSORS

    def test_content_other_than_announced_is_fetched_again(self, hub: HubServer, caller: Caller) -> None:
        hub.faults.add(Fault("corrupt", DOWNLOAD, after=1_234_567))
        hub.faults.add(Fault("corrupt", "/*/resolve/*/config.json", after=1))
        assert contents(caller.fetch().path) == SAFETENSORS
        assert sum("not the content announced" in line for line in caller.lines) == 2

    def test_content_that_stays_wrong_is_never_taken(self, hub: HubServer, caller: Caller) -> None:
        hub.faults.add(Fault("corrupt", DOWNLOAD, times=99, after=1_234_567))
        with pytest.raises(ModelUnavailable, match="another content than announced"):
            caller.fetch()
        assert WEIGHTS not in contents(caller.folder)
        hub.faults.clear()
        assert caller.plan().missing_bytes > 0
        assert contents(caller.fetch().path) == SAFETENSORS

    def test_a_file_that_is_longer_than_announced_is_never_taken(
        self, hub: HubServer, caller: Caller
    ) -> None:
        hub.faults.add(Fault("longer", DOWNLOAD, times=99, after=1))
        with pytest.raises(ModelUnavailable, match="another content than announced"):
            caller.fetch()
        assert WEIGHTS not in contents(caller.folder)

    def test_an_address_that_is_no_hub(self, hub: HubServer, caller: Caller) -> None:
        caller.env["HF_ENDPOINT"] = hub.add_file("x", b"<html>")
        with pytest.raises(ModelUnavailable, match="check HF_ENDPOINT"):
            caller.fetch()


class TestInterruption:
    def test_an_exception_stops_every_thread_and_keeps_what_came(
        self, hub: HubServer, caller: Caller
    ) -> None:
        hub.faults.add(Fault("stall", DOWNLOAD, after=2_000_000, seconds=100))

        class Cancelled(BaseException):
            pass

        def cancel(done: int, total: int | None) -> None:
            if done >= 2_000_000:
                raise Cancelled

        patient = RetryLimits()
        started = time.monotonic()
        with pytest.raises(Cancelled):
            caller.fetch(progress=cancel, limits=patient)
        assert time.monotonic() - started < 50  # of the stall's 100
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("model-")]
        assert WEIGHTS not in contents(caller.folder)
        hub.clear_requests()
        assert contents(caller.fetch().path) == SAFETENSORS
        assert next(r.headers["range"] for r in hub.requests if "range" in r.headers) == "bytes=2000000-"

    @pytest.mark.parametrize("where", ["/api/*", DOWNLOAD], ids=["listing", "download"])
    def test_an_exception_set_from_another_thread_arrives_although_nothing_comes(
        self, hub: HubServer, caller: Caller, where: str
    ) -> None:
        """How a prediction is cancelled: between byte codes, so a blocking call would hold it back."""
        hub.faults.add(Fault("stall", where, after=1_000_000, seconds=100))
        ended: list[BaseException] = []

        class Cancelled(BaseException):
            pass

        def build() -> None:
            try:
                with delivered(Cancelled):
                    caller.fetch(limits=RetryLimits())
            except BaseException as error:  # noqa: BLE001  looked at below
                ended.append(error)

        thread = threading.Thread(target=build)
        thread.start()
        while not any(fnmatchcase(request.path, where) for request in hub.requests):
            time.sleep(0.01)
        time.sleep(0.3)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Cancelled))
        thread.join(50)
        assert not thread.is_alive()
        assert isinstance(ended[0], Cancelled)
        assert not [thread for thread in threading.enumerate() if thread.name == "model-download"]

    def test_a_killed_process_loses_nothing_but_the_time(
        self, hub: HubServer, caller: Caller, tmp_path: Path
    ) -> None:
        hub.faults.add(Fault("stall", DOWNLOAD, after=2_000_000, seconds=100))
        script = (
            "import sys, pathlib; from trt_llm_pipeline.model_source import *; "
            "fetch(ModelRequest('owner/model'), pathlib.Path(sys.argv[1]), token=None, log=print, "
            "progress=lambda done, total: print(done, flush=True))"
        )
        command = [sys.executable, "-c", script, str(caller.models)]
        with subprocess.Popen(
            command, env={**os.environ, **caller.env}, stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout:
                if line.strip().isdigit() and int(line) >= 2_500_000:
                    break
            process.send_signal(signal.SIGKILL)
        assert WEIGHTS not in contents(caller.folder)
        hub.clear_requests()
        snapshot = caller.fetch()
        assert contents(snapshot.path) == SAFETENSORS
        assert caller.downloads() == [WEIGHTS]
        assert snapshot.downloaded_bytes == len(BIG) - 2_000_000
        assert not (caller.folder / ".cache/trt-llm-pipeline/partial").exists()


class TestHostileSources:
    @pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil", ".cache/x", "a\\..\\b"])
    def test_a_listed_path_that_leads_out_is_refused(
        self, hub: HubServer, caller: Caller, tmp_path: Path, path: str
    ) -> None:
        hub.add_repository("owner/evil", {"model.safetensors": b"w", path: b"x"})
        with pytest.raises(ModelSourceError, match="does not stay inside"):
            caller.fetch("owner/evil")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("link", ["sub", ".cache", ".cache/trt-llm-pipeline"])
    def test_nothing_is_written_through_a_link(
        self, hub: HubServer, caller: Caller, tmp_path: Path, link: str
    ) -> None:
        hub.add_repository("owner/model", {"model.safetensors": b"w", "config.json": b"{}"})
        caller.fetch()
        outside = tmp_path / "outside"
        if link == "sub":
            outside.mkdir()
        else:
            (caller.folder / link).rename(outside)
        (caller.folder / link).symlink_to(outside)
        before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
        hub.add_repository("owner/model", {"model.safetensors": b"w", "sub/x.json": b"{}"})
        with pytest.raises(WorkspaceError, match="symbolic link"):
            caller.fetch()
        assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before

    def test_a_model_folder_that_is_a_link_is_the_users_own(
        self, hub: HubServer, caller: Caller, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        caller.folder.parent.mkdir(parents=True)
        caller.folder.symlink_to(elsewhere)
        assert caller.fetch().source == "local"
        assert list(elsewhere.iterdir()) == []

    @pytest.mark.parametrize("model_id", ["../x", "a/b/c", "", "/etc", "a/..", "a b"])
    def test_a_model_id_that_is_no_name_is_refused(self, caller: Caller, model_id: str) -> None:
        with pytest.raises(ModelSourceError, match="owner/name"):
            caller.fetch(model_id)


class TestDisk:
    def test_too_little_room_is_said_before_the_download(
        self, hub: HubServer, caller: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
        with pytest.raises(DiskFull, match=r"1\.0 MB free\): .* needs 3\.5 MB"):
            caller.fetch()
        assert caller.downloads() == []

    def test_a_disk_that_fills_midway_keeps_what_can_be_resumed(
        self, hub: HubServer, caller: Caller, tmp_path: Path
    ) -> None:
        """A real file system of 5 MB, in a mount namespace of its own."""
        hub.faults.add(Fault("slow", DOWNLOAD, after=4_000_000))
        script = """
            import pathlib, sys
            from trt_llm_pipeline.errors import DiskFull
            from trt_llm_pipeline.model_source import ModelRequest, fetch, model_files
            disk = pathlib.Path(sys.argv[1])

            def fill(done, total):
                if done < 1_500_000:
                    return
                with (disk / "filler").open("ab") as filler:
                    try:
                        filler.write(bytes(3_000_000))
                    except OSError:
                        pass

            try:
                fetch(ModelRequest("owner/model"), disk, token=None, log=print, progress=fill)
            except DiskFull as error:
                print("DiskFull", error)
            (disk / "filler").unlink()
            snapshot = fetch(ModelRequest("owner/model"), disk, token=None, log=print)
            print("downloaded", snapshot.downloaded_bytes, len(model_files(snapshot.path)))
        """
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(script))
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = 'mount -t tmpfs -o size=5m tmpfs "$1" && exec "$2" "$3" "$1"'
        done = subprocess.run(
            ["unshare", "-Urm", "sh", "-c", mount, "sh", str(disk), sys.executable, str(program)],
            env={**os.environ, **caller.env},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if "unshare" in done.stderr or "mount" in done.stderr:
            pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
        assert "DiskFull the disk of " in done.stdout, done.stdout + done.stderr
        downloaded, files = done.stdout.split("downloaded ")[-1].split()
        assert int(downloaded) < sum(map(len, SAFETENSORS.values()))
        assert int(files) == len(SAFETENSORS)


class TestPlaces:
    def test_a_file_where_a_folder_should_be_is_named(self, caller: Caller) -> None:
        caller.models.mkdir()
        (caller.models / "owner").write_text("a file")
        with pytest.raises(WorkspaceError, match="cannot be written"):
            caller.fetch()

    def test_main_and_no_revision_are_the_same(self, hub: HubServer, caller: Caller) -> None:
        caller.fetch()
        caller.env["HF_HUB_OFFLINE"] = "1"
        assert caller.fetch(revision="main").downloaded_bytes == 0

    def test_an_expired_address_at_the_storage_is_asked_for_anew(
        self, hub: HubServer, caller: Caller
    ) -> None:
        hub.faults.add(Fault("status", "/storage/*", status=403))
        assert contents(caller.fetch().path) == SAFETENSORS
        assert any("HTTP 403 from" in line for line in caller.lines)

    def test_a_repository_that_moved_is_followed(self, hub: HubServer, caller: Caller) -> None:
        hub.faults.add(Fault("moved", DOWNLOAD, status=308))
        assert contents(caller.fetch().path) == SAFETENSORS
