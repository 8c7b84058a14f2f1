"""A model's `config.json` alone, a few kilobytes, before anything else of it is downloaded."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trt_llm_pipeline.errors import ModelSourceError, ModelUnavailable
from trt_llm_pipeline.files import is_the_machines, read_regular
from trt_llm_pipeline.model_source.access import is_free
from trt_llm_pipeline.model_source.hub import Hub, is_offline
from trt_llm_pipeline.model_source.model_types import ModelRequest
from trt_llm_pipeline.model_source.record import read_record
from trt_llm_pipeline.net.client import Client
from trt_llm_pipeline.net.failures import BadAddress, HttpStatusError, transient_failure
from trt_llm_pipeline.net.retrying import BRIEFLY
from trt_llm_pipeline.net.stopping import StopSwitch

CONFIG_NAME = "config.json"
_LARGEST = 4 << 20
_PIECE = 64 << 10
_SILENCE_S = 5.0
_PATIENCE_S = 10.0
_LOOK_S = 0.1


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model that is on the disk.

    Raises:
        ModelSourceError: there is none, or it is no JSON object.
        OSError: the machine could not read it just now.
    """
    try:
        # A snapshot that the Hub's own client made is a folder of links.
        return _object(read_regular((folder / CONFIG_NAME).resolve(), _LARGEST))
    except OSError as error:
        if is_the_machines(error):
            raise
        raise ModelSourceError(f"its {CONFIG_NAME} cannot be read: {error.strerror}") from None


def peek_config(
    request: ModelRequest, models_dir: Path, *, token: str | None, env: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """The model's `config.json`: the one that is on the disk, or else from the Hub. Writes nothing.

    Of a model that needed a token, it is the Hub's, if that gives it.

    The Hub is asked once and for at most ten seconds: what depends on the answer is worth no more.

    Args:
        request: which model.
        models_dir: where models are.
        token: for gated and private repositories; None takes HF_TOKEN from `env`.
        env: HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read from it.

    Raises:
        ModelSourceError: it cannot be read now; the text says why, as the end of a sentence.
    """
    folder = models_dir / request.model_id
    if _is_the_one(folder, request) and is_free(read_record(folder), env):
        return read_config(folder)
    if request.tar_url is not None:
        raise ModelUnavailable(f"{request.model_id} comes in a tar, which is not downloaded yet")
    if is_offline(env):
        raise ModelUnavailable(
            f"{request.model_id} is not on this machine, and --offline or HF_HUB_OFFLINE is set"
        )
    hub = Hub.from_env(env, token, BRIEFLY, lambda _line: None)
    stop = StopSwitch()
    try:
        return _object(_within(_PATIENCE_S, stop, lambda: _get(hub, request, stop)))
    except HttpStatusError as failure:
        raise hub.refusal(request.model_id, failure, CONFIG_NAME) from None
    except BadAddress as error:
        raise ModelUnavailable(str(error)) from None
    except (OSError, http.client.HTTPException) as error:
        problem = transient_failure(error)
        reason = problem.reason if problem is not None else type(error).__name__
        raise ModelUnavailable(f"{hub.endpoint} did not answer: {reason}") from None


def _is_the_one(folder: Path, request: ModelRequest) -> bool:
    """Whether the folder holds what is asked for: the user's own model, or one that was fetched whole."""
    if not (folder / CONFIG_NAME).is_file():
        return False
    record = read_record(folder)
    if record is None:
        return True
    wanted = request.revision or "main"
    known = (record.revision, record.requested_revision or "main")
    return record.complete and record.model_id == request.model_id and wanted in known


def _get(hub: Hub, request: ModelRequest, stop: StopSwitch) -> bytes:
    url = hub.url_of(request.model_id, request.revision or "main", CONFIG_NAME)
    content = bytearray()
    with (
        Client(stop, silence=_SILENCE_S, reach=hub.reach) as client,
        client.open(url, {**hub.headers(), "Accept-Encoding": "identity"}) as answer,
    ):
        while piece := answer.read(_PIECE):
            content += piece
            if len(content) > _LARGEST:
                raise ModelUnavailable(f"{hub.endpoint} sent a {CONFIG_NAME} that is far too large")
    return bytes(content)


def _within(seconds: float, stop: StopSwitch, work: Callable[[], bytes]) -> bytes:
    """What `work` returns; `TimeoutError` where it takes longer. It runs in a thread, to be left behind."""
    outcome: list[bytes | BaseException] = []
    done = threading.Event()

    def call() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001  handed to the caller
            outcome.append(error)
        done.set()

    threading.Thread(target=call, name="config-json", daemon=True).start()
    waited = 0.0
    while not done.wait(_LOOK_S):  # in short steps, so that a cancellation arrives
        waited += _LOOK_S
        if waited >= seconds:
            stop.throw()
            raise TimeoutError
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ModelSourceError(f"its {CONFIG_NAME} is no JSON object")
    return value
