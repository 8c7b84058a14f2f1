"""Exit codes and one-sentence errors: what the scripts have in common at their edge."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class UnsupportedError(Exception):
    """The request is well formed, but this toolchain does not do it. Exit code 2, as argparse's errors."""


class BadInputError(Exception):
    """A file or directory is missing, damaged or not what it should be. Exit code 1."""


def say(message: str) -> None:
    """Prints one line of progress at once, so that whoever reads the pipe sees it when it happens."""
    print(message, flush=True)


def run(main: Callable[[], None]) -> NoReturn:
    """Runs `main` and exits: 0, 1 for bad input, 2 for what is not supported, 130 when interrupted."""
    script = Path(sys.argv[0]).name
    try:
        main()
        sys.stdout.flush()
    except UnsupportedError as error:
        _fail(script, str(error), 2)
    except BadInputError as error:
        _fail(script, str(error), 1)
    except KeyboardInterrupt:
        _fail(script, "interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(script, f"{where}{error.strerror or error}", 1)
    except MemoryError:
        _fail(script, "this machine has too little memory for the model", 1)
    sys.exit(0)


def _fail(script: str, message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    # Some libraries' messages have several lines; a log is easier to read with one an error.
    line = " ".join(message.split())
    print(f"{script}: error: {line}", file=sys.stderr, flush=True)
    sys.exit(code)
