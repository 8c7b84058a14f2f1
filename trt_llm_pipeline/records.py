"""The service's own records: JSON files that a step, a crash or an earlier version may have spoilt.

What is read is checked against a shape. What does not fit counts as absent, and is said, never guessed at.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import PlainValidator, TypeAdapter, ValidationError

from trt_llm_pipeline.files import is_the_machines, read_json, write_json

Warn = Callable[[str], None]
T = TypeVar("T")


def silent(_text: str) -> None:
    """For readers that only look; the build itself says what is wrong."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise ValueError("not a number")
    return value


def _inside(value: Any) -> str:
    parts = _text(value).split("/")  # no Path: a record may name very many
    if value.startswith("/") or ".." in parts or set(parts) <= {"", "."} or "\0" in value:
        raise ValueError("a path that leads out")
    return str(value)


# pydantic's own `str` refuses file names that are not UTF-8, which Python keeps as lone surrogates.
Text = Annotated[str, PlainValidator(_text)]
#: A whole number that the system's calls take.
Count = Annotated[int, PlainValidator(_count)]
#: A path that stays below the folder that it is relative to.
Inside = Annotated[str, PlainValidator(_inside)]


def read_record(path: Path, shape: TypeAdapter[T], warn: Warn = silent) -> T | None:
    """A record, or None where there is none, or something that is not one.

    Args:
        path: a JSON file. Links are not followed, and only regular files of a bounded size are read.
        shape: what it has to be like.
        warn: is told where something else is in its place.

    Raises:
        OSError: the system could not read it: too many open files, a faulty disk. To take it for absent then
            would mean to write it anew without what it says.
    """
    try:
        return shape.validate_python(read_json(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        reason = f"{where}: {first['msg']}"[:200].encode("utf-8", "replace").decode()
    except OSError as error:
        if is_the_machines(error):
            raise
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
    except ValueError:
        reason = "it is not JSON"
    warn(f"{path} is not as this service writes it ({reason}), so it counts as absent")
    return None


def write_record(path: Path, value: object) -> None:
    """Puts a record into its place in one go. A directory that has taken the place is moved aside.

    Raises:
        OSError: it cannot be written.
    """
    clear_place(path)
    write_json(path, value)


def clear_place(path: Path) -> None:
    """Moves a directory that is where a file belongs aside, to a name beside it; it may hold anything.

    Raises:
        OSError: it cannot be moved.
    """
    if path.is_dir() and not path.is_symlink():
        path.replace(path.with_name(f"{path.name}.aside-{secrets.token_hex(4)}"))
