"""What builds have made: it is removed when it is in the way, and nothing else ever is."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_llm_pipeline.errors import StepOutputError, WorkspaceError
from trt_llm_pipeline.step import results
from trt_llm_pipeline.workspace import Ledger, Workspace


class Builds:
    """Plays builds and a user in one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.root = workspace.root
        workspace.prepare()
        self.ledger = Ledger(workspace)

    def write(self, *names: str, text: str = "x") -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def step(self, *names: str, step: str = "build", text: str = "built", killed: bool = False) -> None:
        """A step that writes `names`; a killed one is never finished."""
        before = self.workspace.files()
        self.ledger.begin(step, before)
        self.write(*names, text=text)
        if not killed:
            self.ledger.finish(step, results.changed(before, self.workspace.files()))

    def there(self) -> set[str]:
        return set(self.workspace.files())

    def directories(self) -> set[str]:
        return set(self.workspace.directories())

    def empty(self, name: str) -> None:
        self.ledger.empty(self.root / name, f"./{name}")

    def refuses_to_empty(self, name: str, foreign: str, *, spoilt: bool = False) -> None:
        there = self.there() | self.directories()
        said = rf"files that no build made \({foreign}.*\), so it is not emptied; choose"
        if spoilt:
            said = rf"files \({foreign}\), and what builds made is not known: \S+/made\.json is not as "
        with pytest.raises(WorkspaceError, match=rf"'./{name}' holds {said}"):
            self.empty(name)
        assert self.there() | self.directories() == there


@pytest.fixture
def builds(workspace: Workspace) -> Builds:
    return Builds(workspace)


