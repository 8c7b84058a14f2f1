"""Goes wrong the first time only, by a note in a directory outside the workspace."""

import os
import time
from pathlib import Path

from engine import parser, write_engine

options = parser()
options.add_argument("--name", required=True)
options.add_argument("--trouble", choices=["none", "wait", "large"], default="none")
args = options.parse_args()

note = Path(os.environ["RELIABILITY_SCRATCH"]) / args.name
again = note.exists()
note.touch()
if not again and args.trouble == "wait":
    write_engine(args.output_dir)
    (args.output_dir / "rank0.engine").write_bytes(b"half")
    (args.output_dir / "left-over.engine").write_bytes(b"half")
    print("everything is started", flush=True)
    time.sleep(600)
write_engine(args.output_dir, 300 << 20 if not again and args.trouble == "large" else 64)
