"""Writes until there is no room left, and then ends as scripts do, or goes on regardless."""

import time

from engine import parser, write_engine

options = parser()
options.add_argument("--careless", action="store_true")
options.add_argument("--talk", type=int, default=0)
args = options.parse_args()

write_engine(args.output_dir)
print("everything is started", flush=True)
try:
    with (args.output_dir / "huge.engine").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
except OSError:
    for number in range(args.talk):
        print("still talking", number, flush=True)
    time.sleep(1.5)  # so that whoever watches has to do something on the full disk
    if not args.careless:
        raise
