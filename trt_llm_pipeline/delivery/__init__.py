"""The way out of a build: kept in its directory, or sent to a destination."""

from trt_llm_pipeline.delivery.attesting import Attesting, beside, signing_key
from trt_llm_pipeline.delivery.destination import Destination, parse_destination
from trt_llm_pipeline.delivery.outbox import Outbox

__all__ = [
    "Attesting",
    "Destination",
    "Outbox",
    "beside",
    "parse_destination",
    "signing_key",
]
