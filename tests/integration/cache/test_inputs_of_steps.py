"""What the cache once overlooked, and what it cannot tell."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cache.worlds import MODEL_ID, SCRIPT, Pair, Recipe, Step, remove, write
from trt_llm_pipeline.cache import hashes
from trt_llm_pipeline.errors import ContentChanged

MODEL = f"models/{MODEL_ID}"


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(hashes, "_SETTLED_NS", 30_000_000)
    return Pair(tmp_path)


def engine(text: str, *reads: str, out: str = "./engine", beside: str | None = None) -> Recipe:
    return Recipe(Step(out, text, reads, beside))


class TestInputsOfBuilds:
    """An input counts, whoever made it."""

    def test_result_of_another_config(self, pair: Pair) -> None:
        def draft(text: str) -> Recipe:
            return engine(text, out="./draft")

        with_draft = engine("x", "./draft/rank0.engine")
        pair.build(draft("one"))
        assert pair.build(with_draft) == ["build"]
        assert pair.build(with_draft) == []
        pair.build(draft("two"))
        assert pair.build(with_draft) == ["build"]

    def test_result_of_another_config_whose_archive_is_used_again(self, pair: Pair) -> None:
        """The directory then holds what the archive holds, not what was built there last."""
        drafts = [engine(text, out="./draft") for text in ("one", "two")]
        pair.build(drafts[0])
        pair.build(drafts[1])
        assert pair.build(drafts[0]) == []
        assert (pair.cached.root / "draft/rank0.engine").read_text() == "one\n"
        pair.build(engine("x", "./draft"))

    def test_what_a_step_writes_beside_its_results(self, pair: Pair) -> None:
        """A timing cache: it is an input of the next build and comes back with the results."""
        recipe = engine("x", "./beside", beside="./beside")
        pair.build(recipe)
        assert pair.build(recipe) == ["build"]
        pair.each(lambda root: remove(root / "beside"))
        assert pair.build(recipe) == []
        assert (pair.cached.root / "beside").is_file()

    def test_what_an_earlier_step_writes_beside_its_results(self, pair: Pair) -> None:
        recipe = Recipe(Step("./engine", "x", ("./beside", "./ckpt")), Step("./ckpt", "x", (), "./beside"))
        pair.build(recipe)
        pair.each(lambda root: remove(root / "beside"))
        pair.build(recipe)
        pair.each(lambda root: remove(root / "engine"))
        pair.build(recipe)

    def test_users_file_in_its_place_is_not_replaced(self, pair: Pair) -> None:
        recipe = engine("x", beside="./beside")
        pair.build(recipe)
        pair.each(lambda root: write(root / "beside", "mine\n"))
        assert pair.build(recipe) == ["build"]  # what a script does with the user's file is between the two
        assert (pair.cached.root / "beside").read_text().startswith("mine\n")


class TestModel:
    def test_file_that_the_user_adds_is_in_the_archive(self, pair: Pair) -> None:
        recipe = engine("x")
        pair.build(recipe)
        pair.each(lambda root: write(root / MODEL / "chat_template.jinja", "{{ messages }}"))
        pair.build(recipe)
        assert pair.cached.build(recipe)["chat_template.jinja"] == b"{{ messages }}"
        pair.each(lambda root: remove(root / MODEL / "chat_template.jinja"))
        assert pair.build(recipe) == []
        assert "chat_template.jinja" not in pair.cached.build(recipe)

    @pytest.mark.parametrize("name", ["weights.bin", "tokenizer.json"])
    def test_content_decides_where_size_and_times_are_kept(self, pair: Pair, name: str) -> None:
        recipe = engine("x", "${model_dir}")
        pair.each(lambda root: write(root / MODEL / name, "[1]"))
        time.sleep(0.05)
        pair.build(recipe)
        pair.build(recipe)
        pair.each(lambda root: write(root / MODEL / name, "[2]", keep_times=True))
        pair.build(recipe)
        assert "[2]" in pair.cached.build(recipe)["rank0.engine"].decode()

    def test_step_that_changes_the_model_is_not_cached(self, pair: Pair) -> None:
        pair.script.write_text(SCRIPT + f"\nprintf z >> {MODEL}/weights.bin\n")
        recipe = engine("x", "${model_dir}")
        for _ in range(3):
            assert pair.build(recipe) == ["build"]
        assert any("changed while it ran" in line for line in pair.cached.log.lines)


class TestWhileItRuns:
    def test_input_that_changes_meanwhile_is_not_taken_for_what_it_was(self, pair: Pair) -> None:
        """Otherwise the result for the new content would be used for the old one."""
        recipe = engine("x", "./notes/a")
        pair.script.write_text("printf new > notes/a\n" + SCRIPT)
        pair.build(recipe)
        assert any("a file that its arguments name changed" in line for line in pair.cached.log.lines)
        pair.each(lambda root: write(root / "notes/a", "a"))
        assert pair.build(recipe) == ["build"]

    def test_step_that_removes_files_is_not_cached(self, pair: Pair) -> None:
        pair.script.write_text(SCRIPT + "rm -f notes/b\n")
        recipe = engine("x")
        for _ in range(2):
            pair.each(lambda root: write(root / "notes/b", "b"))
            assert pair.build(recipe) == ["build"]
        assert any("removed files that it had not made" in line for line in pair.cached.log.lines)

    def test_memo_that_was_deceived_is_found_out_when_the_file_is_packed(self, pair: Pair) -> None:
        """The reading that packs a file checks it, and the next build looks at everything anew."""
        recipe, world = engine("x"), pair.cached
        path = world.root / MODEL / "tokenizer.json"
        time.sleep(0.05)
        world.build(recipe)
        memo = world.root / ".trt-llm-pipeline" / "hashes.json"
        text = memo.read_text()
        right = hashes.FileHashes().of(path)
        assert right in text
        memo.write_text(text.replace(right, "0" * 64))
        assert str(world.build(recipe)).startswith(ContentChanged.__name__)
        assert isinstance(world.build(recipe), dict)

    def test_what_was_found_out_is_told_although_forgetting_fails(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_self: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        recipe, world = engine("x"), pair.cached
        path = world.root / MODEL / "tokenizer.json"
        time.sleep(0.05)
        world.build(recipe)
        memo = world.root / ".trt-llm-pipeline" / "hashes.json"
        memo.write_text(memo.read_text().replace(hashes.FileHashes().of(path), "0" * 64))
        monkeypatch.setattr(hashes.FileHashes, "forget", full)
        assert str(world.build(recipe)).startswith(ContentChanged.__name__)


class TestNotHashable:
    """A build does not hang on what it cannot read; the step is just not cached."""

    @pytest.fixture(autouse=True)
    def alarm(self) -> Iterator[None]:
        def ring(*_: object) -> None:
            raise TimeoutError("the build hangs")

        previous = signal.signal(signal.SIGALRM, ring)
        signal.alarm(120)
        yield
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)

    @pytest.mark.parametrize(
        "place",
        [
            "/proc/kmsg",
            "./fifo",
            *(
                pytest.param(place, marks=pytest.mark.slow)
                for place in ("/dev/zero", "./pipes", "..", "/proc/self/stat")
            ),
        ],
    )
    def test_build_goes_on_and_says_why(self, pair: Pair, place: str) -> None:
        """The script is only told the name: it has it in `--text`."""
        for world in (pair.cached, pair.plain):
            (world.root / "pipes").mkdir()
            os.mkfifo(world.root / "fifo")
            os.mkfifo(world.root / "pipes" / "fifo")
        recipe = engine(place)
        for _ in range(2):
            assert pair.build(recipe) == ["build"]
        (said,) = [line for line in pair.cached.log.lines if "are not cached, because" in line]
        assert said.startswith("step build: its results are not cached, because it")

    def test_step_after_one_that_is_not_cached_still_is(self, pair: Pair) -> None:
        """The files of the uncached step count by their content."""
        os.mkfifo(pair.cached.root / "fifo")
        os.mkfifo(pair.plain.root / "fifo")
        recipe = Recipe(Step("./engine", "x", ("./ckpt",)), Step("./ckpt", "./fifo"))
        pair.build(recipe)
        assert pair.build(recipe) == ["convert_to_ft"]
        pair.script.write_text(SCRIPT.replace('echo "$argument"', 'echo "$argument" again'))
        assert pair.build(recipe) == ["convert_to_ft", "build"]

    def test_hashing_can_be_cancelled(self, pair: Pair) -> None:
        """A large input is announced, read in pieces, and an exception arrives between two of them."""
        world = pair.cached
        with (world.root / "large").open("wb") as file:
            file.truncate(200_000_000_000)  # sparse: at the speed of memory it takes a minute or more

        class Cancelled(BaseException):
            pass

        def cancel(*_: object) -> None:
            raise Cancelled

        previous = signal.signal(signal.SIGUSR1, cancel)
        try:

            def when_announced() -> None:
                while not any("reading" in line for line in world.log.lines):
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGUSR1)

            threading.Thread(target=when_announced, daemon=True).start()
            with pytest.raises(Cancelled):
                world.build(engine("./large"))
        finally:
            signal.signal(signal.SIGUSR1, previous)
        assert any("large (200.0 GB) to tell whether it has changed" in line for line in world.log.lines)
