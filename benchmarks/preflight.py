"""How much time it takes to know before you spend: the preflight beside the scripts' own start-up.

    python -m benchmarks.preflight [REPEATS]

Prints medians, measured in turns in one run, on the embedded toolchain and the quick start's config:

- a wrong config, from the command line's start to its refusal, and the requests that reached the Hub by then;
- the preflight of a two-step config, beside `python script.py --help` for both scripts, which is what
  importing them and making their parsers costs whoever asks.

Exits 1 where a limit is missed.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trt_llm_pipeline.errors import EXIT_CODES
from trt_llm_pipeline.preflight import parser_check

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = ROOT / "cpu_toolchain"
CONFIG = ROOT / "examples" / "gpt" / "config.yaml"
REFUSED_WITHIN_S = 3.0
ADDED_WITHIN_S = 2.0
STEPS = {
    "hf_gpt_convert.py": ("--in-file", "m", "--out-dir", "c", "--tensor-parallelism", "1"),
    "build.py": ("--model_dir", "c", "--output_dir", "e", "--use_gpt_attention_plugin"),
}


def seconds(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def refuse(config: Path, env: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from trt_llm_pipeline.cli import main; main()", "validate", str(config)],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    said = ended.stdout + ended.stderr
    if ended.returncode != EXIT_CODES["config"] or "--max_batchsize" not in said:
        raise SystemExit(f"the wrong config was not refused as it should be:\n{said}")


def show_help() -> None:
    for script in STEPS:
        command = [sys.executable, "-B", str(TOOLCHAIN / "examples" / "gpt" / script), "--help"]
        subprocess.run(command, capture_output=True, check=True)


def ask(env: dict[str, str]) -> None:
    for script, args in STEPS.items():
        answer = parser_check.probe(
            [sys.executable, str(TOOLCHAIN / "examples" / "gpt" / script), *args],
            interpreter=sys.executable,
            toolchain_root=TOOLCHAIN,
            env=env,
        )
        if not isinstance(answer, parser_check.Checked) or answer.mistakes:
            raise SystemExit(f"{script} was not found right: {answer}")


def requests_at(listener: socket.socket) -> int:
    """How many connections are waiting at a listener that nobody answers for."""
    count = 0
    listener.setblocking(False)
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    refused, helped, asked = [], [], []
    with tempfile.TemporaryDirectory() as temporary, socket.create_server(("127.0.0.1", 0)) as hub:
        wrong = Path(temporary) / "wrong.yaml"
        wrong.write_text(CONFIG.read_text() + "    max_batchsize: 8\n")
        env = {
            **os.environ,
            "TRTLLM_DIR": str(TOOLCHAIN),
            "TRT_LLM_WORKSPACE": str(Path(temporary) / "workspace"),
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for _ in range(repeats):
            helped.append(seconds(show_help))
            asked.append(seconds(lambda: ask(env)))
            refused.append(seconds(lambda: refuse(wrong, env)))
        requests = requests_at(hub)
    bare, probed, refusal = (statistics.median(times) for times in (helped, asked, refused))
    print(f"{'what':<52}{'seconds':>9}{'ratio':>8}{'limit':>9}")
    print(f"{'both scripts with --help':<52}{bare:>9.2f}{1:>8.2f}")
    print(f"{'preflight of both steps':<52}{probed:>9.2f}{probed / bare:>8.2f}")
    print(f"{'  beyond the scripts own':<52}{probed - bare:>9.2f}{'':>8}{ADDED_WITHIN_S:>9.1f}")
    print(f"{'wrong config refused by the command line':<52}{refusal:>9.2f}{refusal / bare:>8.2f}", end="")
    print(f"{REFUSED_WITHIN_S:>9.1f}")
    print(f"{'  requests to the Hub meanwhile':<52}{requests:>9}{'':>8}{0:>9}")
    met = probed - bare < ADDED_WITHIN_S and refusal < REFUSED_WITHIN_S and requests == 0
    print("all limits met" if met else "a limit was missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
