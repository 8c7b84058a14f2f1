"""How fast a model comes: `fetch` beside the tools that others use, from the same loopback server.

    python -m benchmarks.download [--only NAME ...] [--repeats 3] [--folder DIR]

Each link is measured with every tool in turns, in one run, and the median counts. `fetch` lists, downloads,
checks every SHA-256 and puts the files in place (of the tar: unpacks it as well); the others only download.
All have 16 connections, curl one for each file.

| name | link | files | measured against | limit |
|---|---|---|---|---|
| unlimited | loopback | 4 of 500 MB | the faster of `curl` and `curl -Z` | 1.0 |
| file | 60 MB/s a connection | 1 of 1 GB | `aria2c`, or 16 x 60 MB/s where it is not installed | 0.85 |
| shards | the same | 4 of 500 MB | the same | 0.85 |
| tar | the same | `model_tar_url`, 1 GB | the same | 0.8 |
| far | 100 MB/s, 100 ms, 1 % of connections cut | 1 of 500 MB | huggingface_hub's download | 3.0 |
| small | 20 ms | 2,000 of 20 kB | `aria2c -j16` with a list | 0.8 |

Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks._loopback import MEGABYTE, hub_process, in_turns, machine, write_random
from trt_llm_pipeline.model_source import ModelRequest, fetch, plan

MODEL_ID = "bench/model"
CONNECTIONS = 16
SLOW = 60
MOST_STARTS = 50
ARIA2 = ["aria2c", "--quiet", "--file-allocation=none", "--min-split-size=1M"]
HUGGINGFACE = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], local_dir=sys.argv[2])
"""

