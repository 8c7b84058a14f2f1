"""What a Hugging Face GPT-2 or Llama itself would write, by plain numpy: what engines can be compared with.
 TensorRT-LLM has no such script; there torch and transformers are at hand, which this toolchain does
without. The
request and the report are JSON files: the model's folder, and for each prompt an engine's answer as token
ids; for each token how far its logit is below the highest in standard deviations of the logits, and what
the model writes greedily itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trt_llm_cpu import console


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request", type=Path, help="a JSON file: model_dir, tokens, answers")
    parser.add_argument("report", type=Path, help="the JSON file to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()

    import numpy as np
    from trt_llm_cpu.reference import Reference
    from trt_llm_cpu.tokenizer import load_tokenizer

    request = json.loads(args.request.read_text("utf-8"))
    folder = Path(request["model_dir"])
    reference, codec = Reference(folder), load_tokenizer(folder)

    def one(asked: dict[str, Any]) -> dict[str, Any]:
        prompt, tokens = asked["prompt_tokens"], asked["tokens"]
        if all(0 <= token < reference.vocab_size for token in (*prompt, *tokens)):
            logits = reference.logits([*prompt, *tokens])[len(prompt) - 1 :]
            gaps = [
                float((row.max() - row[token]) / row.std())
                for row, token in zip(logits, tokens, strict=False)
            ]
        else:
            gaps = [float("inf")] * len(tokens)
        own = codec.encode(asked["prompt"])
        # As far as an answer is the model's first choice, it is what the model writes.
        same = next((at for at, gap in enumerate(gaps) if gap != 0), len(gaps)) if own == prompt else 0
        written: list[int] = tokens[:same]
        while len(written) < request["tokens"] and codec.end_id not in written[-1:]:
            written.append(int(reference.logits([*own, *written])[-1].argmax()))
        text = codec.decode([token for token in written if token != codec.end_id])
        return {"gaps": gaps, "tokens": written, "text": text, "encodings": [own]}

    with np.errstate(over="ignore"):
        prompts = [one(asked) for asked in request["answers"]]
    report = {"by": f"numpy {np.__version__}, float32", "prompts": prompts}
    args.report.write_text(json.dumps(report), "utf-8")


if __name__ == "__main__":
    console.run(main)
