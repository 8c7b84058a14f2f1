"""A Hub on loopback: enough of the Hugging Face Hub's HTTP interface to download models from.

An unmodified `huggingface_hub` resolves revisions and downloads files from it; tests ask it for faults
and read what was requested. `python -m trt_llm_pipeline.testing.hub` runs it as a process.

The paths, headers and error codes follow https://huggingface.co/docs/hub/api and what `huggingface_hub`
reads from the answers.
"""

from trt_llm_pipeline.testing.hub.answers import RequestRecord
from trt_llm_pipeline.testing.hub.faults import Fault
from trt_llm_pipeline.testing.hub.link import Link
from trt_llm_pipeline.testing.hub.server import HubServer

__all__ = [
    "Fault",
    "HubServer",
    "Link",
    "RequestRecord",
]
