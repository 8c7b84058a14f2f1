"""The picture of a build's report: a real build of a model with GPT-2's size, its page in a real browser.

The model is made on the spot, so that no picture depends on the network; the times are those of the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trt_llm_pipeline import pipeline
from trt_llm_pipeline.observer import Lines
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.report import render
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ROOT / "cpu_toolchain"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MODEL_ID = "example/gpt2"
CONFIG = f"""\
model_id: {MODEL_ID}
example_name: gpt
cache: false
convert_checkpoint:
  script: convert_checkpoint.py
  output_dir: ./checkpoint
  args: {{model_dir: "${{model_dir}}", output_dir: ./checkpoint, dtype: float16}}
build:
  executable: trtllm-build
  output_dir: ./engine
  args: {{checkpoint_dir: ./checkpoint, output_dir: ./engine, max_batch_size: 8}}
"""
WIDTH, HEIGHT = 1200, 910


def main(target: Path) -> None:
    """Writes the picture."""
    with tempfile.TemporaryDirectory(prefix="report-picture-") as scratch:
        record = build(Path(scratch))
        page = Path(scratch) / "report.html"
        page.write_text(render(record))
        photograph(page, target)
    sys.stdout.write(f"{target}: {target.stat().st_size:,} bytes\n")


def build(scratch: Path) -> dict[str, Any]:
    """Builds twice, so that there is something to compare with; the record, with paths as in the image."""
    made = models.make_gpt2(scratch / "hub" / MODEL_ID, layers=12, heads=12, hidden=768)
    workspace = scratch / "workspace"
    with HubServer(made.folder.parents[1]) as hub:
        settings = Settings.from_env(
            {
                "HF_ENDPOINT": hub.url,
                "TRTLLM_DIR": str(TOOLCHAIN),
                "TRT_LLM_WORKSPACE": str(workspace),
                "PATH": os.defpath,
            }
        )
        log = Lines(lambda line: print(line, file=sys.stderr))
        for _ in range(2):
            result = pipeline.build(validate(CONFIG, "config.yaml", settings), settings, log)
    text = result.record_path.read_text()
    places = {workspace: "/src", TOOLCHAIN: "/app/tensorrt_llm", Path(sys.executable): "python"}
    for path, shown in places.items():
        text = text.replace(str(path), shown)
    return dict(json.loads(text))


def photograph(page: Path, target: Path) -> None:
    """Opens a page in a headless browser, and keeps what its window shows."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("there is no Chromium on PATH; script/browser installs one")
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars --blink-settings=preferredColorScheme=1"
    )
    argv = [browser, *quiet.split(), f"--user-data-dir={page.parent / 'profile'}"]
    argv += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={target.resolve()}", page.as_uri()]
    subprocess.run(argv, check=True, timeout=120, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
