"""Starts everything that a careless script can leave behind, ignores SIGTERM, and waits for ever."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from engine import parser, write_engine

WAIT = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def wait(_):
    time.sleep(600)


def main():
    args = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    write_engine(args.output_dir)

    pool = multiprocessing.get_context("fork").Pool(2)
    pool.map_async(wait, range(2))
    subprocess.Popen([sys.executable, "-c", WAIT], start_new_session=True)
    if os.fork() == 0:  # a daemon, as the books tell one to make it
        os.setsid()
        if os.fork() == 0:
            os.setpgid(0, 0)
            os.execv(sys.executable, [sys.executable, "-c", WAIT])
        os._exit(0)
    print("everything is started", flush=True)
    time.sleep(600)


main()
