"""A step's view of the workspace: what is in it, and where the step's files go when it has ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import WorkspaceError
from trt_llm_pipeline.step.view import Seen, View, lay_out, remove_view
from trt_llm_pipeline.workspace import Workspace


class House:
    """A workspace with files of a user's and of builds, and views of it."""

    def __init__(self, workspace: Workspace) -> None:
        workspace.prepare()
        self.workspace = workspace
        self.root = workspace.root
        self.ours: set[str] = set()
        self.model = workspace.models / "owner" / "model"
        self.model.mkdir(parents=True)
        (self.model / "config.json").write_text("{}")
        (workspace.models / "other").mkdir()

    def write(self, *names: str, ours: bool = False) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("ours" if ours else "user's")
            if ours:
                self.ours.add(name)

    def view(self, *named: str, kept: tuple[str, ...] = ()) -> View:
        seen = Seen(
            before=self.workspace.files(),
            ours=self.ours,
            kept=[self.root / name for name in kept],
            named=[self.root / name for name in named],
            model_dir=self.model,
        )
        return lay_out(self.workspace, seen)

    def names(self, view: View) -> set[str]:
        """What can be reached in a view, links followed."""
        return {
            str(Path(folder, name).relative_to(view.root))
            for folder, _, files in os.walk(view.root, followlinks=True)
            for name in files
        }


@pytest.fixture
def house(workspace: Workspace) -> House:
    return House(workspace)


