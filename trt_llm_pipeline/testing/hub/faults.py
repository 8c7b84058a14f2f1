"""Faults that the loopback Hub commits on request."""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["status", "reset", "stall", "short", "corrupt", "slow", "longer", "ignore_range", "moved"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong, where, and how often.

    Attributes:
        kind: `status` answers with `status`; `reset` sends `after` bytes of the body and resets the
            connection; `stall` sends them, then nothing for `seconds`, then closes (metadata is late by as
            much); `short` announces only `after` bytes and ends properly; `longer` announces and sends
            `after` zeros more; `corrupt` turns over one bit of byte `after`; `slow` sends `after` bytes a
            second; `ignore_range` sends the whole file for a Range request; `moved` redirects to the same
            address with `status`.
        match: pattern for the request's path (`*/resolve/*model.safetensors`).
        times: how many requests it spoils before all is well again.
        method: the only method that it applies to.
        status: for `status`.
        retry_after: seconds for the Retry-After header, or None for no header.
        after: bytes.
        seconds: for `stall`.
    """

    kind: Kind
    match: str = "*"
    times: int = 1
    method: str = "GET"
    status: int = 500
    retry_after: int | None = None
    after: int = 0
    seconds: float = 60.0


class FaultBook:
    """The faults still to come; safe to use from several threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The first fault that applies to the request; counts it as committed."""
        with self._lock:
            for place, fault in enumerate(self._faults):
                if fault.method == method and fnmatch.fnmatchcase(path, fault.match):
                    if fault.times <= 1:
                        del self._faults[place]
                    else:
                        self._faults[place] = replace(fault, times=fault.times - 1)
                    return fault
        return None
