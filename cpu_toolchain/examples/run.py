"""Generates text with an engine, greedily, with the options of TensorRT-LLM's run.py that apply here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trt_llm_cpu import console


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine_dir", default="engine_outputs", help="what build.py or trtllm-build wrote")
    parser.add_argument("--tokenizer_dir", help="where the tokenizer is; the engine's directory without it")
    parser.add_argument("--input_text", nargs="+", default=["Once upon a time"], help="one text or several")
    parser.add_argument(
        "--input_file",
        help="token ids instead of texts: a row each (.csv, .npy); or texts, a line each (.txt)",
    )
    parser.add_argument(
        "--output_csv", type=Path, help="write token ids there and print no text: see --output_npy"
    )
    parser.add_argument(
        "--output_npy",
        type=Path,
        help="the same as int32: prompt and what follows, a row each, filled with the end",
    )
    parser.add_argument("--no_prompt_template", action="store_true", help="no effect: there are no templates")
    parser.add_argument(
        "--no_add_special_tokens", action="store_true", help="a text's own tokens, without those in front"
    )
    parser.add_argument("--max_output_len", type=int, required=True, help="tokens to add at most")
    parser.add_argument(
        "--max_input_length", type=int, default=923, help="longer inputs keep this many tokens"
    )
    parser.add_argument("--end_id", type=int, help="the token that ends a text, instead of the tokenizer's")
    parser.add_argument("--num_beams", type=int, default=1, help="1: decoding is greedy")
    parser.add_argument("--temperature", type=float, default=1.0, help="no effect: decoding is greedy")
    parser.add_argument("--top_k", type=int, default=1, help="1: decoding is greedy")
    parser.add_argument("--top_p", type=float, default=0.0, help="no effect: decoding is greedy")
    parser.add_argument("--log_level", default="error", help="no effect")
    parser.add_argument("--streaming", action="store_true", help="no effect: the text is printed at its end")
    parser.add_argument(
        "--use_py_session", action="store_true", help="no effect: there is one kind of session"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.num_beams != 1 or args.top_k > 1:
        raise console.UnsupportedError(
            "a CPU engine decodes greedily; supported are --num_beams 1 and --top_k 1."
        )
    if args.max_output_len < 1 or args.max_input_length < 1:
        raise console.UnsupportedError("--max_output_len and --max_input_length must be at least 1.")

    from trt_llm_cpu.runtime import load_engine_dir
    from trt_llm_cpu.token_files import padded, read_prompts, write_rows
    from trt_llm_cpu.tokenizer import load_tokenizer

    codec = load_tokenizer(Path(args.tokenizer_dir or args.engine_dir))
    session = load_engine_dir(Path(args.engine_dir))
    encode = codec.encode_bare if args.no_add_special_tokens else codec.encode
    if args.input_file is None:
        prompts = [encode(text)[: args.max_input_length] for text in args.input_text]
    else:
        read = read_prompts(Path(args.input_file), encode)
        prompts = [ids[-args.max_input_length :] for ids in read]
    end_id = codec.end_id if args.end_id is None else args.end_id
    outputs = session.generate(prompts, args.max_output_len, end_id)
    if args.output_csv or args.output_npy:
        write_rows(padded(prompts, outputs, args.max_output_len, end_id), args.output_csv, args.output_npy)
        return
    for number, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        console.say(f'Input [Text {number}]: "{codec.decode(prompt)}"')
        console.say(f'Output [Text {number} Beam 0]: "{codec.decode(output)}"')


if __name__ == "__main__":
    console.run(main)