class TestWhatIsSeen:
    def test_the_users_files_and_the_model_are(self, house: House) -> None:
        house.write("notes.txt", "data/calibration/a.json")
        view = house.view()
        assert house.names(view) == {"notes.txt", "data/calibration/a.json", "models/owner/model/config.json"}
        assert set(view.readable) == {house.root / "notes.txt", house.root / "data"}

    def test_what_earlier_builds_made_is_not(self, house: House) -> None:
        house.write("mixed/mine", "data/x")
        house.write("mixed/old", "engine/rank0.engine", "model.cache", "engine.tar.gz", ours=True)
        house.write("builds/1/build.json")
        view = house.view()
        assert house.names(view) == {"mixed/mine", "data/x", "models/owner/model/config.json"}
        assert house.root / "mixed" not in view.readable

    def test_the_results_of_this_builds_earlier_steps_are(self, house: House) -> None:
        house.write("ft/gpt2/weights", "ft/other/weights", ours=True)
        view = house.view("ft/gpt2", kept=("ft/gpt2",))
        assert house.names(view) == {"ft/gpt2/weights", "models/owner/model/config.json"}

    def test_a_link_of_the_users_gives_no_right_to_where_it_leads(self, house: House, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (house.root / "link").symlink_to(tmp_path / "elsewhere")
        view = house.view()
        assert (view.root / "link").is_symlink()
        assert view.readable == []

    def test_folders_of_a_named_folder_are_folders(self, house: House) -> None:
        house.write("data/sub/deep/a", "data/sub/mixed/b", "data/c")
        house.write("data/sub/mixed/old", ours=True)
        view = house.view("data")
        found = {str(path.relative_to(view.root)) for path in (view.root / "data").rglob("*")}
        assert found == {
            "data/c",
            *(f"data/sub{name}" for name in ("", "/deep", "/deep/a", "/mixed", "/mixed/b")),
        }
        assert house.root / "data" / "sub" / "mixed" not in view.readable
        assert house.root / "data" / "sub" / "deep" in view.readable


class TestArguments:
    def test_paths_in_the_workspace_lead_into_the_view(self, house: House) -> None:
        view = house.view()
        root, work = str(house.root), str(view.root)
        given = [f"{root}/out", f"--out={root}/a/b", root, "./out", "--x", f"{root}x", f"text {root}/out"]
        expected = [f"{work}/out", f"--out={work}/a/b", work, "./out", "--x", f"{root}x", f"text {root}/out"]
        assert view.arguments(given) == expected

    def test_paths_to_the_service_stay(self, house: House) -> None:
        view = house.view()
        given = [str(house.model), f"{house.root}/builds/1", f"{house.root}/../x"]
        assert view.arguments(given) == given

    def test_paths_beside_the_workspace_stay_what_they_were(self, house: House) -> None:
        (house.root.parent / "beside").mkdir()
        assert house.view().arguments(["../beside", "../nothing"]) == [
            f"{house.root.parent}/beside",
            "../nothing",
        ]


class TestSettling:
    def test_new_files_go_to_their_places(self, house: House) -> None:
        house.write("data/mine")
        view = house.view("data/new", "engine")
        for name in ("engine/rank0.engine", "data/new/x", "stray"):
            path = view.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("new")
        assert set(view.made()) == {"engine/rank0.engine", "data/new/x", "stray"}
        view.settle()
        assert not view.root.exists()
        for name in ("engine/rank0.engine", "data/new/x", "stray"):
            assert (house.root / name).read_text() == "new"
        assert (house.root / "data/mine").read_text() == "user's"

    def test_what_builds_made_is_replaced(self, house: House) -> None:
        house.write("engine/rank0.engine", "model.cache", ours=True)
        view = house.view("engine")
        (view.root / "model.cache").write_text("new")
        (view.root / "engine/rank0.engine").write_text("new")
        view.settle()
        assert (house.root / "model.cache").read_text() == "new"
        assert (house.root / "engine/rank0.engine").read_text() == "new"

    @pytest.mark.parametrize("name", ["notes.txt", "data/mine", "data"])
    def test_what_is_the_users_is_not(self, house: House, name: str) -> None:
        house.write("notes.txt", "data/mine")
        view = house.view("data/x")
        target = view.root / name
        if target.is_dir():
            target.rename(view.root / "aside")
        else:
            target.unlink()
        target.write_text("new")
        (view.root / "good").write_text("new")
        with pytest.raises(WorkspaceError, match=rf"may write \({name}\)"):
            view.settle()
        assert (house.root / "notes.txt").read_text() == "user's"
        assert (house.root / "data/mine").read_text() == "user's"
        assert (house.root / "good").read_text() == "new"

    @pytest.mark.parametrize(
        "name",
        [
            "models/owner/planted",
            "models/planted",
            "builds/1",
            ".trt-llm-pipeline/made.json",
            "engine.tar.gz",
        ],
    )
    def test_nothing_goes_into_the_services_own_directories(self, house: House, name: str) -> None:
        view = house.view()
        path = view.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("new")
        with pytest.raises(WorkspaceError, match="no step may write"):
            view.settle()
        assert not (house.root / name).exists()

    def test_a_file_that_somebody_made_meanwhile_stays(self, house: House) -> None:
        view = house.view()
        (view.root / "late").write_text("new")
        house.write("late")
        with pytest.raises(WorkspaceError, match="late"):
            view.settle()
        assert (house.root / "late").read_text() == "user's"

    def test_removing_a_link_removes_nothing(self, house: House) -> None:
        house.write("notes.txt")
        view = house.view()
        (view.root / "notes.txt").unlink()
        view.settle()
        assert (house.root / "notes.txt").read_text() == "user's"

    def test_links_into_the_view_lead_into_the_workspace(self, house: House) -> None:
        view = house.view()
        (view.root / "engine").mkdir()
        (view.root / "engine/a").write_text("new")
        (view.root / "engine/b").symlink_to(view.root / "engine/a")
        (view.root / "engine/c").symlink_to("a")
        view.settle()
        assert (house.root / "engine/b").readlink() == house.root / "engine/a"
        assert (house.root / "engine/c").read_text() == "new"

    def test_set_user_id_is_taken_away(self, house: House) -> None:
        view = house.view()
        (view.root / "tool").write_text("x")
        (view.root / "tool").chmod(0o6755)
        view.settle()
        assert (house.root / "tool").stat().st_mode & 0o7777 == 0o755


class TestRemoving:
    def test_no_link_is_followed(self, house: House, tmp_path: Path) -> None:
        (tmp_path / "kept").write_text("x")
        house.workspace.work.symlink_to(tmp_path)
        remove_view(house.workspace)
        assert (tmp_path / "kept").exists()
        assert not house.workspace.work.is_symlink()

    def test_directories_that_may_not_be_read(self, house: House) -> None:
        view = house.view()
        (view.root / "a/b").mkdir(parents=True)
        (view.root / "a/b/c").write_text("x")
        (view.root / "a/b").chmod(0)
        (view.root / "a").chmod(0)
        view.remove()
        assert not view.root.exists()
