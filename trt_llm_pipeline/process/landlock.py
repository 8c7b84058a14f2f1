"""Landlock: a process gives up rights for itself and for everything that it will ever start.

See https://docs.kernel.org/userspace-api/landlock.html for the calls and for what each version (ABI) of them
can hold. Rights are given to hierarchies of files and can only be added up; what no rule allows is refused.

Standard library only: the supervisor loads this file by itself.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
_REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_MAKE_DEVICES = 1 << 6 | 1 << 11  # character and block

READ = EXECUTE | READ_FILE | READ_DIR
#: Everything but making device files.
WRITE = ((1 << 16) - 1) & ~_MAKE_DEVICES & ~IOCTL_DEV
#: To change files that are there.
CHANGE = WRITE_FILE | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | IOCTL_DEV

BIND_TCP, CONNECT_TCP = 1, 2
_SCOPES = 3  # abstract UNIX sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def abi() -> int:
    """The kernel's version of Landlock; 0 where there is none, or where it may not be used."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except OSError:
        return 0


class Ruleset:
    """What a process will be allowed. Use as a context manager; `restrict` puts it into force.

    Args:
        version: of Landlock, from `abi`; what it cannot hold is left out.
        ports: whether all TCP is to be refused; no port is ever allowed.
    """

    def __init__(self, version: int, *, ports: bool) -> None:
        handled = (1 << 13) - 1
        for since, right in ((2, _REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
            if version >= since:
                handled |= right
        self._handled = handled
        self._attributes = _Ruleset(handled, BIND_TCP | CONNECT_TCP if ports and version >= 4 else 0, 0)
        self._size = 8
        if version >= 4:
            self._size = 16
        if version >= 6:
            self._attributes.scoped, self._size = _SCOPES, 24
        self._fd = -1

    def __enter__(self) -> Ruleset:
        size = ctypes.c_size_t(self._size)
        self._fd = _call(_CREATE_RULESET, ctypes.byref(self._attributes), size, ctypes.c_uint32(0))
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def allow(self, path: str, rights: int) -> None:
        """Allows `rights` at and below a path. What does not exist, or is a link, is left out."""
        try:
            place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        try:
            allowed = rights & self._handled
            mode = os.fstat(place).st_mode
            if not stat.S_ISDIR(mode):
                allowed &= _FILE_RIGHTS
            if allowed and not stat.S_ISLNK(mode):
                rule = ctypes.byref(_PathBeneath(allowed, place))
                _call(
                    _ADD_RULE, ctypes.c_int(self._fd), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)
                )
        finally:
            os.close(place)

    def restrict(self) -> None:
        """Puts the rules into force for this process. It must have given up new privileges before."""
        _call(_RESTRICT_SELF, ctypes.c_int(self._fd), ctypes.c_uint32(0))
