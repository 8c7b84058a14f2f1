"""What a config names and its source has not: the source's words, at the config's line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trt_llm_pipeline.errors import ModelNotFound, NoSuchModel, RequestPart
from trt_llm_pipeline.model_source import ModelRequest
from trt_llm_pipeline.plan import Plan

_KEYS: Mapping[RequestPart, str] = {
    "name": "model_id",
    "revision": "revision",
    "format": "weight_format",
    "address": "model_tar_url",
}


@contextmanager
def located(plan: Plan, request: ModelRequest) -> Iterator[None]:
    """While a source is asked for what a config names: says the config's line where it has no such thing.

    Args:
        plan: of the config.
        request: one of the plan's.

    Raises:
        NoSuchModel: the source has none.
    """
    try:
        yield
    except ModelNotFound as error:
        mistake = plan.config.mistake(f"{error}", *_place(plan, request, error))
        raise NoSuchModel([mistake], plan.config.source.name) from error


def _place(plan: Plan, request: ModelRequest, error: ModelNotFound) -> tuple[str, ...]:
    part = "name" if error.part == "revision" and request.revision is None else error.part
    if request.kind == "model":
        return (_KEYS[part],)
    name = next(name for name, wanted in plan.dataset_requests.items() if wanted == request)
    return ("datasets", name, "revision" if part == "revision" else "id")
