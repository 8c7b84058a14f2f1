"""The directories of builds: what is a build's, and what is somebody else's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from trt_llm_pipeline.workspace import Builds, Workspace
from trt_llm_pipeline.workspace.builds import new_build_id


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace.at(tmp_path / "ws")
    place.prepare()
    return place


def make_sent_build(workspace: Workspace) -> Path:
    """A build whose archive went elsewhere: its directory."""
    directory = workspace.builds / new_build_id()
    directory.mkdir()
    archive = {"name": "engine.tar.gz", "address": "s3://bucket/engine.tar.gz"}
    (directory / "build.json").write_text(json.dumps({"key": "sent", "archive": archive}))
    return directory


def make_build(workspace: Workspace, *, archive: str = "engine.tar.gz", key: str = "k") -> Path:
    directory = workspace.builds / new_build_id()
    directory.mkdir()
    (directory / archive).write_bytes(b"archive")
    told = {"name": archive, "size": 7, "sha256": "0", "content_sha256": "0"}
    parts = {"seconds": {}, "steps": [], "warnings": [], "manifest": {}, "files": {}}
    record = {"build_id": directory.name, "key": key, "archive": told, **parts}
    (directory / "build.json").write_text(json.dumps(record))
    return directory / archive


class TestOthers:
    """What lies in the workspace and is no build's."""

    def test_directories_of_the_users_own_stay(self, workspace: Workspace) -> None:
        for name in ("linux", "debug", "release", "20240101"):
            (workspace.builds / name).mkdir()
            (workspace.builds / name / "build.json").write_text("{}")
        for _ in range(4):
            make_build(workspace)
        builds = Builds(workspace)
        builds.keep_newest(2)
        builds.give_way(10**12)
        names = {path.name for path in workspace.builds.iterdir()}
        assert {"linux", "debug", "release", "20240101"} <= names
        assert len(names) == 5

    def test_archive_of_the_users_own_is_not_replaced(self, workspace: Workspace) -> None:
        mine = workspace.root / "engine.tar.gz"
        mine.write_bytes(b"mine")
        assert Builds(workspace).publish(make_build(workspace)) is None
        assert mine.read_bytes() == b"mine"

    def test_directory_in_the_archives_place_costs_nothing(self, workspace: Workspace) -> None:
        (workspace.root / "engine.tar.gz").mkdir()
        (workspace.root / "engine.tar").mkdir()
        archive = make_build(workspace)
        assert Builds(workspace).publish(archive) is None
        assert archive.is_file()

    def test_unfinished_files_behind_a_link_stay(self, workspace: Workspace, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / ".mine.0123456789ab.partial").write_text("mine")
        (workspace.builds / new_build_id()).symlink_to(outside, target_is_directory=True)
        Builds(workspace).remove_unfinished()
        assert (outside / ".mine.0123456789ab.partial").is_file()

    def test_what_was_half_published_goes_and_the_users_files_stay(self, workspace: Workspace) -> None:
        ours = workspace.root / ".engine.tar.gz.intoto.jsonl.0123456789ab.partial"
        mine = workspace.root / ".notes.partial"
        record = workspace.state / ".made.json.0123456789ab.partial"
        planted = workspace.state / ".planted.0123456789ab.partial"
        planted.mkdir(parents=True)
        for path in (ours, mine, record):
            path.write_text("half")
        Builds(workspace).remove_unfinished()
        assert not ours.exists()
        assert not record.exists()
        assert mine.is_file()


class TestPublishing:
    """The newest archive at the workspace's top."""

    def test_newest_replaces_the_one_before(self, workspace: Workspace) -> None:
        builds = Builds(workspace)
        builds.publish(make_build(workspace))
        second = make_build(workspace)
        newest = builds.publish(second)
        assert newest is not None
        assert newest.samefile(second)

    def test_archive_whose_build_is_gone_is_still_a_builds(self, workspace: Workspace) -> None:
        builds = Builds(workspace)
        first = make_build(workspace)
        builds.publish(first)
        first.unlink()
        assert builds.publish(make_build(workspace)) is not None

    def test_other_compression_takes_its_place(self, workspace: Workspace) -> None:
        builds = Builds(workspace)
        builds.publish(make_build(workspace))
        newest = builds.publish(make_build(workspace, archive="engine.tar"))
        assert newest == workspace.root / "engine.tar"
        assert not (workspace.root / "engine.tar.gz").exists()

    def test_archive_that_stayed_behind_is_still_a_builds(self, workspace: Workspace) -> None:
        """gzip, the folder deleted by hand, none, gzip again: the top has the newest archive each time."""
        builds = Builds(workspace)
        first = make_build(workspace)
        builds.publish(first)
        shutil.rmtree(first.parent)
        builds.publish(make_build(workspace, archive="engine.tar"))
        third = make_build(workspace)
        newest = builds.publish(third)
        assert newest is not None
        assert newest.samefile(third)
        assert not (workspace.root / "engine.tar").exists()

    def test_archives_of_both_kinds_whose_builds_are_gone_are_a_builds(self, workspace: Workspace) -> None:
        builds = Builds(workspace)
        first = make_build(workspace)
        builds.publish(first)
        (workspace.root / "engine.tar.gz").rename(workspace.root / "kept")
        builds.publish(make_build(workspace, archive="engine.tar"))
        (workspace.root / "kept").rename(workspace.root / "engine.tar.gz")
        for directory in builds.directories():
            shutil.rmtree(directory)
        assert builds.publish(make_build(workspace)) is not None
        assert not (workspace.root / "engine.tar").exists()


