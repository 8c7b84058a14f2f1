"""Why a prediction has failed: whose fault it was, from the server's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trt_llm_pipeline.errors import ConfigError, PredictionFailed, TrtLlmPipelineError
from trt_llm_pipeline.submission.api import Prediction

_PREFIX = "Prediction failed: "
_CLASS = re.compile(r"([A-Za-z_]\w*): ")
_CANCELED = ("canceled", "aborted")
# How a server calls a config whose text it was sent; see `server.sent`.
_SENT = re.compile(r"(?m)^(?:config(?=:)|(\d+ mistakes in )config(?=:$))")


def failure(prediction: Prediction, config_name: str | None = None) -> PredictionFailed:
    """The error that a prediction has ended with.

    Cog writes `Prediction failed: CLASS: message`, the prefix once or several times; the class says whose
    fault it was, where it is one of this library's.

    Args:
        prediction: the server's answer.
        config_name: what the user calls the config whose text was sent; None where its address was.
    """
    status, text = prediction.get("status"), prediction.get("error")
    if not isinstance(text, str) or not text:
        if status in _CANCELED:
            return PredictionFailed("it was cancelled on the server", kind="interrupted")
        return PredictionFailed(f"{status or 'the server says no status'}; its log says why")
    while text.startswith(_PREFIX):
        text = text[len(_PREFIX) :]
    match = _CLASS.match(text)
    cause = _ours().get(match[1]) if match else None
    if match is None:  # not an exception's words but the server's own, such as "Worker crashed"
        return PredictionFailed(f"{text}; the log of the server says more")
    if cause is None:
        return PredictionFailed(text)
    text = text[match.end() :]
    if config_name and issubclass(cause, ConfigError):
        text = _SENT.sub(lambda found: f"{found[1] or ''}{config_name}", text)
    return PredictionFailed(text, kind=cause.kind, cause=cause.__name__)


def _ours() -> dict[str, type[TrtLlmPipelineError]]:
    return {each.__name__: each for each in _tree(TrtLlmPipelineError)}


def _tree(root: type[TrtLlmPipelineError]) -> Iterator[type[TrtLlmPipelineError]]:
    yield root
    for below in root.__subclasses__():
        yield from _tree(below)
