"""Whom a model that is on the disk is given to: one that needed a token is not everybody's."""

from __future__ import annotations

from collections.abc import Mapping

from trt_llm_pipeline.errors import ModelAccessDenied, ModelNotFound, ModelUnavailable, PipelineError
from trt_llm_pipeline.model_source.hub import Hub, endpoint_of, is_offline
from trt_llm_pipeline.model_source.record import Record

_SHARED = "TRT_LLM_SHARED_MODELS"


def check_variables(env: Mapping[str, str]) -> None:
    """Raises `PipelineError` where the value of a variable that this room reads makes no sense."""
    are_shared(env)
    is_offline(env)
    endpoint_of(env)


def are_shared(env: Mapping[str, str]) -> bool:
    """Whether all who use this machine may have every model on it: $TRT_LLM_SHARED_MODELS is 1.

    Raises:
        PipelineError: it is neither 1 nor 0.
    """
    text = env.get(_SHARED) or "0"
    if text not in ("0", "1"):
        raise PipelineError(f"{_SHARED} is {text!r}; set it to 1 or 0, or unset it")
    return text == "1"


def is_free(record: Record | None, env: Mapping[str, str]) -> bool:
    """Whether the model of a record may be given to a request without asking the Hub for it.

    A record that does not say whether a token was needed is from before that was noted.
    """
    return record is None or record.restricted is False or is_offline(env) or are_shared(env)


def ask_for_access(hub: Hub, record: Record, env: Mapping[str, str]) -> None:
    """Has the Hub say whether the request's token may have a model that is on the disk, if it needed one.

    Raises:
        ModelAccessDenied, ModelNotFound: it may not.
        ModelUnavailable: the Hub cannot be asked.
    """
    if is_free(record, env) or not record.files:
        return
    smallest = min(record.files, key=lambda file: file.size)
    try:
        hub.ask_about_file(record.model_id, record.revision, smallest.path)
    except ModelUnavailable as error:
        raise not_asked(record, error) from error


def refused_though_here(
    record: Record, error: ModelAccessDenied | ModelNotFound, env: Mapping[str, str]
) -> ModelAccessDenied | ModelNotFound:
    """The error where the Hub refuses to say what is newest of a model that is there, whole.

    Whoever may have it without asking the Hub is told how.
    """
    if not is_free(record, env):
        return error
    error.args = (  # the same error: what of the request is to blame stays with it
        f"{error}. All of it is on this machine, as of one commit: `revision: {record.revision}` in the "
        "config, or HF_HUB_OFFLINE=1 (--offline), builds with that and does not ask",
    )
    return error


def not_asked(record: Record, error: ModelUnavailable) -> ModelUnavailable:
    """The error where the Hub cannot be asked about a model that is there."""
    return ModelUnavailable(
        f"{record.model_id} is on this machine, but it needed a token, and the Hub could not be asked "
        f"whether this request may have it: {error} On a machine with one owner, "
        f"{_SHARED}=1 gives every model that is there"
    )