def make_failed_build(workspace: Workspace) -> Path:
    """A build that has failed: its directory."""
    directory = workspace.builds / new_build_id()
    (directory / "logs").mkdir(parents=True)
    (directory / "build.json").write_text(json.dumps({"key": None, "error": "it failed"}))
    return directory


class TestKeeping:
    """So many successful builds stay, and as many that have failed."""

    def test_failures_evict_no_success(self, workspace: Workspace) -> None:
        archives = [make_build(workspace) for _ in range(3)]
        failed = [make_failed_build(workspace) for _ in range(5)]
        Builds(workspace).keep_newest(2)
        assert [archive.is_file() for archive in archives] == [False, True, True]
        assert [directory.is_dir() for directory in failed] == [False, False, False, True, True]

    def test_successes_evict_no_failure(self, workspace: Workspace) -> None:
        failed = make_failed_build(workspace)
        archives = [make_build(workspace) for _ in range(4)]
        Builds(workspace).keep_newest(3)
        assert failed.is_dir()
        assert [archive.is_file() for archive in archives] == [False, True, True, True]

    def test_what_failed_before_its_first_step_evicts_no_steps_logs(self, workspace: Workspace) -> None:
        ran = [make_failed_build(workspace) for _ in range(3)]
        for directory in ran:
            (directory / "logs" / "build.log").write_text("no memory")
        mistyped = [make_failed_build(workspace) for _ in range(4)]
        Builds(workspace).keep_newest(2)
        assert [directory.is_dir() for directory in ran] == [False, True, True]
        assert [directory.is_dir() for directory in mistyped] == [False, False, True, True]

    def test_what_a_killed_build_left_counts_as_failed(self, workspace: Workspace) -> None:
        killed = [workspace.builds / new_build_id() for _ in range(3)]
        for directory in killed:
            directory.mkdir()
        archive = make_build(workspace)
        Builds(workspace).keep_newest(1)
        assert [directory.is_dir() for directory in killed] == [False, False, True]
        assert archive.is_file()

    def test_a_failed_build_is_no_record_to_go_by(self, workspace: Workspace) -> None:
        make_failed_build(workspace)
        good = make_build(workspace).parent
        builds = Builds(workspace)
        assert [record["build_id"] for record in builds.records()] == [good.name]
        assert [build.directory for build in builds.listed()] == builds.directories()


class TestOneBuild:
    """What is found of it on the disk."""

    def test_its_state_is_what_its_record_says(self, workspace: Workspace) -> None:
        (workspace.builds / new_build_id()).mkdir()
        interrupted = make_failed_build(workspace)
        (interrupted / "build.json").write_text(json.dumps({"kind": "interrupted", "error": "x"}))
        make_failed_build(workspace)
        make_sent_build(workspace)
        make_build(workspace)
        found = Builds(workspace).listed()
        assert [build.state for build in found] == [*["succeeded"] * 2, "failed", "interrupted", "unfinished"]
        assert [build.archive is not None for build in found] == [True, False, False, False, False]

    def test_one_without_a_record_is_running_while_its_process_is_there(self, workspace: Workspace) -> None:
        name = new_build_id()
        (workspace.builds / name).mkdir()
        with workspace.lock("a build", build_id=name, model_id="a/b"):
            (build,) = Builds(workspace).listed()
            assert (build.state, build.process, build.begun_for) == ("running", os.getpid(), "a/b")

    @pytest.mark.parametrize("since", [0.0, None])
    def test_one_that_was_killed_is_unfinished(self, workspace: Workspace, since: float | None) -> None:
        """Its process is gone, or another process has its number now."""
        name = new_build_id()
        (workspace.builds / name).mkdir()
        ended = subprocess.Popen(["true"])
        ended.wait()
        note = {"holder": "a build", "build_id": name, "model_id": "a/b"}
        note |= {"pid": ended.pid, "since": time.time()} if since is None else {"pid": 1, "since": since}
        (workspace.state / "lock-holder.json").write_text(json.dumps(note))
        (build,) = Builds(workspace).listed()
        assert (build.state, build.process, build.begun_for) == ("unfinished", None, "a/b")

    def test_links_are_not_followed(self, workspace: Workspace, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "secret.log").write_text("secret")
        failed = make_failed_build(workspace)
        (failed / "logs" / "build.log").symlink_to(elsewhere / "secret.log")
        (failed / "report.html").symlink_to(elsewhere / "secret.log")
        (build,) = Builds(workspace).listed()
        assert build.files() == {}
        (failed / "logs" / "build.log").unlink()
        (failed / "logs").rmdir()
        (failed / "logs").symlink_to(elsewhere)
        assert build.logs() == {}


