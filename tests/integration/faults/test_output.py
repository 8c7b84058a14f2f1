"""What a step prints, of any kind and amount: shown at once, and kept out of memory."""

from __future__ import annotations

import itertools
import re
from datetime import datetime
from pathlib import Path

import pytest

from tests.integration.house import House, Watch
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

GROWN_LIMIT = 45_000_000
LOADED_LIMIT = 100_000_000  # with what a new server and its worker load at their first build
SHOWN_LIMIT = 5_000_000  # characters of one step's output that reach the prediction's log


@pytest.fixture(scope="module")
def server(house: House, server: CogServer) -> CogServer:
    """One that has built once."""
    assert server.predict(config=house.config())["status"] == "succeeded"
    return server


def step_log(house: House) -> Path:
    return max(house.workspace.glob("builds/*/logs/build.log"), key=lambda path: path.stat().st_mtime_ns)


class TestStreaming:
    """Output is shown while the step runs."""

    def test_each_line_is_shown_before_the_next_one_is_printed(self, house: House, server: CogServer) -> None:
        seen = len(server.output())
        config = house.config("prints.py", "kind: with_pauses")
        assert server.predict(config=config)["status"] == "succeeded"
        line = r'"timestamp":"([^"Z]+)Z".*"message":"(tick \d|a question[^"]*|the last words)"'
        shown = re.findall(line, server.output()[seen:])
        assert [text for _, text in shown] == [
            "tick 0",
            "tick 1",
            "a question without an end?",
            "the last words",
        ]
        times = [datetime.fromisoformat(at) for at, _ in shown]
        # They are printed two seconds apart.
        assert all((later - sooner).total_seconds() > 0.5 for sooner, later in itertools.pairwise(times))


class TestKinds:
    """Output that is not made of lines for people."""

    def test_progress_bar_shows_at_most_one_state_in_two_seconds(
        self, house: House, server: CogServer
    ) -> None:
        prediction = server.predict(config=house.config("prints.py", "kind: bars"))
        assert prediction["status"] == "succeeded", prediction["error"]
        states = [line for line in prediction["logs"].splitlines() if line.startswith("loading:")]
        assert 2 <= len(states) <= 4
        assert states[-1].startswith("loading: 100%")
        assert "the last words" in prediction["logs"]

    def test_invalid_utf8_is_replaced_and_what_is_valid_is_kept(
        self, house: House, server: CogServer
    ) -> None:
        prediction = server.predict(config=house.config("prints.py", "kind: garbage\nmegabytes: 3"))
        assert prediction["status"] == "succeeded", prediction["error"]
        assert "caf\ufffd \ufffd\ufffd \ufffd end" in prediction["logs"]
        assert "\U0001f600 whole after all" in prediction["logs"]

    @pytest.mark.parametrize("kind", ["megabyte_lines", "endless_line"])
    def test_huge_lines_are_cut_and_say_so(self, house: House, server: CogServer, kind: str) -> None:
        with Watch(server).watching() as watch:
            prediction = server.predict(config=house.config("prints.py", f"kind: {kind}\nmegabytes: 40"))
        assert prediction["status"] == "succeeded", prediction["error"]
        lines = prediction["logs"].splitlines()
        assert max(map(len, lines)) < 9000
        assert any(re.search(r"\[\.\.\. \d+ more characters\]$", line) for line in lines)
        if kind == "megabyte_lines":
            assert lines.count("the last words") == 1
        assert watch.grown < GROWN_LIMIT


class TestAmount:
    """A log that is larger than memory should be."""

    @pytest.mark.slow
    @pytest.mark.parametrize("megabytes", [150, 1000])
    def test_log_of_any_size_leaves_memory_alone(
        self, hub: HubServer, tmp_path: Path, megabytes: int
    ) -> None:
        house = House(hub, tmp_path)
        with house.server() as server:
            with Watch(server).watching() as watch:
                config = house.config("prints.py", f"kind: lines\nmegabytes: {megabytes}")
                prediction = server.predict(config=config, timeout=280)
            assert prediction["status"] == "succeeded", prediction["error"]
            assert len(prediction["logs"]) < SHOWN_LIMIT
            assert "more than 4.2 MB of output; the rest goes to" in prediction["logs"]
            assert "the last words" in prediction["logs"].splitlines()
            assert watch.grown < LOADED_LIMIT
        kept = step_log(house)
        assert min(megabytes, 256) << 20 <= kept.stat().st_size <= 1.1 * (min(megabytes, 256) << 20)
        if megabytes > 256:
            assert kept.read_text().endswith("[the rest of the output is not kept]\n")