Action = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        link: options of the loopback Hub.
        files: how many, and of how many bytes each.
        others: makes what it is measured against, given the Hub's address, the files' addresses.
        limit: of the speed of the fastest other.
        tar: whether the files are packed into one tar.
        arithmetic: MB/s to compare with where none of the others is installed.
    """

    link: tuple[str, ...]
    files: tuple[int, int]
    others: Callable[[str, Mapping[str, str]], dict[str, Action]]
    limit: float
    tar: bool = False
    arithmetic: float | None = None


def curl(_: str, addresses: Mapping[str, str]) -> dict[str, Action]:
    def action(*flags: str) -> Action:
        def run(into: Path) -> None:
            targets = [part for name, url in addresses.items() for part in ("-o", str(into / name), url)]
            subprocess.run(["curl", "-sSfL", *flags, *targets], check=True, stderr=subprocess.DEVNULL)

        return run

    return {"curl": action(), "curl -Z": action("-Z")}


def aria2(*shapes: tuple[int, int]) -> Callable[[str, Mapping[str, str]], dict[str, Action]]:
    """`aria2c` with so many files at once and so many connections for each."""

    def actions(_: str, addresses: Mapping[str, str]) -> dict[str, Action]:
        if shutil.which("aria2c") is None:
            return {}

        def action(files: int, each: int) -> Action:
            def run(into: Path) -> None:
                wanted = "".join(f"{url}\n  out={name}\n" for name, url in addresses.items())
                shape = [f"-j{files}", f"-x{each}", f"-s{each}"]
                subprocess.run(
                    [*ARIA2, *shape, "-d", str(into), "-i", "-"], input=wanted, text=True, check=True
                )

            return run

        return {f"aria2c -j{files} -x{each}": action(files, each) for files, each in shapes}

    return actions


def huggingface(url: str, _: Mapping[str, str]) -> dict[str, Action]:
    """Its own download, started again where a cut connection has ended it: what it has is kept."""

    def run(into: Path) -> None:
        env = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        argv = [sys.executable, "-c", HUGGINGFACE, MODEL_ID, str(into)]
        for _ in range(MOST_STARTS):
            if subprocess.run(argv, env=env, stderr=subprocess.DEVNULL).returncode == 0:
                return
        raise SystemExit(f"huggingface_hub has not finished in {MOST_STARTS} starts")

    return {"huggingface_hub": run}


LIMITED = ("--megabytes-per-second", str(SLOW))
CASES = {
    "unlimited": Case((), (4, 500 * MEGABYTE), curl, 1.0),
    "file": Case(LIMITED, (1, 1000 * MEGABYTE), aria2((1, 16)), 0.85, arithmetic=CONNECTIONS * SLOW),
    "shards": Case(LIMITED, (4, 500 * MEGABYTE), aria2((1, 16), (4, 4)), 0.85, arithmetic=CONNECTIONS * SLOW),
    "tar": Case(LIMITED, (2, 500 * MEGABYTE), aria2((1, 16)), 0.8, tar=True, arithmetic=CONNECTIONS * SLOW),
    "far": Case(
        ("--megabytes-per-second", "100", "--latency", "0.1", "--cut-share", "0.01"),
        (1, 500 * MEGABYTE),
        huggingface,
        3.0,
    ),
    "small": Case(("--latency", "0.02"), (2000, 20_000), aria2((16, 1)), 0.8, arithmetic=None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CASES), help="one of the table's names")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    options = parser.parse_args()
    print(f"median of {options.repeats}, {machine()}")
    missed = []
    for name in options.only or CASES:
        with tempfile.TemporaryDirectory(prefix="bench-download-", dir=options.folder) as folder:
            if not measure(name, CASES[name], Path(folder), options.repeats):
                missed.append(name)
    if missed:
        print(f"limits missed: {', '.join(missed)}")
    return 1 if missed else 0


def measure(name: str, case: Case, folder: Path, repeats: int) -> bool:
    """Measures one line; True where its limit is reached."""
    repository = folder / "hub" / MODEL_ID
    names = make_files(repository, *case.files, tar=case.tar)
    total = sum((repository / each).stat().st_size for each in names)
    with hub_process(folder / "hub", *case.link) as url:
        addresses = {each: f"{url}/{MODEL_ID}/resolve/main/{each}" for each in names}
        env = {"HF_ENDPOINT": url, "TRT_LLM_ALLOW_PRIVATE_ADDRESSES": "1"}
        request = ModelRequest(MODEL_ID, tar_url=addresses["model.tar"] if case.tar else None)
        # Once before, so that the server has its hashes and the client its imports.
        plan(request, folder, token=None, env=env)
        served = 0.0 if case.link else served_at(addresses[names[0]], (repository / names[0]).stat().st_size)

        said: list[str] = []

        def by_fetch(into: Path) -> None:
            fetch(request, into, token=None, log=said.append, env=env)

        actions: dict[str, Action] = {"fetch": by_fetch, **case.others(url, addresses)}
        seconds = in_turns(actions, folder / "into", repeats)
    others = {other: taken for other, taken in seconds.items() if other != "fetch"}
    if not others and case.arithmetic is not None:
        others = {f"{case.arithmetic:.0f} MB/s": total / 1e6 / case.arithmetic}
    print(f"\n{name}: {total / 1e6:.0f} MB in {case.files[0]} files {' '.join(case.link)}")
    if not case.link:
        print(f"the server itself: {served:.0f} MB/s to a `curl` that keeps nothing")
    if not others:
        print(f"fetch {seconds['fetch']:.2f} s; what it is measured against is not installed")
        return True
    fastest = min(others.values())
    print(f"{'':18} {'seconds':>8} {'MB/s':>7} {'of the fastest other':>21}")
    for each, taken in {**seconds, **others}.items():
        print(f"{each:18} {taken:8.2f} {total / 1e6 / taken:7.0f} {fastest / taken:21.2f}")
    reached = fastest / seconds["fetch"]
    print(f"fetch has {reached:.2f} of the fastest other's speed; at least {case.limit} is wanted")
    return reached >= case.limit


def served_at(address: str, size: int) -> float:
    """How fast the loopback Hub sends a file where nobody writes it, in MB/s; the better of two."""
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(["curl", "-sSfL", "-o", os.devnull, address], check=True)
        best = min(best, time.perf_counter() - started)
    return size / 1e6 / best


def make_files(repository: Path, count: int, size: int, *, tar: bool) -> list[str]:
    """Files of random bytes; their names."""
    repository.mkdir(parents=True)
    if size < MEGABYTE:
        names = [f"part-{number:05d}.json" for number in range(count)]
        for name in names:
            (repository / name).write_text(json.dumps([os.urandom(32).hex() for _ in range(size // 68)]))
        (repository / "model.safetensors").write_bytes(os.urandom(size))
        return [*names, "model.safetensors"]
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    for name in names:
        write_random(repository / name, size // MEGABYTE)
    if not tar:
        return names
    with tarfile.open(repository / "model.tar", "w") as archive:
        for name in names:
            archive.add(repository / name, name)
            (repository / name).unlink()
    return ["model.tar"]


if __name__ == "__main__":
    sys.exit(main())
