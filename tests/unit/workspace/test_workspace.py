"""The one directory that a build may write: what `/src` means, where output may go, and who holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trt_llm_pipeline.errors import WorkspaceError
from trt_llm_pipeline.workspace import FileMark, Workspace


class TestMap:
    @pytest.mark.parametrize(
        ("text", "tail"), [("/src", ""), ("/src/", "/"), ("/src/models/a/b", "/models/a/b")]
    )
    def test_src_at_the_beginning_is_the_workspace(self, workspace: Workspace, text: str, tail: str) -> None:
        assert workspace.map(text) == f"{workspace.root}{tail}"

    @pytest.mark.parametrize("text", ["", "src", "./src", "/srcs", "/srcs/x", "x/src/y", "/SRC", " /src"])
    def test_anything_else_stays(self, workspace: Workspace, text: str) -> None:
        assert workspace.map(text) == text


class TestPrepare:
    def test_nothing_is_made_before_it(self, workspace: Workspace) -> None:
        assert not workspace.root.exists()
        workspace.prepare()
        workspace.prepare()
        assert sorted(path.name for path in workspace.root.iterdir()) == [
            ".trt-llm-pipeline",
            "builds",
            "models",
        ]

    @pytest.mark.parametrize("name", ["models", "builds", ".trt-llm-pipeline"])
    def test_a_link_in_place_of_an_own_directory_is_refused(self, workspace: Workspace, name: str) -> None:
        elsewhere = workspace.root.parent / "elsewhere"
        elsewhere.mkdir()
        workspace.root.mkdir()
        (workspace.root / name).symlink_to(elsewhere)
        with pytest.raises(WorkspaceError, match=f"{name} is a link"):
            workspace.prepare()

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(WorkspaceError, match=r"file/workspace cannot be made: Not a directory; choose"):
            Workspace.at(tmp_path / "file" / "workspace").prepare()


class TestOutputDir:
    @pytest.mark.parametrize("text", ["out", "./out/", "a/../out", "{root}/out"])
    def test_is_inside_the_workspace_however_it_is_written(self, workspace: Workspace, text: str) -> None:
        assert workspace.output_dir(text.format(root=workspace.root)) == workspace.root / "out"

    @pytest.mark.parametrize("text", ["/", "..", "../workspace2", "a/../../x", "/etc", "/src/out"])
    def test_outside_is_refused(self, workspace: Workspace, text: str) -> None:
        with pytest.raises(WorkspaceError, match="outside the workspace"):
            workspace.output_dir(text)

    @pytest.mark.parametrize("text", ["", ".", "./", "a/..", "{root}"])
    def test_the_workspace_itself_is_refused(self, workspace: Workspace, text: str) -> None:
        with pytest.raises(WorkspaceError, match="is the workspace itself"):
            workspace.output_dir(text.format(root=workspace.root))

    @pytest.mark.parametrize("text", ["models", "models/a/b", "builds", "./builds/x", ".trt-llm-pipeline/x"])
    def test_the_services_own_directories_are_refused(self, workspace: Workspace, text: str) -> None:
        with pytest.raises(WorkspaceError, match="which the service keeps for itself"):
            workspace.output_dir(text)

    def test_a_link_that_leads_out_is_refused(self, workspace: Workspace, tmp_path: Path) -> None:
        workspace.root.mkdir()
        (workspace.root / "link").symlink_to(tmp_path)
        for text in ("link", "link/deeper", "link/workspace/../other"):
            with pytest.raises(WorkspaceError, match="outside the workspace"):
                workspace.output_dir(text)

    def test_a_link_to_an_own_directory_is_refused(self, workspace: Workspace) -> None:
        workspace.prepare()
        (workspace.root / "link").symlink_to("models")
        with pytest.raises(WorkspaceError, match="is in models/"):
            workspace.output_dir("link/x")

    def test_a_link_inside_is_followed(self, workspace: Workspace) -> None:
        (workspace.root / "real").mkdir(parents=True)
        (workspace.root / "link").symlink_to("real")
        assert workspace.output_dir("link/x") == workspace.root / "real" / "x"

    def test_a_circle_of_links_does_no_harm(self, workspace: Workspace) -> None:
        workspace.root.mkdir()
        (workspace.root / "a").symlink_to("b")
        (workspace.root / "b").symlink_to("a")
        assert workspace.output_dir("a").is_relative_to(workspace.root)

    def test_a_file_is_refused(self, workspace: Workspace) -> None:
        workspace.root.mkdir()
        (workspace.root / "out").write_text("mine")
        with pytest.raises(WorkspaceError, match="is a file"):
            workspace.output_dir("out")

    @pytest.mark.parametrize("text", ["x" * 300, "x\0y"])
    def test_a_name_that_no_directory_can_have_is_refused(self, workspace: Workspace, text: str) -> None:
        with pytest.raises(WorkspaceError, match="cannot be an output directory"):
            workspace.output_dir(text)

    def test_the_place_of_the_newest_archive_is_refused(self, workspace: Workspace) -> None:
        with pytest.raises(WorkspaceError, match="where the newest archive is put"):
            workspace.output_dir("./engine.tar.gz")
        assert workspace.output_dir("engine.tar.gz.d/engine.tar.gz").name == "engine.tar.gz"


class TestFiles:
    def test_links_are_files_and_are_never_followed(self, workspace: Workspace, tmp_path: Path) -> None:
        workspace.prepare()
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "secret").write_text("x")
        (workspace.root / "a" / "b").mkdir(parents=True)
        (workspace.root / "a" / "b" / "file").write_text("12345")
        (workspace.root / "a" / "link").symlink_to(tmp_path / "outside")
        (workspace.models / "weights").write_text("x")
        files = workspace.files()
        assert sorted(files) == ["a/b/file", "a/link"]
        status = (workspace.root / "a/b/file").stat()
        assert files["a/b/file"] == FileMark(5, status.st_mtime_ns)
        assert sorted(workspace.directories()) == ["a", "a/b"]
        assert sorted(workspace.files_in(workspace.root / "a/b")) == ["a/b/file"]

    def test_names_of_any_kind_are_found(self, workspace: Workspace) -> None:
        workspace.root.mkdir()
        for name in (b"\xff", "ü".encode(), b"line\nbreak"):
            Path(os.fsdecode(os.fsencode(workspace.root) + b"/" + name)).write_text("")
        assert set(map(os.fsencode, workspace.files())) == {b"\xff", "ü".encode(), b"line\nbreak"}


class TestLock:
    HOLD = """
        import sys, time
        from pathlib import Path
        from trt_llm_pipeline.workspace import Workspace
        workspace = Workspace.at(Path(sys.argv[1]))
        with workspace.lock("build 7 of a/b"):
            print("held", flush=True)
            time.sleep(60)
    """

    def hold(self, workspace: Workspace) -> subprocess.Popen[str]:
        program = "\n".join(line.removeprefix("        ") for line in self.HOLD.splitlines())
        holder = subprocess.Popen(
            [sys.executable, "-c", program, str(workspace.root)], stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return holder

    def test_a_second_build_is_refused_and_told_who_holds_it_until_the_holder_is_dead(
        self, workspace: Workspace
    ) -> None:
        workspace.prepare()
        with self.hold(workspace) as holder:
            try:
                with (
                    pytest.raises(WorkspaceError, match=rf"build 7 of a/b \(process {holder.pid}, since "),
                    workspace.lock("build 8"),
                ):
                    pass
            finally:
                holder.send_signal(signal.SIGKILL)
        with workspace.lock("build 8"):
            note = json.loads((workspace.state / "lock-holder.json").read_text())
            assert (note["holder"], note["pid"]) == ("build 8", os.getpid())

    def test_it_is_free_again_after_a_failed_build(self, workspace: Workspace) -> None:
        workspace.prepare()
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt), workspace.lock("build"):
                raise KeyboardInterrupt
        assert not (workspace.state / "lock-holder.json").exists()

    def test_two_builds_of_one_process_exclude_each_other(self, workspace: Workspace) -> None:
        workspace.prepare()
        with (
            workspace.lock("first"),
            pytest.raises(WorkspaceError, match=r"in use by first \(process"),
            workspace.lock("second"),
        ):
            pass

    def test_an_unreadable_note_still_says_that_it_is_in_use(self, workspace: Workspace) -> None:
        workspace.prepare()
        with workspace.lock("first"):
            for text in ("", "[]", '{"holder": "x", "pid": 1, "since": 1e300}', "\xff"):
                (workspace.state / "lock-holder.json").write_text(text, encoding="latin-1")
                with pytest.raises(WorkspaceError, match="in use by another build"), workspace.lock("second"):
                    pass

    def test_a_link_planted_at_the_lock_is_not_written_through(self, workspace: Workspace) -> None:
        workspace.prepare()
        precious = workspace.root.parent / "precious"
        precious.write_text("mine")
        (workspace.state / "lock").symlink_to(precious)
        with pytest.raises(WorkspaceError, match="cannot be locked"), workspace.lock("build"):
            pass
        assert precious.read_text() == "mine"
