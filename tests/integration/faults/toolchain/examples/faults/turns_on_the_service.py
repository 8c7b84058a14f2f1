"""Does something to the service that runs it, and waits."""

import os
import signal
import sys
import time
from pathlib import Path

from engine import parser, write_engine

options = parser()
options.add_argument("--deed", required=True)
options.add_argument("--linger", type=float, default=600)
args = options.parse_args()

STATE = Path.cwd() / ".trt-llm-pipeline"
SUPERVISOR = os.getppid()  # the inner of its two processes


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


write_engine(args.output_dir)
print("everything is started", flush=True)
if args.deed == "state_fifo":
    (STATE / "made.json").unlink(missing_ok=True)
    os.mkfifo(STATE / "made.json")
elif args.deed == "kill_worker":
    os.kill(parent_of(parent_of(SUPERVISOR)), signal.SIGKILL)
elif args.deed == "stop_worker":
    os.kill(parent_of(parent_of(SUPERVISOR)), signal.SIGSTOP)
elif args.deed == "kill_supervisor":
    os.kill(SUPERVISOR, signal.SIGKILL)
elif args.deed == "stop_supervisor":
    os.kill(SUPERVISOR, signal.SIGSTOP)
else:
    sys.exit(f"no such deed: {args.deed}")
time.sleep(args.linger)
