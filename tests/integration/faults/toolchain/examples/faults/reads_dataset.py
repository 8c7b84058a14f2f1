"""Reads a dataset where its argument says, and by its name in the step's directory; tries to change it."""

import sys
from pathlib import Path

from engine import parser, write_engine

options = parser()
options.add_argument("--dataset", type=Path, required=True)
options.add_argument("--named", type=Path, required=True)
options.add_argument("--other", type=Path)
args = options.parse_args()
for place in (args.dataset, args.named):
    print("read:", (place / "data" / "train.parquet").read_text()[:50], flush=True)
for path in (args.dataset / "data" / "train.parquet", args.named / "data" / "more", args.other):
    try:
        path.write_text("changed")
        print(f"changed: {path}")
    except (AttributeError, OSError) as error:
        print(f"refused: {type(error).__name__}")
print("arguments:", sys.argv[1:])
write_engine(args.output_dir)