class TestNewestArchive:
    """It stays, whatever was built and sent elsewhere after it."""

    def test_when_old_builds_are_removed(self, workspace: Workspace) -> None:
        archives = [make_build(workspace) for _ in range(3)]
        sent = [make_sent_build(workspace) for _ in range(3)]
        Builds(workspace).keep_newest(2)
        assert [archive.is_file() for archive in archives] == [False, False, True]
        assert [directory.is_dir() for directory in sent] == [False, False, True]

    def test_when_the_disk_is_short_of_space(self, workspace: Workspace) -> None:
        archives = [make_build(workspace) for _ in range(3)]
        make_sent_build(workspace)
        removed = Builds(workspace).give_way(10**12)
        assert removed == 2 * len(b"archive")
        assert [archive.is_file() for archive in archives] == [False, False, True]

    def test_last_build_stays_although_only_one_is_kept(self, workspace: Workspace) -> None:
        archive, sent = make_build(workspace), make_sent_build(workspace)
        Builds(workspace).keep_newest(1)
        assert archive.is_file()
        assert sent.is_dir()


def test_forgotten_builds_answer_nothing(workspace: Workspace) -> None:
    builds = Builds(workspace)
    archive = make_build(workspace, key="same")
    assert builds.find("same") is not None
    builds.forget()
    assert builds.find("same") is None
    assert archive.is_file()


def test_a_record_of_which_something_is_missing_answers_nothing_and_is_named(workspace: Workspace) -> None:
    told: list[str] = []
    record = make_build(workspace, key="same").parent / "build.json"
    known = json.loads(record.read_text())
    del known["archive"]["content_sha256"]
    record.write_text(json.dumps(known))
    assert Builds(workspace, told.append).find("same") is None
    assert "build.json" in told[0]
    assert "archive.content_sha256" in told[0]


class TestBeside:
    """What belongs to the newest archive lies beside it, and beside no other."""

    @staticmethod
    def finished(workspace: Workspace, name: str, content: str) -> tuple[Path, Path]:
        archive = make_build(workspace, archive=name)
        statement = archive.with_name(f"{name}.more")
        statement.write_text(content)
        return archive, statement

    def test_it_is_replaced_with_its_archive(self, workspace: Workspace) -> None:
        builds = Builds(workspace)
        for content in ("one", "two"):
            assert builds.publish(*self.finished(workspace, "engine.tar.gz", content)) is not None
            assert (workspace.root / "engine.tar.gz.more").read_text() == content
        builds.publish(*self.finished(workspace, "engine.tar", "three"))
        top = {path.name for path in workspace.root.iterdir() if path.is_file()}
        assert top == {"engine.tar", "engine.tar.more"}

    def test_it_goes_with_its_archive_also_when_its_build_is_gone(self, workspace: Workspace) -> None:
        builds = Builds(workspace)
        archive, statement = self.finished(workspace, "engine.tar.gz", "one")
        builds.publish(archive, statement)
        for path in (archive, statement):
            path.unlink()
        builds.publish(make_build(workspace))
        assert not (workspace.root / "engine.tar.gz.more").exists()

    def test_the_users_own_stays_and_is_never_taken_for_a_builds(self, workspace: Workspace) -> None:
        mine = workspace.root / "engine.tar.gz.more"
        mine.write_text("mine")
        builds = Builds(workspace)
        for content in ("one", "two"):
            builds.publish(*self.finished(workspace, "engine.tar.gz", content))
        assert mine.read_text() == "mine"
