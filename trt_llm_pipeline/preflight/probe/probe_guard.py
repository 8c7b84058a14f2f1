"""Keeps a script from doing anything but parse, while its parser is asked. Part of `parser_probe.py`.

Three things could go wrong on the way to the parser, and each has its guard. A script without a parser would
run to its end: its source is looked at first (`mentions_parser`). A script may write, connect or start
programs before it parses: an audit hook refuses (PEP 578). A script may fork or start workers that import it
again: they end as soon as they begin.

Standard library only, and Python 3.8 or newer.
"""

# Without pathlib, which would add to the start-up time.
# ruff: noqa: PTH100, PTH115, PTH117, PTH118, PTH119, PTH123

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from typing import Any

_MARKS = (b"argparse", b"ArgumentParser")
_MOST_FILES = 200
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Libraries that read a command line without argparse: module -> name, and the methods to stop in.
_OTHER_TOOLS = {"click.core": ("click", ("BaseCommand.make_context", "Command.make_context"))}


def find_source(module: str, *, as_program: bool) -> str | None:
    """A module's file, or with `as_program` the one that `python -m module` runs; None where there is none.

    Found without importing the packages above it.
    """
    spec, places = None, None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:number]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    if places and as_program:
        spec = _find(module + ".__main__", places)
    return spec.origin if spec is not None and spec.has_location else None


def _find(name: str, places: list[str] | None) -> Any:
    for finder in sys.meta_path:  # every finder, because editable installations bring their own
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec(name, places) if find_spec is not None else None
        if spec is not None:
            return spec
    return None


def mentions_parser(source: str, folders: Sequence[str]) -> bool:
    """Whether a script, or a module that it imports, names argparse.

    Modules inside `folders` are followed through their own imports; of others (a console script's package)
    only what the script itself imports is looked at.
    """
    waiting, seen = [source], {source}
    while waiting and len(seen) < _MOST_FILES:
        file_name = waiting.pop()
        try:
            with open(file_name, "rb") as file:
                text = file.read()
        except OSError:
            continue
        if any(mark in text for mark in _MARKS):
            return True
        if file_name != source and not any(_is_below(file_name, folder) for folder in folders):
            continue
        for name in _imports(text):
            found = find_source(name, as_program=False)
            if found is not None and found.endswith(".py") and found not in seen:
                seen.add(found)
                waiting.append(found)
    return False


