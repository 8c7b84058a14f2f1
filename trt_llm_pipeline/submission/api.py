"""The HTTP API of predictions, as Cog's own server and Replicate speak it: JSON in, JSON out.

https://cog.run/http and https://replicate.com/docs/reference/http. A Cog server has no address to ask about a
prediction (GET /predictions/ID answers 405), so it tells by webhook or in the answer; Replicate names one.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from trt_llm_pipeline.delivery.destination import is_loopback
from trt_llm_pipeline.errors import BadArgument, ServerBusy, ServerError
from trt_llm_pipeline.printable import printable
from trt_llm_pipeline.redaction import check_token

Prediction = Mapping[str, Any]

_REPLICATE = "replicate.com"
_LARGEST_REFUSAL = 64 << 10
_QUICK_S = 60.0
_BUSY = (409, 429, 503)
_NOT_FOUND = 404


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token goes to the server that it is for, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Api:
    """A server of predictions.

    Attributes:
        url: its address, without `/predictions` at the end.
        token: sent as a bearer token; None for none.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """The host's name or number."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, and can reach a port here."""
        return is_loopback(self.host)

    def with_token(self, token: str, given_as: str) -> Api:
        """The same server, with a token; `given_as` is the variable that holds it.

        Raises:
            BadArgument: it would travel unencrypted, or can be none.
        """
        if not self.url.startswith("https://") and not self.is_local:
            raise BadArgument(f"{self.url} is not encrypted, so no token is sent there; use https://")
        return Api(self.url, check_token(token, given_as))

    @property
    def is_replicate(self) -> bool:
        """Whether it is Replicate's."""
        return self.host == _REPLICATE or self.host.endswith(f".{_REPLICATE}")

    def create(self, body: Mapping[str, Any], *, at_once: bool) -> Prediction:
        """Starts a prediction.

        Args:
            body: `input` and more.
            at_once: come back as soon as it has begun; else when it has ended.

        Raises:
            ServerBusy: it has other work.
            ServerError: it cannot be reached, or refuses.
        """
        headers = {"Prefer": "respond-async"} if at_once else {}
        timeout = _QUICK_S if at_once else None
        return self.request("POST", f"{self.url}/predictions", body, headers, timeout)

    def get(self, address: str) -> Prediction:
        """What has become of a prediction, from the address that the server named."""
        if urlsplit(address).hostname != self.host:
            raise ServerError(f"{self.url} names {address} to ask again, which is another server")
        return self.request("GET", address, None, {}, _QUICK_S)

    def cancel(self, prediction: Prediction) -> None:
        """Asks for a prediction to be stopped."""
        named = (prediction.get("urls") or {}).get("cancel")
        address = named or f"{self.url}/predictions/{prediction.get('id')}/cancel"
        if urlsplit(address).hostname == self.host:
            self.request("POST", address, {}, {}, _QUICK_S)

    def inputs(self) -> frozenset[str] | None:
        """The names of a prediction's inputs, as a Cog server describes them; None where it does not.

        Raises:
            ServerError: it cannot be reached.
        """
        try:
            found: Any = self.request("GET", f"{self.url}/openapi.json", None, {}, _QUICK_S)
        except ServerError as error:
            if error.answered:
                return None
            raise
        for key in ("components", "schemas", "Input", "properties"):
            found = found.get(key) if isinstance(found, dict) else None
        return frozenset(found) if isinstance(found, dict) else None

    def is_alive(self) -> bool:
        """Whether anything answers there."""
        try:
            self.request("GET", f"{self.url}/health-check", None, {}, _QUICK_S)
        except ServerError as error:
            return error.answered
        return True

    def request(
        self,
        method: str,
        address: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> dict[str, Any]:
        """One request; the JSON object that is answered, {} for an empty answer."""
        sent = {"Accept": "application/json", **headers}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        data = None
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(address, data, sent, method=method)  # noqa: S310  checked by `address_of`
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=timeout) as answer:
                return _object(answer.read(), self.url)
        except urllib.error.HTTPError as error:
            kind = ServerBusy if error.code in _BUSY else ServerError
            said = _said(error.read(_LARGEST_REFUSAL))
            if not said or error.code == _NOT_FOUND:  # a server of another kind has words for that too
                said = f"{said.rstrip('.')}; check that --to names a prediction server"
            raise kind(f"{self.url} answers HTTP {error.code}{said}", answered=True) from None
        except (OSError, http.client.HTTPException) as problem:
            reason = getattr(problem, "reason", None) or problem
            why = getattr(reason, "strerror", None) or str(reason) or type(problem).__name__
            raise ServerError(f"{self.url} cannot be reached: {why}; check the address of --to") from None


def address_of(text: str) -> str:
    """A server's address as `Api.url` wants it.

    Raises:
        BadArgument: it is none.
    """
    try:
        if not text.isprintable() or " " in text:
            raise ValueError("a space or a control character, or what is no text")
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise ValueError("another kind of address")
        parts.path.encode("ascii")
        host = host.encode("idna").decode()  # as it goes over the wire
    except ValueError:
        left_out = ", and nothing with an @ before HOST" if "@" in text else ""
        raise BadArgument(
            f"{printable(_without_user(text))} is no address of a server; write http://HOST:PORT or "
            f"https://...{left_out}"
        ) from None
    place = f"[{host}]" if ":" in host else host
    netloc = place if port is None else f"{place}:{port}"
    path = parts.path.rstrip("/").removesuffix("/predictions")
    return parts._replace(netloc=netloc, path=path, query="", fragment="").geturl()


def _without_user(text: str) -> str:
    """The scheme, and what follows the last @: what stands before it, no message repeats."""
    scheme, slashes, _ = text.rpartition("@")[0].partition("://")
    place = text.rpartition("@")[2].partition("?")[0]
    return f"{scheme}{slashes}{place}" if slashes else place


def _object(data: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServerError(f"{url} answers with something that is no prediction; check the address of --to")
    return value


def _said(data: bytes) -> str:
    """The refusal's own words."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    detail = told.get("detail") or told.get("error") if isinstance(told, dict) else None
    text = detail if isinstance(detail, str) else json.dumps(detail) if detail else ""
    return f": {text[:1000]}" if text else ""
