"""The one directory that a build may write: what lies where, who made it, and is there room."""

from trt_llm_pipeline.workspace.build import RECORD_NAME, Build
from trt_llm_pipeline.workspace.builds import Builds, began, new_build_id
from trt_llm_pipeline.workspace.ledger import Ledger
from trt_llm_pipeline.workspace.workspace import (
    ARCHIVE_NAMES,
    IMAGE_WORKSPACE,
    SERVICE_FOLDERS,
    FileMark,
    Workspace,
)

__all__ = [
    "ARCHIVE_NAMES",
    "IMAGE_WORKSPACE",
    "RECORD_NAME",
    "SERVICE_FOLDERS",
    "Build",
    "Builds",
    "FileMark",
    "Ledger",
    "Workspace",
    "began",
    "new_build_id",
]