class TestEmptying:
    def test_what_a_build_made_is_removed_with_its_directories(self, builds: Builds) -> None:
        builds.step("out/a", "out/deep/er/b", "model.cache")
        builds.empty("out")
        assert builds.there() == {"model.cache"}
        assert builds.directories() == set()

    def test_a_directory_that_is_not_there_is_empty(self, builds: Builds) -> None:
        builds.empty("out")
        assert builds.directories() == set()

    def test_files_of_the_user_are_refused_and_untouched(self, builds: Builds) -> None:
        builds.write("examples/gpt/build.py", ".git/HEAD")
        builds.refuses_to_empty("examples", "examples/gpt/build.py")
        builds.refuses_to_empty(".git", ".git/HEAD")

    def test_one_file_of_the_user_among_those_of_a_build_keeps_all(self, builds: Builds) -> None:
        builds.step("out/a", "out/b")
        builds.write("out/notes.txt")
        builds.refuses_to_empty("out", "out/notes.txt")

    @pytest.mark.parametrize("change", ["content", "time", "link"])
    def test_a_file_that_was_changed_after_the_build_is_the_users(self, builds: Builds, change: str) -> None:
        builds.step("out/a")
        path = builds.root / "out/a"
        if change == "content":
            path.write_text("edited by hand")
        elif change == "time":
            os.utime(path, ns=(1, 1))
        else:
            path.unlink()
            path.symlink_to("/etc/hostname")
        builds.refuses_to_empty("out", "out/a")

    def test_a_file_of_the_user_that_a_step_changed_stays_the_users(self, builds: Builds) -> None:
        builds.write("out/config.json", text="by hand")
        builds.step("out/config.json", "out/rank0.engine")
        builds.refuses_to_empty("out", "out/config.json")

    def test_a_file_of_a_build_that_a_later_step_changed_stays_a_builds(self, builds: Builds) -> None:
        builds.step("out/a", step="convert_to_ft")
        builds.step("out/a", text="again, longer")
        builds.empty("out")
        assert builds.there() == set()

    def test_empty_directories_of_the_user_stay(self, builds: Builds) -> None:
        (builds.root / ".git/refs/heads").mkdir(parents=True)
        (builds.root / "out/mine").mkdir(parents=True)
        builds.step("out/a", "out/made/b")
        builds.empty("out")
        builds.empty(".git")
        assert builds.there() == set()
        assert builds.directories() == {".git", ".git/refs", ".git/refs/heads", "out", "out/mine"}

    def test_empty_directories_of_a_build_go(self, builds: Builds) -> None:
        builds.ledger.begin("build", {})
        (builds.root / "out/deep").mkdir(parents=True)
        builds.ledger.finish("build", {})
        builds.empty("out")
        assert builds.directories() == set()

    def test_a_link_of_a_build_is_removed_and_not_what_it_leads_to(
        self, builds: Builds, tmp_path: Path
    ) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").write_text("mine")
        before = builds.workspace.files()
        builds.ledger.begin("build", before)
        builds.write("out/a")
        (builds.root / "out/link").symlink_to(tmp_path / "precious")
        builds.ledger.finish("build", results.changed(before, builds.workspace.files()))
        builds.empty("out")
        assert builds.directories() == set()
        assert (tmp_path / "precious/file").read_text() == "mine"

    def test_a_directory_that_became_a_link_out_is_refused(self, builds: Builds, tmp_path: Path) -> None:
        builds.step("out/engine/a")
        (builds.root / "out").rename(tmp_path / "moved")
        (builds.root / "out").symlink_to(tmp_path / "moved")
        with pytest.raises(WorkspaceError, match=r"'\./out/engine' now leads to .*/moved/engine"):
            builds.empty("out/engine")
        assert (tmp_path / "moved/engine/a").exists()

    def test_a_lost_or_broken_record_makes_every_file_the_users(self, builds: Builds) -> None:
        record = builds.workspace.state / "made.json"
        for text in (None, "", "[]", '{"files": []}', '{"files": {"out/a": 7}}', "\0"):
            builds.step("out/a")
            record.unlink() if text is None else record.write_text(text)
            builds.refuses_to_empty("out", "out/a", spoilt=text is not None)
            record.unlink(missing_ok=True)
            shutil.rmtree(builds.root / "out")

    def test_a_forged_record_reaches_nothing_outside(self, builds: Builds, tmp_path: Path) -> None:
        precious = tmp_path / "precious/file"
        precious.parent.mkdir()
        precious.write_text("mine")
        status = precious.stat()
        name = "out/../../precious/file"
        record = {
            "files": {name: [status.st_size, status.st_mtime_ns, "build"]},
            "directories": ["out/../../precious"],
            "found": {"build": "out/../../precious"},
        }
        (builds.root / "out").mkdir()
        (builds.workspace.state / "made.json").write_text(json.dumps(record))
        builds.ledger.empty_found("build", [builds.root / "out"], [])
        builds.ledger.remove([name])
        builds.empty("out")
        assert precious.read_text() == "mine"

    def test_many_foreign_files_are_not_all_listed(self, builds: Builds) -> None:
        builds.write(*[f"out/{number}" for number in range(9)])
        builds.refuses_to_empty("out", "out/0, out/1, out/2 and 6 more")


