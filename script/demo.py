"""The main job on loopback: a Hub, a config server and the prediction server, one request, one engine."""

from __future__ import annotations

import base64
import hashlib
import queue
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from trt_llm_pipeline.testing import models
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer, ConfigServer
from trt_llm_pipeline.testing.webhooks import WebhookReceiver

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ROOT / "cpu_toolchain"
CONFIG = "examples/gpt/config.yaml"
MODEL_ID = "sshleifer/tiny-gpt2"
BUILD_WITHIN_S = 300.0

say = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Runs the demo; 0 if the engine wrote the sentence that its model was made to write."""
    signal.signal(signal.SIGTERM, _interrupted)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trt-llm-demo-") as scratch:
        model = models.make_demo_gpt2(Path(scratch) / "hub" / MODEL_ID)
        prediction = build(Path(scratch))
        if prediction["status"] != "succeeded":
            say.print(f"\n[bold red]The build failed:[/] {prediction['error']}")
            return 1
        archive = Path(scratch) / "engine.tar.gz"
        archive.write_bytes(base64.b64decode(prediction["output"].partition(",")[2]))
        show(archive)
        engine = Path(scratch) / "engine"
        with tarfile.open(archive) as tar:
            tar.extractall(engine)  # noqa: S202  made a moment ago, by the service above
        text = generate(engine, str(model.prompt))
    wrote = text.strip() == str(model.sentence).strip()
    say.print(f"\nThe engine continues [italic]{model.prompt}[/] with: [bold]{text.strip()}[/]")
    verdict = "[green]as it should[/]" if wrote else f"[red]but should with: {model.sentence}[/]"
    say.print(f"... {verdict}. All of this took {time.monotonic() - started:.0f} s.")
    say.print("Nothing of it is kept. The README's quick start builds the same engine into ./workspace.")
    return 0 if wrote else 1


def build(scratch: Path) -> dict[str, Any]:
    """Starts the servers, sends the request, shows the log while it grows; the finished prediction."""
    with HubServer(scratch / "hub") as hub, ConfigServer(ROOT) as configs, WebhookReceiver() as webhooks:
        env = {
            "HF_ENDPOINT": hub.url,
            "TRTLLM_DIR": str(TOOLCHAIN),
            "TRT_LLM_WORKSPACE": str(scratch / "workspace"),
            "TRT_LLM_ALLOW_PRIVATE_ADDRESSES": "1",  # its servers are on loopback
        }
        with CogServer(env) as server:
            config = f"{configs.url}/{CONFIG}"
            say.print(
                f"Hub            {hub.url}\nconfig server  {configs.url}\nCog server     {server.url}\n"
            )
            say.print(f'\n[bold]POST {server.url}/predictions[/] {{"input": {{"config": "{config}"}}}}\n')
            body = {
                "input": {"config": config},
                "webhook": webhooks.url,
                "webhook_events_filter": ["logs", "completed"],
            }
            server.request("POST", "/predictions", body, headers={"Prefer": "respond-async"})
            return follow(webhooks.events)


def follow(events: queue.Queue[dict[str, Any]]) -> dict[str, Any]:
    """Shows each new piece of the log until the prediction is complete."""
    shown = 0
    while True:
        event = events.get(timeout=BUILD_WITHIN_S)
        log = event.get("logs") or ""
        say.print(log[shown:], end="", markup=False, style="dim")
        shown = max(shown, len(log))
        if event["status"] in ("succeeded", "failed", "canceled"):
            return event


def show(archive: Path) -> None:
    """Prints the archive's name, size, SHA-256 and files."""
    data = archive.read_bytes()
    say.print(f"\n[bold]{archive.name}[/]: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}\n")
    table = Table("file", "bytes", box=None)
    table.columns[1].justify = "right"
    with tarfile.open(archive) as tar:
        for member in tar:
            table.add_row(member.name, f"{member.size:,}")
    say.print(table)


def generate(engine: Path, prompt: str) -> str:
    """What the engine writes after `prompt`, by the toolchain's own run.py."""
    argv = [sys.executable, str(TOOLCHAIN / "examples" / "run.py"), "--engine_dir", str(engine)]
    argv += ["--tokenizer_dir", str(engine), "--input_text", prompt, "--max_output_len", "32"]
    output = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("Output [Text 0 Beam 0]:"))
    return line.partition(": ")[2].strip().strip('"')


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say.print("\nInterrupted; everything that was started is stopped.")
        sys.exit(130)
