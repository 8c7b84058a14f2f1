"""One prediction from its beginning to its end, with its log as it grows."""

from __future__ import annotations

import difflib
import queue
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trt_llm_pipeline.errors import BadArgument, ServerError
from trt_llm_pipeline.submission.api import Api, Prediction
from trt_llm_pipeline.submission.failure import failure
from trt_llm_pipeline.submission.webhook import Receiver

_ENDED = ("succeeded", "failed", "canceled", "aborted")
_POLL_S = 1.0
_SILENCE_S = 10.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Submission:
    """What is asked for.

    Attributes:
        api: of whom.
        inputs: the prediction's inputs.
        version: which version of a model, where the server has several.
        listen: an address of this machine that the server can reach, for webhooks; None for loopback where
            the server is here, and for no webhooks where it is elsewhere.
        config_name: what the user calls the config whose text is sent; None where its address is.
    """

    api: Api
    inputs: Mapping[str, Any]
    version: str | None = None
    listen: str | None = None
    config_name: str | None = None


def submit(asked: Submission, on_log: Callable[[str], None]) -> Prediction:
    """Runs a prediction. An interruption cancels it.

    Args:
        asked: what.
        on_log: gets each new piece of the log. A server that can neither be asked nor send webhooks gives the
            whole log at the end.

    Raises:
        BadArgument: the server has no such input, or no versions.
        PredictionFailed: it has ended without success; with the server's own words and their kind.
        ServerBusy, ServerError: as `Api.create`.
    """
    if asked.version and not asked.api.token:
        raise BadArgument(
            "--model-version is for Replicate and services like it, which take a token; "
            f"{asked.api.url} has one version: leave it out"
        )
    _check_inputs(asked)
    log = _Log(on_log)
    api, body = asked.api, {"input": dict(asked.inputs)}
    if asked.version:
        body["version"] = asked.version  # type: ignore[assignment]
    host = asked.listen or (_LOOPBACK if api.is_local else None)
    if api.token:  # a service, which says where to ask
        ended = _polled(api, body, log)
    elif host:
        ended = _told(api, body, host, log)
    else:
        ended = api.create(body, at_once=False)
    log.take(ended)
    if ended.get("status") != "succeeded":
        raise failure(ended, asked.config_name)
    return ended


def _check_inputs(asked: Submission) -> None:
    """Refuses an input that a Cog server does not know: it would leave it out, and say nothing."""
    known = None if asked.api.token else asked.api.inputs()
    if known is None:
        return
    for name in asked.inputs:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {close[0]}?" if close else f"it takes {', '.join(sorted(known))}"
            raise BadArgument(f"{name} is no input of {asked.api.url}; {advice}")


class _Log:
    """Passes on what is new of a log that is told whole each time."""

    def __init__(self, on_log: Callable[[str], None]) -> None:
        self._on_log = on_log
        self._shown = 0

    def take(self, prediction: Prediction) -> None:
        text = prediction.get("logs")
        if isinstance(text, str) and len(text) > self._shown:
            self._on_log(text[self._shown :])
            self._shown = len(text)


def _told(api: Api, body: Mapping[str, Any], host: str, log: _Log) -> Prediction:
    """Runs a prediction whose events come by webhook."""
    with Receiver(host) as receiver:
        events = {"webhook": receiver.url, "webhook_events_filter": ["logs", "completed"]}
        begun = api.create({**body, **events}, at_once=True)
        try:
            while True:
                try:
                    event = receiver.events.get(timeout=_SILENCE_S)
                except queue.Empty:
                    if not api.is_alive():
                        raise ServerError(f"{api.url} has gone away; its log says why") from None
                    continue
                log.take(event)
                if event.get("status") in _ENDED:
                    return event
        except KeyboardInterrupt:
            with suppress(ServerError):
                api.cancel(begun)
            raise


def _polled(api: Api, body: Mapping[str, Any], log: _Log) -> Prediction:
    """Runs a prediction that is asked about again and again."""
    found = api.create(body, at_once=True)
    address = (found.get("urls") or {}).get("get")
    if not isinstance(address, str):
        raise ServerError(f"{api.url} does not say where to ask about the prediction")
    try:
        while found.get("status") not in _ENDED:
            log.take(found)
            time.sleep(_POLL_S)
            found = api.get(address)
    except KeyboardInterrupt:
        with suppress(ServerError):
            api.cancel(found)
        raise
    return found
