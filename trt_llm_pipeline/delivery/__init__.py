"""The way out of a build: kept in its directory, or sent to a destination."""

from trt_llm_pipeline.delivery.attesting import Attesting, beside, signing_key
from trt_llm_pipeline.delivery.destination import Destination, parse_destination
from trt_llm_pipeline.delivery.outbox import Outbox
from trt_llm_pipeline.delivery.output import check_named, check_output, put_output
from trt_llm_pipeline.delivery.reaching import check_reachable

__all__ = [
    "Attesting",
    "Destination",
    "Outbox",
    "beside",
    "check_named",
    "check_output",
    "check_reachable",
    "parse_destination",
    "put_output",
    "signing_key",
]
