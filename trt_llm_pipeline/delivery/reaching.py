"""Whether a destination can be reached, asked before hours are spent on what goes there."""

from __future__ import annotations

import os

from trt_llm_pipeline.delivery.destination import Destination
from trt_llm_pipeline.delivery.http_put import PutFailed, ask
from trt_llm_pipeline.delivery.hub_upload import check_repository
from trt_llm_pipeline.delivery.store_client import connect, reason
from trt_llm_pipeline.errors import DeliveryError

# Who may write and not list is told so, and can be tried only by writing.
_NOT_TOLD = "AccessDenied"


def check_reachable(destination: Destination) -> None:
    """Asks a destination for a sign of life. Writes nothing there.

    A bucket is listed, an address asked for its head, the folder of a file looked at, a repository's
    permission asked for. What is answered says that it is there, not that the archive will be taken.

    Raises:
        DeliveryError: it cannot be reached, or refuses.
    """
    if destination.kind == "object store":
        _check_store(destination)
    elif destination.kind == "http":
        _check_address(destination)
    elif destination.kind == "hub":
        check_repository(destination)
    elif destination.path is not None:
        there = next(each for each in destination.path.parents if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise DeliveryError(f"{destination.address} cannot be written: {there} is not ours to write")


def _check_store(destination: Destination) -> None:
    try:
        store = connect(destination.root, small=True, patient=False)
        next(iter(store.list(destination.key, chunk_size=1)), None)
    except Exception as problem:  # noqa: BLE001  a foreign library's errors, translated in one place
        if _NOT_TOLD not in str(problem):
            why = reason(problem, destination.root.partition(":")[0])
            raise DeliveryError(f"{destination.address} cannot be written: {why}") from None


def _check_address(destination: Destination) -> None:
    try:
        ask(destination)
    except PutFailed as failure:
        raise DeliveryError(f"{destination.address} does not answer: {failure}; check the address") from None
