"""Is never the same process for long: each forks the next and ends, and leaves a sign of life."""

import os
import signal
import time

from engine import parser, write_engine

options = parser()
options.add_argument("--stubborn", action="store_true", help="make the directory again that is removed")
args = options.parse_args()
write_engine(args.output_dir)
beat = args.output_dir / "beat"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
beat.touch()
print("everything is started", flush=True)
if os.fork():
    time.sleep(600)
while True:
    if os.fork():
        os._exit(0)
    if args.stubborn:
        args.output_dir.mkdir(exist_ok=True)
    beat.touch()
    time.sleep(0.002)
