"""An S3 server on a port of this machine: moto, which answers several requests at once.

usage: store_server.py PORT

moto looks whether an object is there and then writes it, so of several who put it if absent at the same
moment more than one would succeed. Those requests are answered one after the other here, as by a real store.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import run_simple

_MOTO = DomainDispatcherApplication(create_backend_app)
_MOTO.debug = True  # type: ignore[attr-defined]  as moto's own command has it
_CONDITIONAL = threading.Lock()


def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application."""
    with _CONDITIONAL if "HTTP_IF_NONE_MATCH" in environ else nullcontext():
        body: Iterable[bytes] = _MOTO(environ, start_response)
    return body


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), answer, threaded=True, request_handler=MotoRequestHandler)
