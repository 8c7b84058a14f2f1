"""An engine that passes for one; says that it has begun, and waits as long as it is told to."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--output_dir", type=Path, required=True)
parser.add_argument("--cell", required=True)
parser.add_argument("--input", type=Path)
parser.add_argument("--seconds", type=float, default=0)
args = parser.parse_args()

scratch, node = Path(os.environ["FLEET_SCRATCH"]), os.environ.get("FLEET_NODE", "")
sees = os.environ.get("CUDA_VISIBLE_DEVICES", "everything")
(scratch / f"started.{args.cell}.{node}.{os.getpid()}").write_text(sees)
# One file holds a cell everywhere, another holds whatever runs on one node.
holds = [scratch / f"hold.{args.cell}", scratch / f"hold-node.{node}"]
while any(hold.exists() for hold in holds):
    time.sleep(0.05)
time.sleep(args.seconds)
if (scratch / f"break.{args.cell}").exists():
    print(f"the cell {args.cell} is one that breaks", flush=True)
    sys.exit(3)

args.output_dir.mkdir(parents=True, exist_ok=True)
# Unlike any other build of the same cell, as engines that were timed are.
(args.output_dir / "rank0.engine").write_bytes(os.urandom(4096))
config = {"pretrained_config": {"architecture": "FleetForCausalLM", "dtype": "float16"}}
(args.output_dir / "config.json").write_text(json.dumps(config))
if (scratch / f"fill.{node}").exists():
    with (args.output_dir / "rank1.engine").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
