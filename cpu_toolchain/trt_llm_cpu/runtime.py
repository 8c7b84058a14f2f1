"""An engine directory, loaded and generating."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from trt_llm_cpu.console import BadInputError, UnsupportedError
from trt_llm_cpu.dtypes import storage_type
from trt_llm_cpu.engine_file import Engine, read_engine
from trt_llm_cpu.spec import DecoderSpec, reading
from trt_llm_cpu.tensors import read_json


@dataclass(frozen=True)
class Limits:
    """What an engine was built for: sequences at once, tokens in, tokens out."""

    batch_size: int
    input_len: int
    output_len: int


@dataclass
class Cache:
    """Keys and values of the tokens so far, and which of them are tokens and not padding.

    Attributes:
        values: `past_*` name to tensor.
        mask: int64 [B, P].
    """

    values: dict[str, onnxruntime.OrtValue]
    mask: np.ndarray


class Session:
    """A loaded engine.

    Args:
        engine: an engine file, opened.
        limits: what it was built for.

    Raises:
        BadInputError: ONNX Runtime refuses the engine, for example one that a newer release compiled.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.spec = DecoderSpec.from_json(engine.facts["spec"])
        self.limits = limits
        # The arrays are views of the mapped file, used in place: they must outlive the session.
        self._engine = engine
        self._session = _load(engine)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def empty_cache(self, batch: int) -> Cache:
        """A cache of no tokens for `batch` sequences."""
        spec = self.spec
        nothing = np.zeros((batch, spec.num_kv_heads, 0, spec.head_size), np.float32)
        names = (f"past_{kind}_{layer}" for layer in range(spec.num_layers) for kind in ("key", "value"))
        return Cache({name: _value(nothing) for name in names}, np.zeros((batch, 0), np.int64))

    def step(
        self, ids: np.ndarray, cache: Cache, *, mask: np.ndarray | None = None, every: bool = False
    ) -> tuple[np.ndarray, Cache]:
        """Feeds new tokens.

        Args:
            ids: int64 [B, S].
            cache: of the tokens before them.
            mask: int64 [B, S], 0 for padding (which is on the left); all tokens without it.
            every: logits of every new token and not of the last one alone.

        Returns:
            Logits, float32 [B, S or 1, vocabulary], and the cache with the new tokens in it.
        """
        seen = np.concatenate([cache.mask, np.ones_like(ids) if mask is None else mask], axis=1)
        last = ids.shape[1] - 1
        feeds = {
            "input_ids": _value(ids),
            "position_ids": _value(self.positions(seen, ids.shape[1])),
            "attention_mask": _value(seen),
            "logit_positions": _value(np.arange(0 if every else last, last + 1)),
            **cache.values,
        }
        results = self._session.run_with_ort_values(self._outputs, feeds)
        by_name = dict(zip(self._outputs, results, strict=True))
        logits = by_name.pop("logits").numpy()
        values = {name.replace("present_", "past_", 1): value for name, value in by_name.items()}
        return logits, Cache(values, seen)

    @staticmethod
    def positions(seen: np.ndarray, new: int) -> np.ndarray:
        """The position of each of the last `new` columns in its own sequence, padding not counted."""
        return np.maximum(np.cumsum(seen, axis=1) - 1, 0)[:, seen.shape[1] - new :]

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, end_id: int | None = None
    ) -> list[list[int]]:
        """Continues each prompt greedily.

        Args:
            prompts: token ids, at least one each.
            max_new_tokens: how many to add at most.
            end_id: the token that ends a sequence; it is not returned.

        Raises:
            BadInputError: an empty prompt, or a token that the vocabulary lacks.
            UnsupportedError: more than the engine was built for.
        """
        self._check(prompts, max_new_tokens)
        longest = max(map(len, prompts))
        ids = np.zeros((len(prompts), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        logits, cache = self.step(ids, self.empty_cache(len(prompts)), mask=mask)
        texts: list[list[int]] = [[] for _ in prompts]
        ended = [False] * len(prompts)
        for made in range(1, max_new_tokens + 1):
            chosen = logits[:, -1].argmax(axis=-1)
            for row, token in enumerate(chosen.tolist()):
                ended[row] = ended[row] or token == end_id
                if not ended[row]:
                    texts[row].append(token)
            if all(ended) or made == max_new_tokens:
                break
            logits, cache = self.step(chosen[:, None], cache)
        return texts

    def _check(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        longest = max(map(len, prompts), default=0)
        if not prompts or not min(map(len, prompts)):
            raise BadInputError("there is no token to start from; give some input text.")
        if not all(0 <= token < self.spec.vocab_size for prompt in prompts for token in prompt):
            raise BadInputError(
                f"the tokenizer gives tokens beyond the engine's vocabulary of {self.spec.vocab_size}; "
                "it belongs to another model."
            )
        for what, asked, allowed in (
            ("sequences at once (max_batch_size)", len(prompts), self.limits.batch_size),
            ("input tokens (max_input_len)", longest, self.limits.input_len),
            ("output tokens (max_output_len)", max_new_tokens, self.limits.output_len),
            ("tokens in all (max_position_embeddings)", longest + max_new_tokens, self.spec.max_positions),
        ):
            if asked > allowed:
                raise UnsupportedError(f"this engine was built for {allowed} {what}; {asked} were asked for.")


def load_engine_dir(directory: Path) -> Session:
    """Loads the engine of a directory that `build.py` or `trtllm-build` wrote.

    Raises:
        BadInputError: `config.json` or the engine is missing or damaged.
        UnsupportedError: the engine has several ranks.
    """
    path = directory / "config.json"
    config = read_json(path)
    with reading(path):
        if "builder_config" in config:
            built = config["builder_config"]
            ranks = built["tensor_parallel"] * built.get("pipeline_parallel", 1)
            name = f"{built['name']}_{built['precision']}_tp{ranks}_rank0.engine"
        else:
            built = config["build_config"]
            ranks = config["pretrained_config"]["mapping"]["world_size"]
            name = "rank0.engine"
        limits = Limits(*(int(built[f"max_{what}"]) for what in ("batch_size", "input_len", "output_len")))
    if ranks != 1:
        raise UnsupportedError(f"{directory} holds an engine of {ranks} ranks; a CPU engine has one rank.")
    engine = directory / name
    if not engine.is_file():
        raise BadInputError(f"{engine} is missing.")
    return Session(read_engine(engine), limits)


def _load(engine: Engine) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    names = list(engine.weights)
    values = [_typed_value(dtype, array) for dtype, array in engine.weights.values()]
    options.add_external_initializers(names, values)
    # Twice, because each folded weight is also packed for the matrix kernels.
    if 2 * _expanded_bytes(engine) > _available_memory():
        # The graph is optimised already; what loading adds is to fold the casts to float32 into the weights.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(engine.graph, options, ["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its exceptions share no base of their own
        compiled, here = engine.facts.get("onnxruntime"), onnxruntime.__version__
        raise BadInputError(
            f"{engine.path} cannot be loaded; ONNX Runtime {compiled} compiled it and {here} is here: "
            f"{str(error).splitlines()[0]}"
        ) from None


def _expanded_bytes(engine: Engine) -> int:
    # Folded weights decode faster, where there is room for them.
    return sum(4 * array.size for dtype, array in engine.weights.values() if dtype != "float32")


def _available_memory() -> int:
    """Bytes that this machine can give without swapping; where nothing says, all that one may hope for."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return sys.maxsize
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), sys.maxsize
    )


def _typed_value(dtype: str, array: np.ndarray) -> onnxruntime.OrtValue:
    if dtype == "bfloat16":
        # numpy's bfloat16 is ml_dtypes'; ONNX Runtime wants the bits and the type's number.
        bits: Any = array.view(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, storage_type(dtype).onnx)
    return _value(array)


def _value(array: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
