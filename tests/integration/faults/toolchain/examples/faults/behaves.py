"""Does what it should; takes as long and writes as much as it is told to."""

import json
import os
import sys
import time

from engine import parser, write_engine

options = parser()
options.add_argument("--size", type=int, default=64)
options.add_argument("--seconds", type=float, default=0)
options.add_argument("--seed", type=int)
options.add_argument("--note", nargs="*")
args = options.parse_args()

write_engine(args.output_dir, args.size, args.seed)
if args.note:
    print("arguments:", json.dumps(sys.argv[1:]))
    print("variables:", json.dumps(dict(os.environ)))
print("half of the work is done", flush=True)
time.sleep(args.seconds)