def _imports(text: bytes) -> list[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def importing() -> bool:
    """Whether an import is going on in this thread."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class RefusedError(PermissionError):
    """What the script gets for something that a check does not allow."""


class Guard:
    """The audit hook and its helpers.

    Args:
        scratch: the only directory that may be written.
        script: the file that must not be started again.
    """

    def __init__(self, scratch: str, script: str) -> None:
        self._scratch = os.path.realpath(scratch)
        self._script = os.path.realpath(script)
        path_events = ("mkdir", "rmdir", "remove", "truncate", "chmod", "chown", "utime", "setxattr")
        self._handlers: dict[str, Callable[[tuple[Any, ...]], None]] = {
            "open": self._open,
            "os.rename": self._rename,
            "os.link": lambda args: self._change(args[1], args[3]),
            "os.symlink": lambda args: self._change(args[1], args[2]),
            "sqlite3.connect": self._database,
            "socket.connect": self._connect,
            "socket.sendto": self._connect,
            "socket.sendmsg": self._connect,
            "subprocess.Popen": self._start,
            "os.posix_spawn": self._start,
            "os.system": lambda args: self._refuse(f"start {os.fsdecode(args[0])}"),
            "os.exec": lambda args: self._refuse(f"become {os.fsdecode(args[0])}"),
            "os.kill": self._kill,
            "os.killpg": lambda _: self._refuse("end other processes"),
        }
        for event in path_events:
            self._handlers["os." + event] = lambda args: self._change(args[0], args[-1])

    def install(self, other_tool: Callable[[str], None]) -> None:
        """Begins to guard; `other_tool` is called with the name of another tool that reads the options."""
        handlers = self._handlers

        def hook(event: str, args: tuple[Any, ...]) -> None:
            handler = handlers.get(event)
            if handler is not None:
                handler(args)

        os.register_at_fork(after_in_child=lambda: os._exit(0))
        _still_multiprocessing()
        sys.meta_path.insert(0, _OtherTools(other_tool))
        sys.addaudithook(hook)

    def refused_in(self, error: BaseException) -> str | None:
        """What was refused, if that is what stopped the script."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, RefusedError):
                return str(cause.args[1])
            cause = cause.__cause__ or cause.__context__
        return None

    def _refuse(self, what: str) -> None:
        raise RefusedError(1, what)

    def _open(self, args: tuple[Any, ...]) -> None:
        path, mode, flags = args
        writes = flags & _WRITES if isinstance(flags, int) else any(c in (mode or "r") for c in "wax+")
        if writes and not isinstance(path, int):
            full = os.path.realpath(os.fsdecode(path))
            if full.startswith("/dev/") and not full.startswith("/dev/shm/"):  # noqa: S108
                return
            if not _is_below(full, self._scratch):
                self._refuse(f"write {full}")

    def _change(self, path: Any, dir_fd: Any = -1) -> None:
        if isinstance(path, int):
            return
        name = os.fsdecode(path)
        if isinstance(dir_fd, int) and dir_fd >= 0 and not os.path.isabs(name):
            name = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
        folder, leaf = os.path.split(os.path.abspath(name))
        full = os.path.join(os.path.realpath(folder), leaf)
        if not _is_below(full, self._scratch):
            self._refuse(f"change {full}")

    def _rename(self, args: tuple[Any, ...]) -> None:
        self._change(args[0], args[2])
        self._change(args[1], args[3])

    def _database(self, args: tuple[Any, ...]) -> None:
        name = os.fsdecode(args[0]) if args else ""
        if name and not name.startswith(("file:", ":memory:")):
            self._change(name)

    def _connect(self, args: tuple[Any, ...]) -> None:
        address = args[1]
        if isinstance(address, tuple):  # a path (AF_UNIX) stays on this machine
            self._refuse(f"connect to {address[0]}")

    def _start(self, args: tuple[Any, ...]) -> None:
        program = os.fsdecode(args[0]) if args[0] is not None else ""
        words = args[1] if isinstance(args[1], (list, tuple)) else [args[1]]
        texts = [os.fsdecode(word) for word in words if isinstance(word, (str, bytes, os.PathLike))]
        name = os.path.basename(texts[0] if texts else program)
        again = any(os.path.realpath(text) == self._script for text in texts)
        # Libraries ask ldconfig, uname or nvidia-smi while they are imported; that is not the script's work.
        if again or name.startswith("python") or not importing():
            self._refuse(f"start {program or name}")

    def _kill(self, args: tuple[Any, ...]) -> None:
        pid, number = args
        if number == 0 or pid == os.getpid():
            return
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            parent = -1
        if parent != os.getpid():
            self._refuse("end other processes")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _still_multiprocessing() -> None:
    """Workers of `multiprocessing` that start a new interpreter end at once, like those that fork.

    They would import the script again, without this program around it. The tracker of shared resources is
    left alone: it runs nothing of the script's, and locks cannot be made without it.
    """
    try:
        import _posixsubprocess
    except ImportError:
        return
    original = _posixsubprocess.fork_exec

    def fork_exec(argv: Any, *rest: Any) -> int:
        caller = sys._getframe(1).f_code.co_filename.replace(os.sep, "/")
        words = b" ".join(os.fsencode(word) for word in argv)
        if caller.endswith("multiprocessing/util.py") and b"resource_tracker" not in words:
            return os.fork()
        return int(original(argv, *rest))

    _posixsubprocess.fork_exec = fork_exec


class _OtherTools(MetaPathFinder):
    """Puts a stop into the tools of `_OTHER_TOOLS` as they are imported."""

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop = stop

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _OTHER_TOOLS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module
        tool, entries = _OTHER_TOOLS[name]
        stop = self._stop

        def exec_module(module: Any) -> None:
            run(module)
            for entry in entries:
                owner_name, _, attribute = entry.rpartition(".")
                owner = getattr(module, owner_name, None) if owner_name else module
                if owner is not None and attribute in vars(owner):
                    setattr(owner, attribute, lambda *_, **__: stop(tool))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
