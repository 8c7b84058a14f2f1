"""The archive: packed reproducibly, and read again."""

from trt_llm_pipeline.artifact.entries import ArchivedFile, FinishedArchive
from trt_llm_pipeline.artifact.pack import pack_engine
from trt_llm_pipeline.artifact.reader import ArchiveContents, read_archive

__all__ = [
    "ArchiveContents",
    "ArchivedFile",
    "FinishedArchive",
    "pack_engine",
    "read_archive",
]