class TestAKilledBuild:
    def age(self, builds: Builds, *names: str, seconds: float) -> None:
        """Moves the last sign of life, as if these files had been written after it."""
        when = time.time() - seconds
        os.utime(builds.workspace.state / "running", (when, when))

    def test_what_it_left_counts_as_made(self, builds: Builds) -> None:
        builds.step("out/old")
        builds.write("notes.txt")
        builds.step("out/old", "out/new", "deep/est/file", text="half", killed=True)
        assert builds.ledger.recover() == ("deep/est/file", "out/new", "out/old")
        builds.empty("out")
        builds.empty("deep")
        assert builds.there() == {"notes.txt"}
        assert builds.directories() == set()

    def test_what_was_there_before_it_stays_the_users(self, builds: Builds) -> None:
        builds.write("out/mine")
        builds.step("out/mine", "out/new", killed=True)
        assert builds.ledger.recover() == ("out/new",)
        builds.refuses_to_empty("out", "out/mine")

    def test_what_was_written_after_its_last_sign_of_life_is_the_users(self, builds: Builds) -> None:
        builds.step(killed=True)
        self.age(builds, seconds=60)
        builds.write("out/by/hand")
        assert builds.ledger.recover() == ()
        builds.refuses_to_empty("out", "out/by/hand")
        (builds.root / "out/by/hand").unlink()
        builds.empty("out")
        assert builds.directories() == {"out", "out/by"}

    def test_without_any_sign_of_life_nothing_is_taken(self, builds: Builds) -> None:
        builds.step("out/a", killed=True)
        (builds.workspace.state / "running").unlink()
        assert builds.ledger.recover() == ()
        builds.refuses_to_empty("out", "out/a")

    def test_of_a_step_that_writes_elsewhere_only_what_was_being_placed_counts(self, builds: Builds) -> None:
        before = builds.workspace.files()
        builds.ledger.begin("build", before, lands=True)
        builds.write("out/mine")
        assert Ledger(builds.workspace).recover() == ()
        builds.ledger.begin("build", builds.workspace.files(), lands=True)
        builds.ledger.land(["out/new", "out/never"])
        builds.write("out/new", "out/mine too")
        assert builds.ledger.recover() == ("out/new",)
        builds.refuses_to_empty("out", "out/mine")

    def test_it_is_recovered_once(self, builds: Builds) -> None:
        builds.step("out/a", killed=True)
        assert builds.ledger.recover() == ("out/a",)
        assert builds.ledger.recover() == ()
        builds.write("out/b")
        assert builds.ledger.recover() == ()
        builds.refuses_to_empty("out", "out/b")

    def test_a_config_can_be_planned_before_it_is_recovered(self, builds: Builds) -> None:
        builds.step("out/a", killed=True)
        builds.ledger.refuse_foreign(builds.root / "out", "./out")
        builds.write("other/b")
        self.age(builds, seconds=60)
        with pytest.raises(WorkspaceError, match="other/b"):
            builds.ledger.refuse_foreign(builds.root / "other", "./other")

    def test_what_a_step_wrote_while_it_was_ended_counts_too(self, builds: Builds) -> None:
        builds.step("out/.half", killed=True)
        self.age(builds, seconds=60)
        assert builds.ledger.recover() == ()
        builds.step("out/.other", killed=True)
        self.age(builds, seconds=60)
        with builds.workspace.step_lock() as held:
            os.utime(held)  # as the supervisor does, once the last process has ended
        assert builds.ledger.recover() == ("out/.other",)

    def test_after_a_finished_step_there_is_nothing_to_recover(self, builds: Builds) -> None:
        builds.step("out/a")
        builds.write("out/b")
        assert builds.ledger.recover() == ()

    def test_a_link_planted_at_the_sign_of_life_is_not_followed(self, builds: Builds, tmp_path: Path) -> None:
        precious = tmp_path / "precious"
        precious.write_text("mine")
        os.utime(precious, (1, 1))
        builds.step(killed=True)
        (builds.workspace.state / "running").unlink()
        (builds.workspace.state / "running").symlink_to(precious)
        builds.ledger.heartbeat()
        builds.step("out/a", killed=True)
        builds.ledger.heartbeat()
        assert precious.stat().st_mtime == 1
        assert builds.ledger.recover() == ("out/a",)


