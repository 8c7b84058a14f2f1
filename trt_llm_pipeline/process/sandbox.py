"""What a step's process gives up before its program is run, for itself and for everything below it.

The supervisor calls `apply` in the process that is about to become the step; the supervisor itself keeps its
rights, so it can still measure and end the tree. As a program of its own, `python -I sandbox.py`, this file
tries what can be held here and prints that as JSON.

Standard library only: the supervisor loads this file, and those it imports, by itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# These files lie beside this one, and no package is there to import them from.
sys.path.append(str(Path(__file__).parent))
import landlock  # type: ignore[import-not-found,unused-ignore]
import namespaces  # type: ignore[import-not-found,unused-ignore]
import seccomp  # type: ignore[import-not-found,unused-ignore]

sys.path.pop()

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 38, 24, 28, 47
_PR_SET_DUMPABLE = 4
_AMBIENT_CLEAR_ALL = 4
_NO_ROOT_LOCKED = 0b11
_MOST_CAPABILITIES = 64
_CAPABILITY_VERSION_3 = 0x20080522


class SandboxError(Exception):
    """A layer that was asked for could not be made; says which."""


def apply(request: Mapping[str, Any]) -> None:
    """Makes the sandbox, in the one process that is about to run a program.

    Args:
        request: `read`, `write`, `devices`: paths; `landlock`: its version or 0; `namespaces`: "own", "user"
            or ""; `seccomp`: whether to filter; `network`: whether it stays; `user`: [uid, gid] or None;
            `cwd`: where the program will run.

    Raises:
        SandboxError: a part of it cannot be made; nothing may be run then.
    """
    _named("no core dumps", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)))
    user = request["user"]
    if request["namespaces"]:
        as_user = request["namespaces"] == "user"
        network = request["network"]
        if as_user and user is not None:  # in a user namespace there is no other user to become
            _named(f"user {user[0]}", lambda: _become(*user))
            user = None

        def enter() -> None:
            namespaces.enter(as_user=as_user, network=network, writable=request["write"])
            os.chdir(request["cwd"])  # the same place, on the mount that is writable

        _named("namespaces", enter)
    version = request["landlock"]
    if version:
        # Below version 4 Landlock knows no ports; where there is a network namespace it need not.
        ports = not request["network"] and not request["namespaces"]
        with landlock.Ruleset(version, ports=ports) as rules:
            _named("Landlock", lambda: _allow(rules, request))
            _give_up_privileges(user)
            _named("Landlock", rules.restrict)
    else:
        _give_up_privileges(user)
    if request["seccomp"]:
        only_tcp = not request["namespaces"]
        code = seccomp.program(network=request["network"], only_tcp=only_tcp)
        _named("the filter of system calls", lambda: seccomp.install(code))


def _named(layer: str, make: Callable[[], object]) -> None:
    try:
        make()
    except (OSError, ValueError) as error:
        raise SandboxError(f"{layer}: {error}") from None


def _allow(rules: landlock.Ruleset, request: Mapping[str, Any]) -> None:
    for path in request["read"]:
        rules.allow(path, landlock.READ)
    for path in request["devices"]:
        rules.allow(path, landlock.DEVICE)
    for path in request["write"]:
        rules.allow(path, landlock.READ | landlock.WRITE)
    if _may_write_proc():
        rules.allow("/proc", landlock.READ | landlock.CHANGE)


def _may_write_proc() -> bool:
    """Whether no user that this process may become can change the kernel there.

    CUDA names its threads in /proc/<pid>/task/<tid>/comm and does not start where it cannot. Landlock cannot
    allow that without /proc/sys, which root may write without any capability. That is a read-only mount
    of its own in our namespace (see `namespaces`) and by a container's default.
    """
    return os.geteuid() != 0 or bool(os.statvfs("/proc/sys").f_flag & os.ST_RDONLY)


def _give_up_privileges(user: list[int] | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_MOST_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to whoever has none to lose
    libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT_LOCKED, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    if user is not None:
        _named(f"user {user[0]}", lambda: _become(*user))
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) < 0:
        raise SandboxError(f"no capabilities: {os.strerror(ctypes.get_errno())}")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        raise SandboxError(f"no new privileges: {os.strerror(ctypes.get_errno())}")


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # A change of user closes this process's own /proc to it, which a user namespace needs.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _try(make: Callable[[], object]) -> str:
    """Does something in a process of its own; why it failed, or ""."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        reason = ""
        try:
            make()
        except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
            reason = str(error) or type(error).__name__
        os.write(write, reason.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        reason = answer.read().decode()
    _, status = os.waitpid(child, 0)
    return reason if status == 0 else reason or f"its process ended with status {status}"


def _filter_in_force() -> None:
    _give_up_privileges(None)
    seccomp.install(seccomp.program(network=False, only_tcp=True))


def tried() -> dict[str, Any]:
    """What can be held here: `landlock` (its version, 0 for none), `namespaces` ("own", "user" or ""),
    `seccomp`, and under `why` the reason for each that cannot."""
    found: dict[str, Any] = {"landlock": 0, "namespaces": "", "seccomp": False, "why": {}}
    if sys.platform != "linux":
        return {**found, "why": dict.fromkeys(("landlock", "namespaces", "seccomp"), "this is not Linux")}
    import tempfile  # a step's process, which loads this file each time, needs it not

    version = landlock.abi()
    with tempfile.TemporaryDirectory() as folder:

        def restricted() -> None:
            with landlock.Ruleset(version, ports=True) as rules:
                rules.allow(folder, landlock.READ)
                _give_up_privileges(None)
                rules.restrict()

        reason = _try(restricted) if version else "the kernel has none, or a container forbids it"
        found["landlock"] = 0 if reason else version
        found["why"]["landlock"] = reason
        for way in ("own", "user"):
            as_user = way == "user"
            reason = _try(lambda: namespaces.enter(as_user=as_user, network=False, writable=[folder]))  # noqa: B023
            if not reason:
                found["namespaces"] = way
                break
        found["why"]["namespaces"] = reason
    known = seccomp.supported()
    reason = _try(_filter_in_force) if known else "this machine's system calls are not known"
    found["seccomp"] = not reason
    found["why"]["seccomp"] = reason
    return found


if __name__ == "__main__":
    print(json.dumps(tried()))
