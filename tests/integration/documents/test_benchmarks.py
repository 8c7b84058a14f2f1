"""Each benchmark runs, on as little as it takes: whether its limits hold is for an idle machine to say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trt_llm_pipeline.testing.servers import PROJECT_ROOT

SMALL = {
    "download": ["--only", "small", "--repeats", "1"],
    "end_to_end": ["--megabytes", "20", "--repeats", "1"],
    "fit": ["--repeats", "1"],
    "fleet": ["--cells", "50"],
    "pack_archive": ["--megabytes", "20", "--repeats", "1"],
    "processors": ["--megabytes", "1"],
    "server_memory": ["--megabytes", "20"],
    "startup": ["--repeats", "1"],
    "tar_source": ["--megabytes", "20", "--repeats", "1"],
}
NAMES = sorted(path.stem for path in (PROJECT_ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_prints_its_figures(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *SMALL.get(name, [])],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in (0, 1), done.stderr
    assert any(letter.isdigit() for letter in done.stdout), done.stderr
