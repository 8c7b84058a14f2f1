"""Uses memory and processor time, in several processes; ends well, or waits to be killed."""

import os
import time

from engine import parser, write_engine

options = parser()
options.add_argument("--megabytes", type=int, required=True)
options.add_argument("--children", type=int, default=0)
options.add_argument("--burn", type=float, default=0)
options.add_argument("--wait", type=float, default=1.2)
args = options.parse_args()

write_engine(args.output_dir)
children = []
for _ in range(args.children):
    child = os.fork()
    if child == 0:
        children = None
        break
    children.append(child)
held = bytearray(args.megabytes << 20)
held[::4096] = b"x" * (len(held) // 4096)  # touched, so that every page is there
end = time.process_time() + args.burn
while time.process_time() < end:
    pass
if children is None:
    time.sleep(args.wait)
    os._exit(0)
print("everything is started", flush=True)
time.sleep(args.wait)
for child in children:
    os.waitpid(child, 0)
