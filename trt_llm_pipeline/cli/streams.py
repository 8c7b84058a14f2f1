"""stdout and stderr as the command line uses them: open, and with a name in the errors of writing to them."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

#: What an `OSError` of such a stream has as its `filename`, by the stream's name in `sys`.
TITLES = {"stdout": "standard output", "stderr": "standard error"}
_STREAMS = ("stdin", "stdout", "stderr")


class Named(io.TextIOWrapper):
    """A stream of the same buffer whose errors say which stream it is."""

    title = ""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            error.filename = self.title
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            error.filename = self.title
            raise


def prepare() -> None:
    """Opens what the caller has closed, so that no file comes to lie there, and names stdout and stderr.

    A closed stdin is opened too, and `sys.stdin` stays None: nothing is read from it.
    """
    for descriptor, name in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            if name in TITLES:
                setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
    for name, title in TITLES.items():
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:  # else it is somebody's own
            named = _named(stream, title)
            setattr(sys, name, named)
            setattr(sys, f"__{name}__", named)


def silence(title: str) -> None:
    """Lets what is still written to a stream go nowhere."""
    for name in TITLES:
        if TITLES[name] == title:
            nothing = os.open(os.devnull, os.O_WRONLY)
            stream: TextIO = getattr(sys, name)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


def _named(stream: io.TextIOWrapper, title: str) -> Named:
    told = (stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through)
    named = Named(stream.detach(), *told)
    named.title = title
    return named
