"""Prints more, and other, than anyone wants to read."""

import os
import sys
import time

from engine import parser, write_engine

options = parser()
options.add_argument("--kind", required=True)
options.add_argument("--megabytes", type=int, default=0)
args = options.parse_args()

write_engine(args.output_dir)
out = sys.stdout.buffer
total = args.megabytes << 20


def write(data):
    out.write(data)
    out.flush()


if args.kind == "lines":
    block = b"".join(b"%d bottles of beer on the wall" % n + b"." * 90 + b"\n" for n in range(9_000))
    for _ in range(0, total, len(block)):
        write(block)
elif args.kind == "endless_line":
    for _ in range(total >> 20):
        write(b"x" * (1 << 20))
elif args.kind == "megabyte_lines":
    for number in range(args.megabytes):
        write(b"line %d " % number + b"y" * (1 << 20) + b"\n")
elif args.kind == "garbage":
    write(b"caf\xe9 \xff\xfe \xf0\x9f\x98 end\n")
    for _ in range(total >> 20):
        write(os.urandom(1 << 20))
    write(b"\n\xf0\x9f")
    time.sleep(0.05)
    write(b"\x98\x80 whole after all\n")
elif args.kind == "bars":
    for percent in range(0, 101, 2):
        write(b"\rloading: %3d%%|%s|" % (percent, b"#" * percent))
        time.sleep(0.05)
    write(b"\n")
elif args.kind == "with_pauses":
    for text in (b"tick 0\n", b"tick 1\n", b"a question without an end? "):
        write(text)
        time.sleep(2)
write(b"the last words\n")
