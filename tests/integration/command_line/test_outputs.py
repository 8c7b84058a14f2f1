"""Where the command line prints: streams that are closed or full, and texts that would drive a terminal."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.conftest import ROOT
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.cli.edge import failures, print_json
from trt_llm_pipeline.errors import ArtifactError
from trt_llm_pipeline.printable import printable_lines
from trt_llm_pipeline.terminal import PlainTerminal

COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")
HOSTILE = "m/\x1b]0;pwned\x07\x1b[31mfifo"
SHOWN = "m/\\x1b]0;pwned\\x07\\x1b[31mfifo"


def shell(words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with these words of a shell; its folder has a config with a mistake."""
    (folder / "c.yaml").write_text("model_id: a\n")
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{COMMAND}" {words}'],
        cwd=folder,
        env={**os.environ, "TRT_LLM_WORKSPACE": str(folder / "ws"), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


class TestStreams:
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize(
        "words",
        [
            "validate c.yaml --json",
            *(pytest.param(words, marks=pytest.mark.slow) for words in ("schema", "--help", "build --json")),
        ],
    )
    def test_a_full_disk_at_standard_output(self, words: str, unbuffered: str, tmp_path: Path) -> None:
        done = shell(f"{words} > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == 1
        assert "error: standard output cannot be written: No space left on device; send it" in done.stderr
        assert "who owns it" not in done.stderr

    def test_a_full_disk_at_standard_error(self, tmp_path: Path) -> None:
        assert shell("validate c.yaml 2> /dev/full", tmp_path).returncode == 1

    @pytest.mark.parametrize("words", ["validate - <&-", "build - <&-"])
    def test_no_standard_input(self, words: str, tmp_path: Path) -> None:
        done = shell(words, tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: standard input cannot be read: it is closed; ")

    @pytest.mark.slow
    def test_no_standard_output_and_no_standard_error(self, tmp_path: Path) -> None:
        assert shell("schema >&-", tmp_path).returncode == 0
        assert shell("validate c.yaml 2>&-", tmp_path).returncode == 2
        assert json.loads(shell("validate c.yaml --json 2>&-", tmp_path).stdout)["kind"] == "config"

    def test_a_reader_that_has_had_enough(self, tmp_path: Path) -> None:
        assert shell("schema | true", tmp_path).returncode in (0, 141)


class TestTexts:
    def test_an_error_that_names_a_hostile_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(typer.Exit), failures(False):
            raise ArtifactError(f"{HOSTILE} is a FIFO;\nremove it")
        assert capsys.readouterr().err == f"error: {SHOWN} is a FIFO;\nremove it\n"

    def test_letters_of_every_script_stay_and_what_turns_a_line_around_does_not(self) -> None:
        kept = "caf\u00e9\u00a0\u3000\u4f60\t\U0001f468\u200d\U0001f469\n"
        assert printable_lines(kept) == kept
        assert printable_lines("a\u202eb\u2028\r\udcff") == r"a\u202eb\u2028\r\udcff"

    def test_plain_lines_of_a_build(self) -> None:
        PlainTerminal(stream := io.StringIO()).log(HOSTILE)
        assert stream.getvalue() == f"{SHOWN}\n"

    @pytest.mark.parametrize(
        "words", [["inspect"], ["builds", "show"], ["validate"], ["no-such"], ["plan", "--gpu"]]
    )
    def test_words_of_the_command_line(self, words: list[str]) -> None:
        for more in ([HOSTILE], ["c.yaml", f"--{HOSTILE}"]):
            done = CliRunner().invoke(app, [*words, *more])
            assert done.exit_code != 0
            assert not set("\x1b\x07") & set(done.output)

    def test_lines_stay_lines(self, tmp_path: Path) -> None:
        said = shell("validate c.yaml", tmp_path).stderr.splitlines()
        assert [line.partition(":")[0] for line in said] == ["error", "c.yaml", "c.yaml"]

    def test_nothing_is_printed_but_by_one_function(self) -> None:
        for path in sorted((ROOT / "trt_llm_pipeline" / "cli").glob("*.py")):
            found = re.findall(r"typer\.echo\(|\bprint\(|std(?:out|err)\.write", path.read_text())
            assert len(found) == (2 if path.name == "edge.py" else 0), path  # `say` and `print_json`

    def test_json_stays_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_json({"a": [float("nan"), 1.5, HOSTILE], "b": (float("inf"),)})
        assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5, HOSTILE], "b": [None]}

    def test_a_secret_of_the_environment_in_an_error(self, tmp_path: Path) -> None:
        for option in ("", "--json"):
            done = shell(f"validate c.yaml {option}", tmp_path, HF_ENDPOINT="ftp://bob:Sup3rSecret@x")
            assert "Sup3rSecret" not in done.stdout + done.stderr


class TestCtrlC:
    PROGRAM = """
import builtins, os, signal, sys
sys.argv = ["trt-llm-pipeline", "schema"]
real = builtins.__import__
def slow(name, *rest):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__ = slow
from trt_llm_pipeline.cli import main
main()
"""

    @pytest.mark.parametrize("module", ["typer", "trt_llm_pipeline.cli.fleet"])
    def test_while_modules_are_imported(self, module: str, tmp_path: Path) -> None:
        program = self.PROGRAM.format(module=module)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 130
        assert "Traceback" not in done.stderr

    def test_within_a_command(self) -> None:
        program = self.PROGRAM.format(module="trt_llm_pipeline.config.schema")
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stderr) == (130, "interrupted\n")

    def test_a_job_in_the_background_ignores_it(self) -> None:
        program = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)" + self.PROGRAM.format(
            module="typer"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0
