"""How fast a model comes from a Hub on loopback: `fetch` beside curl, from the same server.

    python -m benchmarks.download [--megabytes 2000] [--files 4] [--repeats 3] [--folder DIR]

Downloads the same random files in turns, in one run, by

- `model_source.fetch`: listing, all files, every SHA-256 checked;
- `curl`, one file after the other over one connection, and `curl -Z`, all at once: nothing checked.

Prints medians and the ratio to the faster curl. Exits 1 where `fetch` is slower than 0.8 of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._loopback import hub_process, in_turns, machine, write_random
from trt_llm_pipeline.model_source import fetch, plan
from trt_llm_pipeline.model_source.source import ModelRequest

AT_LEAST = 0.8
MODEL_ID = "bench/model"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-download-", dir=options.folder) as name:
        return compare(Path(name), options.megabytes, options.files, options.repeats)


def compare(folder: Path, megabytes: int, files: int, repeats: int) -> int:
    print(f"{megabytes} MB in {files} files, median of {repeats}, {machine()}")
    repository = folder / "hub" / MODEL_ID
    repository.mkdir(parents=True)
    names = [f"model-{number:05d}-of-{files:05d}.safetensors" for number in range(1, files + 1)]
    for name in names:
        write_random(repository / name, megabytes // files)
    total = sum((repository / name).stat().st_size for name in names)
    with hub_process(folder / "hub") as url:
        env = {"HF_ENDPOINT": url}
        request = ModelRequest(MODEL_ID)
        quiet: list[str] = []
        # Once before, so that the server has its hashes and the client its imports.
        plan(request, folder, token=None, env=env)

        def by_fetch(into: Path) -> None:
            fetch(request, into, token=None, log=quiet.append, env=env)

        def by_curl(into: Path, *flags: str) -> None:
            targets = [
                part
                for name in names
                for part in ("-o", str(into / name), f"{url}/{MODEL_ID}/resolve/main/{name}")
            ]
            subprocess.run(["curl", "-sSfL", *flags, *targets], check=True, stderr=subprocess.DEVNULL)

        actions = {"fetch": by_fetch, "curl": by_curl, "curl -Z": lambda into: by_curl(into, "-Z")}
        seconds = in_turns(actions, folder / "into", repeats)
    fastest = min(seconds["curl"], seconds["curl -Z"])
    print(f"{'':10} {'seconds':>8} {'MB/s':>7} {'of the faster curl':>19}")
    for name, taken in seconds.items():
        print(f"{name:10} {taken:8.2f} {total / 1e6 / taken:7.0f} {fastest / taken:19.2f}")
    reached = fastest / seconds["fetch"]
    print(f"fetch has {reached:.2f} of the faster curl's speed; at least {AT_LEAST} is wanted")
    return 0 if reached >= AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
