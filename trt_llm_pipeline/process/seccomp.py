"""A filter of system calls: what Landlock cannot hold, and what no build needs and only exploits use.

See seccomp(2) and bpf filters in linux/filter.h. A filter holds for the process and for all that it starts.

Standard library only: the supervisor loads this file by itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_SET_MODE_FILTER = 1
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

# linux/filter.h and linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000

#: linux/audit.h's name of an architecture, and its numbers of system calls.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_CALLS = {
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "setns": (308, 268), "unshare": (272, 97), "clone": (56, 220), "clone3": (435, 435),
    "socket": (41, 198), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
}  # fmt: skip
_NEVER = (
    "add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd",
    "io_uring_setup", "io_uring_enter", "io_uring_register", "setns",
)  # fmt: skip
_NEW_NAMESPACES = 0x7E020000
_AF_INET, _AF_INET6, _AF_PACKET, _AF_VSOCK = 2, 10, 17, 40
_STREAM, _TYPE_MASK, _TCP = 1, 0xF, 6
_MSG_FASTOPEN = 0x20000000
_FLAGS_OF = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}

_Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether this machine's system calls are known here."""
    return platform.machine() in _ARCHITECTURES


def program(*, network: bool, only_tcp: bool) -> bytes:
    """The filter for this machine.

    Args:
        network: whether the network stays as it is.
        only_tcp: whether, without a network, what Landlock does not hold is refused: everything but TCP, and
            TCP's way round connect(2).
    """
    audit, column = _ARCHITECTURES[platform.machine()]
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, audit),
        refuse,
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32),
        refuse,
    ]

    def on(call: str, block: list[_Instruction]) -> None:
        """Adds what is done for one system call, before the next is looked at."""
        block = [*block, (_LOAD, 0, 0, _NUMBER)]
        code.extend([(_JUMP_EQUAL, 0, len(block), _CALLS[call][column]), *block])

    def argument(index: int) -> _Instruction:
        return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)  # the lower half: both machines are little-endian

    for call in _NEVER:
        on(call, [refuse])
    for call in ("unshare", "clone"):
        on(call, [argument(0), (_JUMP_SET, 0, 1, _NEW_NAMESPACES), refuse])
    # Its flags are behind a pointer, which no filter can follow; the C library then uses clone.
    on("clone3", [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)])
    if not network:
        for domain in (_AF_PACKET, _AF_VSOCK):
            on("socket", [argument(0), (_JUMP_EQUAL, 0, 1, domain), refuse])
    if only_tcp and not network:
        for domain in (_AF_INET, _AF_INET6):
            block: list[_Instruction] = [
                argument(0),
                (_JUMP_EQUAL, 0, 8, domain),
                argument(1),
                (_AND, 0, 0, _TYPE_MASK),
                (_JUMP_EQUAL, 1, 0, _STREAM),
                refuse,
                argument(2),
                (_JUMP_EQUAL, 2, 0, 0),
                (_JUMP_EQUAL, 1, 0, _TCP),
                refuse,
            ]
            on("socket", block)
        for call, index in _FLAGS_OF.items():
            on(call, [argument(index), (_JUMP_SET, 0, 1, _MSG_FASTOPEN), refuse])
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(code: bytes) -> None:
    """Puts a filter into force for this process. It must have given up new privileges before."""
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_), 0, 0) < 0:
        code_ = ctypes.get_errno()
        raise OSError(code_, os.strerror(code_), "seccomp")
