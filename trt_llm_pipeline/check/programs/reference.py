"""What a Hugging Face model itself would write, by transformers and torch. See `referring`.

usage: reference.py REQUEST.json REPORT.json
 Loads no code that comes with a model, and asks nobody on the network. The request has the model's folder,
and for each prompt its text, its ids and an engine's answer. The report has for each token of an answer how
far its logit is below the highest, in standard deviations of the logits; the tokens that the model writes
greedily; and the prompt's ids by the model's own tokenizer, with and without special tokens. Or it says
what is absent.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_SMALL = 100_000_000
_ROOM = 1.3  # beside the weights


class CannotAnswerError(Exception):
    """The text says why."""


def main() -> None:
    """Reads the request and writes the report."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    try:
        report = answer(request)
    except CannotAnswerError as reason:
        report = {"absent": str(reason)}
    except Exception as error:  # noqa: BLE001 - whatever keeps a library from loading a model
        first = (str(error).strip() or "without a word").split("\n")[0][:300]
        report = {"absent": f"{type(error).__name__}: {first}"}
    Path(sys.argv[2]).write_text(json.dumps(report), "utf-8")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The report."""
    try:
        torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise CannotAnswerError(f"{sys.executable} has no transformers with torch ({error})") from None
    folder = Path(request["model_dir"])
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS)
    dtype, device = place(torch, size)
    if size < _SMALL:
        torch.set_num_threads(1)  # more would only wait for each other
    model = load(transformers, folder, dtype).to(device).eval()
    tokenizer = own_tokenizer(transformers, folder)
    with torch.no_grad():
        prompts = [
            one(torch, model, device, tokenizer, asked, request["tokens"]) for asked in request["answers"]
        ]
    kind = str(dtype).removeprefix("torch.")
    by = f"transformers {transformers.__version__}, torch {torch.__version__}, {kind} on {device}"
    return {"by": by, "prompts": prompts}


def place(torch: Any, size: int) -> tuple[Any, str]:
    """In which type and where a model of `size` bytes is computed: where it fits with room to spare."""
    if torch.cuda.is_available() and size * _ROOM < torch.cuda.mem_get_info()[0]:
        return (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16), "cuda"
    free = available_memory()
    if size * 2 * _ROOM < free:  # weights of two bytes become four
        return torch.float32, "cpu"
    if size * _ROOM < free:
        return torch.bfloat16, "cpu"
    raise CannotAnswerError(
        f"the model's weights, {size / 1e9:.1f} GB, do not fit into the {free / 1e9:.1f} GB of memory "
        "that are free"
    )


def available_memory() -> int:
    """Bytes that this machine can give without swapping; where nothing says, all that one may hope for."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return sys.maxsize
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), sys.maxsize
    )


def load(transformers: Any, folder: Path, dtype: Any) -> Any:
    """The model."""
    settings = {"local_files_only": True, "trust_remote_code": False}
    kind = transformers.AutoModelForCausalLM
    try:
        return kind.from_pretrained(str(folder), dtype=dtype, **settings)
    except TypeError:  # its name before transformers 4.56
        return kind.from_pretrained(str(folder), torch_dtype=dtype, **settings)


def own_tokenizer(transformers: Any, folder: Path) -> Any:
    """The model's tokenizer; None where it does not load without the repository's code."""
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception:  # noqa: BLE001 - many kinds of errors, and the comparison of tokens goes on without
        return None


def one(
    torch: Any, model: Any, device: str, tokenizer: Any, asked: dict[str, Any], count: int
) -> dict[str, Any]:
    """One prompt's part of the report."""
    prompt, tokens = asked["prompt_tokens"], asked["tokens"]
    encodings = []
    if tokenizer is not None:
        encodings = [
            tokenizer.encode(asked["prompt"], add_special_tokens=special) for special in (True, False)
        ]
    known = model.get_input_embeddings().num_embeddings
    gaps = [float("inf")] * len(tokens)
    if tokens and all(0 <= token < known for token in (*prompt, *tokens)):
        logits = model(torch.tensor([prompt + tokens], device=device)).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, torch.tensor(tokens, device=device)[:, None])[:, 0]
        gaps = ((logits.max(-1).values - chosen) / logits.std(-1)).tolist()
    begin = next((ids for ids in encodings if ids == prompt), encodings[0] if encodings else prompt)
    end = None if tokenizer is None else tokenizer.eos_token_id
    # As far as an answer is the model's first choice, it is what the model writes.
    known_so_far = common(gaps) if begin == prompt else 0
    written = greedy(torch, model, device, begin, tokens[:known_so_far], end, count)
    text = "" if tokenizer is None else tokenizer.decode([token for token in written if token != end])
    return {"gaps": gaps, "tokens": written, "text": text, "encodings": encodings}


def common(gaps: list[float]) -> int:
    """How many tokens are the model's first choice, from the first on."""
    return next((at for at, gap in enumerate(gaps) if gap != 0), len(gaps))


def greedy(
    torch: Any, model: Any, device: str, prompt: list[int], begun: list[int], end: int | None, count: int
) -> list[int]:
    """At most `count` tokens, the end-of-text token included. Each by a whole pass: no cache to go wrong."""
    written = list(begun)
    while prompt and len(written) < count and (end is None or end not in written[-1:]):
        logits = model(torch.tensor([prompt + written], device=device)).logits
        written.append(int(logits[0, -1].argmax()))
    return written


if __name__ == "__main__":
    main()
