"""Tells a prediction's whole error: Cog passes on its text, and nothing that is attached to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trt_llm_pipeline.errors import TrtLlmPipelineError, notes_of


@contextmanager
def telling_all() -> Iterator[None]:
    """Puts the notes of an error that the block raises into its text, a line each.

    Raises:
        TrtLlmPipelineError: what the block raised.
    """
    try:
        yield
    except TrtLlmPipelineError as error:
        error.args = ("\n".join([str(error), *(f"also: {note}" for note in notes_of(error))]),)
        raise
