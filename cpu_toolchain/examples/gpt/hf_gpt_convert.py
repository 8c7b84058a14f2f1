"""Converts a Hugging Face GPT-2 into an FT checkpoint, with the options of TensorRT-LLM 0.7.1."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trt_llm_cpu import console
from trt_llm_cpu.options import Parser, Refusals


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__, unsupported)
    parser.add_argument("--out-dir", "-o", required=True, help="the checkpoint goes to <out-dir>/<N>-gpu")
    parser.add_argument("--in-file", "-i", required=True, help="the Hugging Face model directory")
    parser.add_argument(
        "--tensor-parallelism", "-tp", type=int, default=1, help="ranks to split the weights for"
    )
    parser.add_argument(
        "--processes", "-p", type=int, default=4, help="no effect: tensors are streamed one by one"
    )
    parser.add_argument("--calibrate-kv-cache", "-kv", action="store_true", help="not supported on a CPU")
    parser.add_argument("--smoothquant", "-sq", type=float, default=None, help="not supported on a CPU")
    parser.add_argument("--model", default="gpt2", choices=["gpt2", "santacoder", "starcoder"])
    parser.add_argument("--storage-type", "-t", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--dataset-cache-dir", default=None, help="no effect: nothing is calibrated")
    parser.add_argument("--load-model-on-cpu", action="store_true", help="always so")
    parser.add_argument("--convert-model-on-cpu", action="store_true", help="always so")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    from trt_llm_cpu.ft_checkpoint import write_config, write_tensor
    from trt_llm_cpu.gpt2 import find_tensors, read_config
    from trt_llm_cpu.spec import check_parallelism
    from trt_llm_cpu.tensors import open_model

    source = Path(args.in_file)
    ranks = args.tensor_parallelism
    config = read_config(source)
    inter_size = config["n_inner"] or 4 * config["n_embd"]
    check_parallelism(config["n_head"], config["n_head"], {"MLP columns": inter_size}, ranks)
    model = open_model(source)
    tensors = find_tensors(model, config, source)

    out = Path(args.out_dir) / f"{ranks}-gpu"
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.ini").unlink(missing_ok=True)
    for ft_name, name in tensors.items():
        write_tensor(out, ft_name, model.get(name), args.storage_type, ranks)
    # Last, so that its presence means that every tensor is there.
    settings = {"storage_dtype": args.storage_type, "multi_query_mode": False}
    write_config(out, {**vars(args), **config, **settings})
    console.say(f"Wrote {len(tensors)} tensors as {args.storage_type} for {ranks} rank(s) to {out}")


def unsupported(args: argparse.Namespace) -> Refusals:
    if args.smoothquant is not None:
        does = "this CPU toolchain converts to float32, float16 and bfloat16"
        yield "--smoothquant", f"needs a GPU; {does}"
    if args.calibrate_kv_cache:
        yield "--calibrate-kv-cache", "needs a GPU; this CPU toolchain keeps the KV cache in float32"
    if args.model != "gpt2":
        yield "--model", f"{args.model} is not supported by this CPU toolchain; gpt2 is"


if __name__ == "__main__":
    console.run(main)
