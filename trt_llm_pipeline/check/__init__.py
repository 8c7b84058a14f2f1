"""Does the engine talk? It is loaded and asked to write, through the toolchain's own `run.py`.

Three levels, each on top of the one before:

1. it loads and generates, and its token ids are in the vocabulary;
2. what it writes for three prompts is not degenerate: not empty, not one token over and over, not the same
   for every prompt, and text;
3. it writes what the Hugging Face model itself writes, as far as its precision allows.
 A small model, or one with random weights, may be degenerate by nature. So a suspicion of level 2 is no
verdict: the Hugging Face model is asked too, and only where it would write something else, or cannot be
asked, has the engine failed.
"""

from trt_llm_pipeline.check.asking import find_script
from trt_llm_pipeline.check.stage import CheckRequest, Intention, intention, remove_leftovers, require, run
from trt_llm_pipeline.check.supervised import COMMAND_MARK
from trt_llm_pipeline.check.verdict import Verdict, covers

__all__ = [
    "COMMAND_MARK",
    "CheckRequest",
    "Intention",
    "Verdict",
    "covers",
    "find_script",
    "intention",
    "remove_leftovers",
    "require",
    "run",
]
