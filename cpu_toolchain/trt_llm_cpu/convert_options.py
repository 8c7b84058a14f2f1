"""What the `convert_checkpoint.py` scripts of 0.9 share: their options and what they refuse.

Imports nothing heavy, so that the arguments are checked at once.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trt_llm_cpu.console import say
from trt_llm_cpu.legacy_build import weight_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trt_llm_cpu.options import Refusals
    from trt_llm_cpu.spec import DecoderSpec
    from trt_llm_cpu.weights import Weight

_NO_SUPPORT = "not supported on a CPU"
_FLAGS_REFUSED = {
    "per_channel": "belongs to --smoothquant, which needs",
    "per_token": "belongs to --smoothquant, which needs",
    "per_group": "belongs to int4 weights, which need",
    "int8_kv_cache": "needs",
}
_SUPPORTED = "float32, float16, bfloat16 and int8 weight-only (--use_weight_only) are supported"


def add_common_options(parser: argparse.ArgumentParser, precisions: Sequence[str]) -> None:
    """Adds the options that gpt's and llama's converter have in common, with 0.9.0's names.

    Args:
        parser: to add them to.
        precisions: the choices of `--weight_only_precision`; int8 is the one that works here.
    """
    add = parser.add_argument
    add("--model_dir", default=None, help="the Hugging Face model directory")
    add("--output_dir", default="tllm_checkpoint", help="where the checkpoint goes")
    add("--tp_size", type=int, default=1, help="ranks to split the weights for")
    add("--pp_size", type=int, default=1, help="1: pipeline parallelism is not supported on a CPU")
    add("--dtype", default="float16", choices=["float32", "bfloat16", "float16"], help="storage type")
    add("--use_weight_only", action="store_true", help="int8 weights with a scale for each output channel")
    add(
        "--weight_only_precision",
        const="int8",
        nargs="?",
        default=None,
        choices=precisions,
        help="int8, with --use_weight_only",
    )
    add("--smoothquant", "-sq", type=float, default=None, help=_NO_SUPPORT)
    add("--int8_kv_cache", action="store_true", help=_NO_SUPPORT)
    add("--per_channel", action="store_true", help="of --smoothquant")
    add("--per_token", action="store_true", help="of --smoothquant")
    add("--use_parallel_embedding", action="store_true", help="split the embedding for the ranks too")
    add("--embedding_sharding_dim", type=int, default=0, choices=[0, 1], help="0 vocabulary, 1 hidden size")
    add("--use_embedding_sharing", action="store_true", help="leave a tied head out")
    add("--workers", type=int, default=1, help="no effect: tensors are streamed one by one")


def unsupported(args: argparse.Namespace) -> Refusals:
    """What this toolchain does not do of the options that gpt's and llama's converter have in common."""
    if args.smoothquant is not None:
        yield "--smoothquant", f"needs a GPU; {_SUPPORTED}"
    for option, why in _FLAGS_REFUSED.items():
        if getattr(args, option, False):
            yield f"--{option}", f"{why} a GPU; {_SUPPORTED}"
    yield from weight_only(args)
    if args.pp_size != 1:
        yield "--pp_size", f"{args.pp_size} is not supported by this CPU toolchain; --tp_size is"
    if args.model_dir is None:
        yield "--model_dir", "is needed; this toolchain converts Hugging Face models"


def convert(args: argparse.Namespace, spec: DecoderSpec, weights: Sequence[Weight]) -> None:
    """Writes the unified checkpoint that the options ask for."""
    from trt_llm_cpu.unified import write_checkpoint

    spec = replace(spec, int8=args.use_weight_only)
    directory = Path(args.output_dir)
    write_checkpoint(
        directory,
        spec,
        weights,
        tp_size=args.tp_size,
        embedding_axis=args.embedding_sharding_dim if args.use_parallel_embedding else None,
        share_embedding=args.use_embedding_sharing,
    )
    kind = f"{spec.dtype} with int8 weights" if spec.int8 else spec.dtype
    say(f"Wrote a {spec.num_layers}-layer {spec.family} as {kind} for {args.tp_size} rank(s) to {directory}")
