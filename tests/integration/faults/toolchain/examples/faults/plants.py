"""Puts links and other traps where the service will read, write or remove something."""

import os
import sys
import tempfile
import time
from pathlib import Path

from engine import parser, write_engine

options = parser()
options.add_argument("--traps", nargs="+", required=True)
options.add_argument("--fail", action="store_true")
options.add_argument("--linger", type=float, default=0)
args = options.parse_args()

OUTSIDE = Path(os.environ["RELIABILITY_OUTSIDE"])
SECRET = OUTSIDE / "secret.txt"
WORKSPACE = Path.cwd()
STATE = WORKSPACE / ".trt-llm-pipeline"
MODEL = WORKSPACE / "models" / "sshleifer" / "tiny-gpt2"
BUILD = max(p for p in (WORKSPACE / "builds").iterdir() if p.is_dir())


def link(place, target):
    """Puts a link in a place. Its last system call is the one that does it: see the end of this script."""
    aside = Path(tempfile.mkdtemp(prefix="aside-", dir=WORKSPACE))
    (aside / "link").symlink_to(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir() and not place.is_symlink():
        place.rename(aside / "what-was-there")
    (aside / "link").rename(place)


def just_after_a_look():
    """Returns as soon as the service has looked, as it does each second."""
    seen = (STATE / "running").stat().st_mtime_ns
    while (STATE / "running").stat().st_mtime_ns == seen:
        time.sleep(0.001)


write_engine(args.output_dir)
if args.fail:  # the service ends a script that it finds at it: this one is to fail before the next look
    just_after_a_look()
for trap in args.traps:
    if trap == "file":
        link(args.output_dir / "extra.txt", SECRET)
    elif trap == "folder":
        link(args.output_dir / "folder", OUTSIDE)
    elif trap == "engine":
        link(args.output_dir / "rank0.engine", SECRET)
    elif trap == "config":
        link(args.output_dir / "config.json", OUTSIDE / "config.json")
    elif trap == "pipe":
        os.mkfifo(args.output_dir / "pipe.engine")
    elif trap == "output":
        link(args.output_dir, OUTSIDE)
    elif trap == "parent":
        nested = WORKSPACE / "nested"
        link(nested, OUTSIDE)
    elif trap == "archive":
        link(BUILD / "engine.tar.gz", SECRET)
    elif trap == "newest":
        link(WORKSPACE / "engine.tar.gz", SECRET)
    elif trap == "record":
        link(BUILD / "build.json", SECRET)
    elif trap == "report":
        link(BUILD / "report.html", SECRET)
    elif trap == "log":
        link(BUILD / "logs" / "build.log", SECRET)
    elif trap == "logs":
        link(BUILD / "logs", OUTSIDE)
    elif trap == "build":
        link(BUILD, OUTSIDE)
    elif trap == "builds":
        link(WORKSPACE / "builds", OUTSIDE)
    elif trap == "state":
        link(STATE, OUTSIDE)
    elif trap == "ledger":
        link(STATE / "made.json", SECRET)
    elif trap == "heartbeat":
        link(STATE / "running", SECRET)
    elif trap == "holder":
        link(STATE / "lock-holder.json", SECRET)
    elif trap == "lock":
        link(STATE / "lock", SECRET)
    elif trap == "hashes":
        link(STATE / "hashes.json", SECRET)
    elif trap == "import":
        link(STATE / "import", OUTSIDE)
    elif trap == "cache":
        link(STATE / "cache", OUTSIDE)
    elif trap == "datasets":
        link(STATE / "datasets", OUTSIDE)
    elif trap == "tokenizer":
        link(MODEL / "tokenizer.json", SECRET)
        link(MODEL / "tokenizer_config.json", SECRET)
    elif trap == "model":
        link(MODEL, OUTSIDE)
    elif trap == "models":
        link(WORKSPACE / "models", OUTSIDE)
    elif trap == "weights":
        link(MODEL / "pytorch_model.bin", SECRET)
    else:
        sys.exit(f"no such trap: {trap}")
time.sleep(args.linger)
if args.fail:
    os._exit(1)  # at once
