"""Ends itself by a signal, or with a code."""

import os
import sys

from engine import parser, write_engine

options = parser()
options.add_argument("--signal", type=int, default=0)
options.add_argument("--code", type=int, default=0)
args = options.parse_args()

write_engine(args.output_dir)
print("these are my last words", flush=True)
if args.signal:
    os.kill(os.getpid(), args.signal)
sys.exit(args.code)
