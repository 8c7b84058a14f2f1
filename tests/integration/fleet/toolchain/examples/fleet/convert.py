"""A checkpoint that passes for one; notes each time that it runs."""

import argparse
import json
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--output_dir", type=Path, required=True)
parser.add_argument("--kind", default="one")
args = parser.parse_args()

scratch = Path(os.environ["FLEET_SCRATCH"])
(scratch / f"converted.{args.kind}.{os.getpid()}").touch()
time.sleep(1)
config = {"architecture": "FleetForCausalLM", "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1}}
args.output_dir.mkdir(parents=True, exist_ok=True)
(args.output_dir / "config.json").write_text(json.dumps(config))
# The format of safetensors: the header's length, the header, the data.
header = json.dumps({"weight": {"dtype": "U8", "shape": [1024], "data_offsets": [0, 1024]}}).encode()
weights = len(header).to_bytes(8, "little") + header + os.urandom(1024)
(args.output_dir / "rank0.safetensors").write_bytes(weights)
