"""The limit of threads and processes, which a user, a container and the machine each have."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from trt_llm_pipeline.errors import ProcessLimit, add_note, notes_of

#: How `threading` says that `pthread_create` has failed, whatever the system's reason was.
_NO_THREAD = "can't start new thread"


@contextmanager
def translated(what: str = "another thread or process") -> Iterator[None]:
    """Turns what Python raises where no thread or process can be started into `ProcessLimit`.

    Args:
        what: could not be started then.

    Raises:
        ProcessLimit: that is what the block raised.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not is_reached(error):
            raise
        told = reached(what)
        for note in notes_of(error):
            add_note(told, note)
        raise told from error


def is_reached(error: RuntimeError | OSError) -> bool:
    """True where an error says that one more thread or process is not allowed."""
    if isinstance(error, OSError):  # a file would be named; see fork(2)
        return error.errno == errno.EAGAIN and error.filename is None
    return str(error) == _NO_THREAD


def reached(what: str) -> ProcessLimit:
    """The limit in words.

    Args:
        what: could not be started.
    """
    return ProcessLimit(
        f"{what} could not be started: no more threads and processes are allowed here (Resource temporarily "
        "unavailable). End other work, or raise the limit of the user (ulimit -u) or of the container (its "
        "pids limit), and try again"
    )
