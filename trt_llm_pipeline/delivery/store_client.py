"""The client of an object store, and its errors in words."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trt_llm_pipeline.delivery.destination import is_loopback

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_REMEDIES = {
    "s3": "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a store that is not Amazon's, "
    "AWS_ENDPOINT_URL",
    "gs": "check GOOGLE_APPLICATION_CREDENTIALS",
    "az": "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "file": "check that the directory can be written",
}


def connect(root: str, *, small: bool = False, patient: bool = True) -> ObjectStore:
    """A store's client, with the credentials of the environment.

    Args:
        root: `s3://bucket`, `gs://bucket`, `az://container` or `file:///directory`, which is made.
        small: whether requests are short ones that are given up after seconds, not minutes.
        patient: whether a store that does not answer is asked for minutes.
    """
    from obstore.store import from_url

    make: Any = from_url  # its overloads have one signature for each store; the address tells which
    if root.startswith("file:"):
        local: ObjectStore = make(root, mkdir=True)
        return local
    options: dict[str, Any] = {"connect_timeout": "10s", "timeout": "30s" if small else "10m"}
    if root.startswith("s3:"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        parts = urlsplit(endpoint)
        if parts.scheme == "http" and is_loopback(parts.hostname or ""):
            options["allow_http"] = True
    limit = timedelta(minutes=2) if patient else timedelta(seconds=10)
    retries: dict[str, Any] = {"max_retries": 8 if patient else 2, "retry_timeout": limit}
    store: ObjectStore = make(root, client_options=options, retry_config=retries)
    return store


def reason(problem: BaseException, scheme: str) -> str:
    """Why a store failed, and what to do.

    The client's errors hold addresses, signatures and request ids; only a status and an error code are kept.
    """
    text = str(problem)
    status = re.search(r"status code: (\d{3})|status: (\d{3})", text)
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    said = " ".join(match.group(match.lastindex or 0) for match in (status, code) if match)
    remedy = _REMEDIES[scheme]
    name = type(problem).__name__
    refused = ("PermissionDeniedError", "UnauthenticatedError", "PermissionError")
    if name in refused or "403" in said or "401" in said:
        return f"the store refuses access ({said or name}): {remedy}"
    if isinstance(problem, FileNotFoundError) or name == "NotFoundError":
        return f"the store knows no such bucket or container ({said or name}): create it, or correct its name"
    if said.startswith("4"):
        return f"the store refuses it ({said}): {remedy}"
    if said:
        return f"the store went on failing ({said}): try again later"
    return f"the store could not be reached or its credentials found ({name}): {remedy}"
