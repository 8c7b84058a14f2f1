"""The model: from the Hub, a tar's address or a folder of the user's, to `models/<id>`."""

from trt_llm_pipeline.model_source.access import check_variables
from trt_llm_pipeline.model_source.choice import model_files
from trt_llm_pipeline.model_source.model_types import (
    CodeFile,
    DownloadPlan,
    ModelRequest,
    RemoteFile,
    Snapshot,
)
from trt_llm_pipeline.model_source.peek import peek_config, read_config
from trt_llm_pipeline.model_source.repository_code import Permission, ServicePolicy
from trt_llm_pipeline.model_source.source import fetch, plan

__all__ = [
    "CodeFile",
    "DownloadPlan",
    "ModelRequest",
    "Permission",
    "RemoteFile",
    "ServicePolicy",
    "Snapshot",
    "check_variables",
    "fetch",
    "model_files",
    "peek_config",
    "plan",
    "read_config",
]
