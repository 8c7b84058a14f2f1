"""How fast an engine becomes an archive: packing beside tar, with the checksums that packing computes on its
way.

    python -m benchmarks.pack_archive [--megabytes 2000] [--folder DIR] [--repeats 3]

One directory of random float16 weights (normal, the size of trained ones), packed in turns, in one run, by

- `pack`, gzip and none: one pass, SHA-256 of every file and of the archive, synced to the disk;
- `tar -czf`: one thread, no checksums;
- `tar -cf`, then `sha256sum` of the files and of the archive: three passes;
- the same with `openssl dgst -sha256`, which uses the processor's SHA instructions where `sha256sum` may not.

Everything is read from the page cache, as just after a build. Prints medians (`tar -czf` runs once) and
ratios. Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

FASTER_THAN_GZIP = 10.0
SLOWER_THAN_TAR = 1.3
MEMORY_BYTES = 100_000_000
FILES = 2

PACK = """
import pathlib, sys
from trt_llm_pipeline.artifact import pack_engine
engine, archive = map(pathlib.Path, sys.argv[1:3])
packed = pack_engine(engine, archive, extra={}, manifest={}, compression=sys.argv[3])
status = pathlib.Path("/proc/self/status").read_text()
peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
print(peak, packed.size)
"""


def make_engine(folder: Path, megabytes: int) -> None:
    generator = np.random.default_rng(0)
    for rank in range(FILES):
        with (folder / f"rank{rank}.engine").open("wb") as file:
            for _ in range(megabytes // FILES):
                weights = generator.standard_normal(500_000, dtype=np.float32) * np.float32(0.02)
                file.write(weights.astype(np.float16).tobytes())
    (folder / "config.json").write_text("{}\n")


def run(*argv: str | Path) -> str:
    return subprocess.run([str(part) for part in argv], check=True, capture_output=True, text=True).stdout


class Bench:
    """The engine, where archives go, and what packing said of itself."""

    def __init__(self, engine: Path, archive: Path) -> None:
        self.engine = engine
        self.archive = archive
        self.peak = 0
        self.sizes: dict[str, int] = {}

    def pack(self, compression: str) -> None:
        peak, size = run(sys.executable, "-c", PACK, self.engine, self.archive, compression).split()
        self.peak = max(self.peak, int(peak))
        self.sizes[f"pack, {compression}"] = int(size)

    def tar_gzip(self) -> None:
        run("tar", "-czf", self.archive, "-C", self.engine, ".")
        self.sizes["tar -czf"] = self.archive.stat().st_size

    def tar_and_sums(self) -> None:
        run("tar", "-cf", self.archive, "-C", self.engine, ".")
        run("sha256sum", *sorted(self.engine.iterdir()))
        run("sha256sum", self.archive)
        self.sizes["tar -cf, sha256sum"] = self.archive.stat().st_size

    def tar_and_openssl(self) -> None:
        run("tar", "-cf", self.archive, "-C", self.engine, ".")
        run("openssl", "dgst", "-sha256", *sorted(self.engine.iterdir()))
        run("openssl", "dgst", "-sha256", self.archive)
        self.sizes["tar -cf, openssl"] = self.archive.stat().st_size

    def seconds(self, action: Callable[[], None]) -> float:
        """Time one action, with no archive there before it and nothing left to write behind."""
        self.archive.unlink(missing_ok=True)
        os.sync()
        started = time.perf_counter()
        action()
        return time.perf_counter() - started


def measure(bench: Bench, repeats: int) -> dict[str, float]:
    actions: dict[str, Callable[[], None]] = {
        "pack, gzip": lambda: bench.pack("gzip"),
        "pack, none": lambda: bench.pack("none"),
        "tar -cf, sha256sum": bench.tar_and_sums,
    }
    if shutil.which("openssl"):
        actions["tar -cf, openssl"] = bench.tar_and_openssl
    for action in actions.values():
        action()  # fills the page cache
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            taken[name].append(bench.seconds(action))
    result = {name: statistics.median(values) for name, values in taken.items()}
    result["tar -czf"] = bench.seconds(bench.tar_gzip)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=None, help="where the engine and archives go")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="packaging-", dir=options.folder))
    try:
        engine = folder / "engine"
        engine.mkdir()
        make_engine(engine, options.megabytes)
        bench = Bench(engine, folder / "archive")
        seconds = measure(bench, options.repeats)
    finally:
        shutil.rmtree(folder)
    ours, plain, slow = seconds["pack, gzip"], seconds["tar -cf, sha256sum"], seconds["tar -czf"]
    print(f"{options.megabytes:,} MB of float16 weights, {os.cpu_count()} processors, {platform.machine()}")
    print(f"{'':22}{'seconds':>9}{'of pack, gzip':>15}{'archive':>12}")
    for name in seconds:
        print(f"{name:22}{seconds[name]:9.2f}{seconds[name] / ours:14.2f}x{bench.sizes[name] / 1e6:9,.0f} MB")
    print(f"peak memory of pack: {bench.peak / 1e6:.0f} MB")
    limits = [
        (
            f"tar -czf takes {slow / ours:.1f} times as long as pack",
            slow / ours >= FASTER_THAN_GZIP,
            FASTER_THAN_GZIP,
        ),
        (
            f"pack takes {ours / plain:.2f} times as long as tar and sha256sum",
            ours / plain <= SLOWER_THAN_TAR,
            SLOWER_THAN_TAR,
        ),
        (f"peak memory {bench.peak / 1e6:.0f} MB", bench.peak < MEMORY_BYTES, MEMORY_BYTES / 1e6),
    ]
    for text, met, limit in limits:
        print(f"{'met   ' if met else 'MISSED'} {text} (limit {limit:g})")
    return 0 if all(met for _, met, _ in limits) else 1


if __name__ == "__main__":
    sys.exit(main())