class TestFoundDirectories:
    def test_the_same_step_clears_what_it_left_where_it_writes_again(self, builds: Builds) -> None:
        builds.step("c-model/1-gpu/a", step="convert_to_ft")
        builds.ledger.found("convert_to_ft", builds.root / "c-model/1-gpu")
        builds.ledger.empty_found("build", [builds.root / "c-model"], [])
        assert builds.there() == {"c-model/1-gpu/a"}
        builds.ledger.empty_found("convert_to_ft", [builds.root / "other"], [])
        assert builds.there() == {"c-model/1-gpu/a"}
        builds.ledger.empty_found("convert_to_ft", [builds.root / "c-model"], [])
        assert builds.there() == set()

    @pytest.mark.parametrize("kept", ["out", "out/shared", "out/shared/deeper"])
    def test_results_of_this_builds_earlier_steps_are_kept(self, builds: Builds, kept: str) -> None:
        builds.step("out/shared/a")
        builds.ledger.found("build", builds.root / "out/shared")
        builds.ledger.empty_found("build", [builds.root / "out"], [builds.root / kept])
        assert builds.there() == {"out/shared/a"}

    def test_files_of_the_user_stay_there(self, builds: Builds) -> None:
        builds.step("out/a")
        builds.ledger.found("build", builds.root / "out")
        builds.write("out/notes.txt")
        builds.ledger.empty_found("build", [builds.root / "out"], [])
        assert builds.there() == {"out/notes.txt"}

    def test_a_directory_that_became_a_link_is_left_alone(self, builds: Builds, tmp_path: Path) -> None:
        builds.step("out/a")
        builds.ledger.found("build", builds.root / "out")
        (builds.root / "out").rename(tmp_path / "moved")
        (builds.root / "out").symlink_to(tmp_path / "moved")
        builds.ledger.empty_found("build", [builds.root / "out"], [])
        assert (tmp_path / "moved/a").exists()

    def test_older_files_of_builds_are_dropped_from_a_result(self, builds: Builds) -> None:
        builds.step("out/rank0", "out/rank1", "out/deep/old")
        before = builds.workspace.files()
        builds.write("out/rank0", text="newer")
        made = results.changed(before, builds.workspace.files())
        builds.ledger.drop_stale("build", builds.root / "out", made)
        assert builds.there() == {"out/rank0"}
        assert builds.directories() == {"out"}

    def test_older_files_of_others_fail_the_step(self, builds: Builds) -> None:
        builds.write("out/rank1")
        before = builds.workspace.files()
        builds.write("out/rank0")
        made = results.changed(before, builds.workspace.files())
        with pytest.raises(StepOutputError, match=r"wrote to ./out, which also holds .*\(out/rank1\)"):
            builds.ledger.drop_stale("build", builds.root / "out", made)
        assert builds.there() == {"out/rank0", "out/rank1"}


_NAMES = st.sampled_from(["out/a", "out/b", "out/sub/c", "out/sub/d", "other/e", "top"])
_ACTIONS = st.tuples(st.sampled_from(["user", "step", "killed", "recover", "empty", "delete"]), _NAMES)


@settings(max_examples=60)
@given(actions=st.lists(_ACTIONS, max_size=12))
def test_whatever_happens_no_text_of_the_user_is_lost(tmp_path: Path, actions: list[tuple[str, str]]) -> None:
    """A user's file may be overwritten by a step, as by any program, but is never removed."""
    root = tmp_path / "w"
    shutil.rmtree(root, ignore_errors=True)
    builds = Builds(Workspace.at(root))
    users: set[str] = set()
    for number, (action, name) in enumerate(actions):
        if action == "user":
            # Long after any build that was killed: its last moments cannot be told from a user's.
            if (builds.workspace.state / "running").exists():
                os.utime(builds.workspace.state / "running", (1, 1))
            builds.write(name, text=f"mine {number}")
            users.add(name)
        elif action == "delete":
            (root / name).unlink(missing_ok=True)
            users.discard(name)
        elif action == "step":
            builds.step(name, text=f"built {number}")
        elif action == "killed":
            builds.step(name, text=f"half {number}", killed=True)
        elif action == "recover":
            builds.ledger.recover()
        else:
            try:
                builds.empty("out")
            except WorkspaceError:
                pass
            else:
                assert not any(there.startswith("out/") for there in builds.there())
        assert users <= builds.there()
