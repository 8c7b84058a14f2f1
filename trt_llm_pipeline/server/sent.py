"""What to call a config that came with a request.

Cog writes what a request's file input holds to a temporary file, whose name is random and ends in the
address's last part, or in `file` and a suffix for a data: URI. Its name would tell the user nothing.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath

SENT_NAME = "config"

_TEMPORARY = re.compile(r"tmp[a-z0-9_]{8}(.*)", re.DOTALL)


def sent_name(path: str, name: str) -> str:
    """The name to use in messages.

    Args:
        path: where Cog has put the config, or the path on the server that the request named.
        name: what it is called otherwise.
    """
    match = _TEMPORARY.fullmatch(PurePosixPath(path).name)
    if match is None or Path(path).parent != Path(tempfile.gettempdir()):
        return name
    rest = match[1]
    return SENT_NAME if PurePosixPath(rest).stem in ("", "file") else rest
