"""Whether an archive is the same on every processor: packed by emulated ones, and by this machine's.

    python -m benchmarks.processors [--megabytes 8]

The same files, float16 and int8 weights, text, zeros and noise, are packed by this machine's processor and,
in qemu-x86_64 (Debian: `apt-get install qemu-user`), by models that know fewer instructions. Prints the
SHA-256 of the content and of the compressed bytes. Exits 1 where a content differs, or where compressed bytes
differ between processors that have SSE 4.2.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

#: What qemu calls a processor, and what its newest instructions are.
MODELS = {"Haswell": "AVX2", "SandyBridge": "AVX", "Nehalem": "SSE 4.2", "Conroe": "SSSE 3"}
WITHOUT_SSE42 = ("Conroe",)

PACK = """
import pathlib, sys
from trt_llm_pipeline.artifact import pack_engine
packed = pack_engine(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), extra={}, manifest={})
print(packed.content_sha256, packed.sha256)
"""


def make_files(folder: Path, megabytes: int) -> None:
    generator = np.random.default_rng(0)
    size = megabytes * 1_000_000
    weights = generator.standard_normal(size // 2, dtype=np.float32) * np.float32(0.02)
    (folder / "float16").write_bytes(weights.astype(np.float16).tobytes())
    (folder / "int8").write_bytes(np.clip(weights * 1000, -127, 127).astype(np.int8).tobytes())
    (folder / "noise").write_bytes(generator.bytes(size // 4))
    (folder / "zeros").write_bytes(bytes(size // 4))
    (folder / "text").write_text("".join(path.read_text() for path in sorted(Path().rglob("docs/*.md"))))


def pack(folder: Path, archive: Path, *emulator: str) -> tuple[str, str]:
    """The SHA-256 of the content and of the archive."""
    command = [*emulator, sys.executable, "-c", PACK, str(folder), str(archive)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    content, compressed = done.stdout.split()
    return content, compressed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=8)
    options = parser.parse_args()
    qemu = shutil.which("qemu-x86_64")
    if qemu is None or platform.machine() != "x86_64":
        print("not measured: this needs an x86-64 machine with qemu-x86_64 (Debian: qemu-user)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        files.mkdir()
        make_files(files, options.megabytes)
        found = {"this machine's": pack(files, Path(folder, "archive"))}
        for model in MODELS:
            found[model] = pack(files, Path(folder, "archive"), qemu, "-cpu", model)
    print(f"{'processor':16}{'newest':10}{'content':14}compressed")
    for name, (content, compressed) in found.items():
        print(f"{name:16}{MODELS.get(name, ''):10}{content[:12]:14}{compressed[:12]}")
    contents = {content for content, _ in found.values()}
    forms = {sha256 for name, (_, sha256) in found.items() if name not in WITHOUT_SSE42}
    limits = [
        (f"{len(contents)} contents on all processors", len(contents) == 1),
        (f"{len(forms)} compressed forms on those with SSE 4.2", len(forms) == 1),
    ]
    for text, met in limits:
        print(f"{'met   ' if met else 'MISSED'} {text} (limit 1)")
    return 0 if all(met for _, met in limits) else 1


if __name__ == "__main__":
    sys.exit(main())
