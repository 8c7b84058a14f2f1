"""Namespaces of a step's own: no network but its loopback, no shared memory but its own, read-only mounts.

Possible for whoever has CAP_SYS_ADMIN, and for anybody where the machine permits user namespaces; a
container's default permits neither. See namespaces(7), user_namespaces(7) and mount_setattr(2).

Standard library only: the supervisor loads this file by itself.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_NEWNS, _NEWIPC, _NEWUSER, _NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MOUNT_SETATTR = 442  # the same on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
#: What of /proc changes the kernel; the rest belongs to processes. As in containers.
_KERNELS = (
    b"/proc/sys",
    b"/proc/sysrq-trigger",
    b"/proc/irq",
    b"/proc/bus",
    b"/proc/fs",
    b"/proc/acpi",
    b"/proc/scsi",
)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def enter(*, as_user: bool, network: bool, writable: Iterable[str]) -> None:
    """Moves this process, which must have a single thread, into namespaces of its own.

    Args:
        as_user: by way of a user namespace, in which this process keeps its user and group.
        network: whether the network stays as it is.
        writable: the directories that stay writable; every other mount becomes read-only, but for what of
            /proc belongs to processes.

    Raises:
        OSError: that is not permitted here.
    """
    flags = _NEWNS | _NEWIPC | (0 if network else _NEWNET)
    uid, gid = os.getuid(), os.getgid()
    _unshare(flags | (_NEWUSER if as_user else 0))
    if as_user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    if not network:
        _raise_loopback()
    _make_read_only(writable)


def _unshare(flags: int) -> None:
    _check(_libc().unshare(ctypes.c_int(flags)), "unshare")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _make_read_only(writable: Iterable[str]) -> None:
    places = [os.fsencode(os.path.realpath(place)) for place in writable]
    _mount(b"none", b"/", _MS_REC | _MS_PRIVATE)
    _set_attributes(b"/", _AT_RECURSIVE, _MountAttributes(_ATTR_RDONLY, 0, 0, 0))
    _set_attributes(b"/proc", 0, _MountAttributes(0, _ATTR_RDONLY, 0, 0))
    for place in _KERNELS:
        if Path(os.fsdecode(place)).exists():
            _mount(place, place, _MS_BIND | _MS_REC)
            _set_attributes(place, _AT_RECURSIVE, _MountAttributes(_ATTR_RDONLY, 0, 0, 0))
    for place in places:
        _mount(place, place, _MS_BIND | _MS_REC)
        _set_attributes(place, _AT_RECURSIVE, _MountAttributes(0, _ATTR_RDONLY, 0, 0))


def _mount(source: bytes, target: bytes, flags: int) -> None:
    result = _libc().mount(source, target, None, ctypes.c_ulong(flags), None)
    _check(result, f"mount {os.fsdecode(target)}")


def _set_attributes(path: bytes, flags: int, attributes: _MountAttributes) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc().syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        path,
        ctypes.c_uint(flags),
        ctypes.byref(attributes),
        size,
    )
    _check(result, f"mount_setattr {os.fsdecode(path)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
