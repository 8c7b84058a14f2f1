"""Who hands out a fleet's cells: one process at a time, as far as the records can tell.

Two who believe it at the same time would do work twice and still deliver each cell once; see `records`.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from contextlib import suppress

from trt_llm_pipeline.errors import DeliveryError, FleetBusy
from trt_llm_pipeline.fleet.records import Listing, Records, now

_LOOK_EVERY_S = 1.0
_DEAD_AFTER_S = 20.0


class Driving:
    """Holds a fleet for one driver, says that it lives, and sees when it is to stop."""

    def __init__(self, records: Records, listing: Listing, take_over: bool) -> None:
        self._records = records
        self._take_over = take_over
        self._number = max(listing.drivers, default=0)
        self._fields = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "mark": secrets.token_hex(8),
            "started": now(),
        }
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._live, name="fleet-driver", daemon=True)
        self.cancelled = False
        self.superseded = False

    def check(self) -> None:
        """Raises `FleetBusy` where somebody else holds the fleet, and is not to be replaced."""
        if self._number:
            self._refuse_second()

    def __enter__(self) -> Driving:
        while True:
            self.check()
            if self._records.claim_driver(self._number + 1, self._fields):
                break
            self._number += 1
        self._number += 1
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if not self.superseded:
            with suppress(DeliveryError):
                self._records.driver_done(self._number, self._fields)

    def _refuse_second(self) -> None:
        other = self._records.driver(self._number) or {}
        if self._take_over or "ended" in other or self._records.silence(self._number) > _DEAD_AFTER_S:
            return
        raise FleetBusy(
            f"{self._records.address} is being built already, since {other.get('started')} by process "
            f"{other.get('pid')} on {other.get('host')}; follow it with `trt-llm-pipeline fleet status`, or "
            "take it over with `fleet resume --take-over`"
        )

    def _live(self) -> None:
        next_sign = 0.0
        while not self._done.wait(_LOOK_EVERY_S):
            with suppress(DeliveryError):  # the store will be asked again
                if time.monotonic() >= next_sign:
                    self._records.heartbeat(self._number)
                    self.superseded = self._records.has_driver(self._number + 1)
                    next_sign = time.monotonic() + _DEAD_AFTER_S / 5
                self.cancelled = self.cancelled or self._records.is_cancelled()
