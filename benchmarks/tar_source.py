"""How well download and extraction of a `model_tar_url` overlap: both at once beside each alone.

    python -m benchmarks.tar_source [--megabytes 2000] [--repeats 3] [--folder DIR]

One model of random float16 weights, as a .tar and as a .tar.gz (gzip level 1), in turns, in one run:

- `fetch`: download, hash, unpack and settle, at once;
- `curl`: the download alone, to a file;
- `unpack`: the extraction alone, by this project's own unpacker, from a file in the page cache;
- `tar -x`: for comparison, GNU tar's extraction of that file.

Prints medians and the ratio of `fetch` to the slower of `curl` and `unpack`. Exits 1 above 1.15.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from isal import igzip

from benchmarks._loopback import hub_process, in_turns, machine
from trt_llm_pipeline.model_source import ModelRequest, fetch
from trt_llm_pipeline.model_source.tar_extract import unpack
from trt_llm_pipeline.model_source.tar_reader import CHUNK, uncompressed

AT_MOST = 1.15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-tar-", dir=options.folder) as name:
        folder = Path(name)
        print(f"{options.megabytes} MB of weights, median of {options.repeats}, {machine()}")
        make_archives(folder, options.megabytes)
        with hub_process(folder / "hub") as url:
            reached = [
                compare(url, folder, archive, options.repeats) for archive in ("model.tar", "model.tar.gz")
            ]
    return 0 if max(reached) <= AT_MOST else 1


def make_archives(folder: Path, megabytes: int) -> None:
    served = folder / "hub" / "bench" / "tar"
    served.mkdir(parents=True)
    weights = folder / "weights"
    generator = np.random.default_rng(0)
    with weights.open("wb") as file:
        for _ in range(megabytes // 2):
            numbers = generator.standard_normal(500_000, dtype=np.float32) * np.float32(0.02)
            file.write(numbers.astype(np.float16).tobytes())
    with tarfile.open(served / "model.tar", "w") as archive:
        for number in (1, 2):
            archive.add(weights, f"model/model-{number:05d}-of-00002.safetensors")
    weights.unlink()
    made = igzip.open(served / "model.tar.gz", "wb", 1)  # type: ignore[no-untyped-call]
    with (served / "model.tar").open("rb") as plain, made as packed:
        while chunk := plain.read(CHUNK):
            packed.write(chunk)


def compare(url: str, folder: Path, archive: str, repeats: int) -> float:
    local = folder / "hub" / "bench" / "tar" / archive
    quiet: list[str] = []
    address = f"{url}/bench/tar/resolve/main/{archive}"

    def by_fetch(into: Path) -> None:
        request = ModelRequest("bench/model", tar_url=address)
        fetch(request, into, token=None, log=quiet.append, env={"TRT_LLM_ALLOW_PRIVATE_ADDRESSES": "1"})

    def by_curl(into: Path) -> None:
        subprocess.run(["curl", "-sSfL", "-o", into / archive, address], check=True)

    def by_unpack(into: Path) -> None:
        unpack(
            uncompressed(chunks_of(local), archive),
            into,
            archive,
            most_bytes=1 << 50,
            tick=lambda: None,
        )

    def by_tar(into: Path) -> None:
        subprocess.run(["tar", "-xf", local, "-C", into], check=True)

    by_curl(folder)  # once before, so that the server has its hashes
    (folder / archive).unlink()
    actions = {"fetch": by_fetch, "curl": by_curl, "unpack": by_unpack, "tar -x": by_tar}
    seconds = in_turns(actions, folder / "into", repeats)
    slower = max(seconds["curl"], seconds["unpack"])
    size = local.stat().st_size / 1e6
    print(f"\n{archive}, {size:.0f} MB")
    print(f"{'':10} {'seconds':>8} {'MB/s':>7} {'of the slower alone':>20}")
    for name, taken in seconds.items():
        print(f"{name:10} {taken:8.2f} {size / taken:7.0f} {taken / slower:20.2f}")
    reached = seconds["fetch"] / slower
    print(f"fetch takes {reached:.2f} of the slower of the two alone; at most {AT_MOST} is wanted")
    return reached


def chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        yield from iter(partial(file.read, CHUNK), b"")


if __name__ == "__main__":
    sys.exit(main())
