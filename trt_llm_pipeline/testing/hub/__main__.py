"""The loopback Hub as a process: `python -m trt_llm_pipeline.testing.hub`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from trt_llm_pipeline.testing.hub.link import Link
from trt_llm_pipeline.testing.hub.server import HubServer

_LOOK_EVERY_S = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the Hub's address as the first line of stdout and serves until SIGTERM or SIGINT."""
    from trt_llm_pipeline.testing.models import RECIPES

    parser = argparse.ArgumentParser(prog="python -m trt_llm_pipeline.testing.hub", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--root", type=Path, help="folder of repositories, laid out owner/name/files")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ID=RECIPE",
        help=f"serve a tiny model under this id; recipes: {', '.join(RECIPES)}",
    )
    parser.add_argument("--gated", action="append", default=[], metavar="ID", help="models that need a token")
    parser.add_argument("--token", action="append", default=[], help="a token that the Hub knows")
    parser.add_argument("--megabytes-per-second", type=float, help="what one connection carries at most")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument(
        "--cut-share", type=float, default=0.0, help="of connections, cut at a random byte: 0 to 1"
    )
    options = parser.parse_args(arguments)
    speed = options.megabytes_per_second
    link = Link(None if speed is None else speed * 1e6, options.latency, options.cut_share)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="tiny-models-") as scratch:
        hub = HubServer(options.root, tokens=options.token, host=options.host, port=options.port, link=link)
        for assignment in options.model:
            model_id, _, recipe = assignment.partition("=")
            if recipe not in RECIPES:
                parser.error(f"--model {assignment}: no recipe {recipe!r}; there are {', '.join(RECIPES)}")
            folder = Path(scratch, model_id)
            RECIPES[recipe](folder)
            hub.add_repository(model_id, folder, gated=model_id in options.gated)
        try:
            with hub:
                sys.stdout.write(hub.url + "\n")
                sys.stdout.flush()
                while not stop.wait(_LOOK_EVERY_S):  # a signal just before an endless wait does not end that
                    pass
        except OSError as error:
            where = f"{options.host}:{options.port}"
            parser.error(f"cannot listen on {where}: {error.strerror}; --port 0 picks another")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
