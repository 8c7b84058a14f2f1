"""What a config's arguments say of an engine: how it is divided, in which types, and for how many tokens.

The options are those of TensorRT-LLM's scripts from 0.5 on: `build.py` (up to 0.7.1), `hf_*_convert.py`,
`convert_checkpoint.py`, `quantize.py` and `trtllm-build`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Weights = Literal["float", "int8", "int4", "int4_groups", "fp8", "nvfp4"]

#: Bits that one parameter takes where it is quantized. With groups of 128, each has a 16-bit scale too
#: (AWQ, GPTQ); NVFP4 has an 8-bit scale for each 16. Scales by channel are too few to count.
BITS: Mapping[str, float] = {"int8": 8, "int4": 4, "int4_groups": 4 + 16 / 128, "fp8": 8, "nvfp4": 4 + 8 / 16}
BYTES_OF: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "fp8": 1}

_TYPES = {
    "float32": "float32",
    "fp32": "float32",
    "float": "float32",
    "float16": "float16",
    "fp16": "float16",
    "half": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
}
_OFF = frozenset({"false", "0", "no", "off", "none", "disable", "full_prec", ""})
# `weight_only_precision`, and `qformat` of quantize.py.
_WEIGHTS: Mapping[str, Weights] = {
    "int8": "int8",
    "int8_wo": "int8",
    "int8_sq": "int8",
    "int4": "int4",
    "int4_wo": "int4",
    "int4_awq": "int4_groups",
    "int4_gptq": "int4_groups",
    "w4a8_awq": "int4_groups",
    "w4a16_awq": "int4_groups",
    "fp8": "fp8",
    "fp8_pc_pt": "fp8",
    "nvfp4": "nvfp4",
}
_FP8_FLAGS = ("enable_fp8", "use_fp8", "use_fp8_rowwise", "fp8_rowwise_gemm_plugin")
_SMOOTHQUANT = ("use_smooth_quant", "smoothquant", "sq")
_MOST = 1 << 40


@dataclass(frozen=True)
class EngineArguments:
    """What an engine is built for.

    Attributes:
        tp, pp: tensor and pipeline parallelism.
        dtype: the type of what is not quantized: `float32`, `float16` or `bfloat16`.
        weights: the type of attention's and MLP's matrices; `float` is `dtype`.
        kv: the type of the KV cache: `dtype`, `int8` or `fp8`.
        max_batch_size, max_input_len, max_output_len, max_seq_len: as given; None where they are not.
        max_beam_width: sequences that a request is continued with.
        divided_embedding: each rank has a part of the word embedding only.
        by_shard: the conversion holds one file of the model at a time.
        assumed: what was not said and taken for granted, in sentences.
    """

    tp: int = 1
    pp: int = 1
    dtype: str = "float16"
    weights: Weights = "float"
    kv: str = "float16"
    max_batch_size: int | None = None
    max_input_len: int | None = None
    max_output_len: int | None = None
    max_seq_len: int | None = None
    max_beam_width: int = 1
    divided_embedding: bool = False
    by_shard: bool = False
    assumed: tuple[str, ...] = ()

    @property
    def world_size(self) -> int:
        """Ranks, each on a GPU of its own."""
        return self.tp * self.pp

    @property
    def length(self) -> int | None:
        """The longest sequence, prompt and answer together, in tokens; None where nothing says."""
        if self.max_seq_len is not None:
            return self.max_seq_len
        if self.max_input_len is None or self.max_output_len is None:
            return None
        return self.max_input_len + self.max_output_len

    @property
    def length_options(self) -> str:
        """The options that give the longest sequence, in words."""
        given = {"max_input_len": self.max_input_len, "max_output_len": self.max_output_len}
        if self.max_seq_len is not None:
            return "max_seq_len"
        return " and ".join(name for name, value in given.items() if value is not None)

    @property
    def least_length(self) -> int:
        """Tokens that the longest sequence has at least: a prompt and one more, where no more is said."""
        return self.length or (self.max_input_len or 0) + 1

    @property
    def unsaid(self) -> tuple[str, ...]:
        """What would have to be given for it to be known how many tokens are wanted at once."""
        found = [] if self.max_batch_size is not None else ["max_batch_size"]
        if self.length is None:
            found.append("max_seq_len" if self.max_input_len is None else "max_output_len or max_seq_len")
        return tuple(found)

    @property
    def weights_name(self) -> str:
        """The matrices' type in words."""
        return self.dtype if self.weights == "float" else _NAMES.get(self.weights, self.weights)


_NAMES = {"int4_groups": "int4 with scales by group"}


def read_arguments(
    steps: Mapping[str, Mapping[str, bool | str | list[str]]],
    scripts: Mapping[str, str],
    stored: str | None,
) -> EngineArguments:
    """Reads the options of a config's steps.

    Args:
        steps: the options of each step, its references replaced, by the step's name, in their order.
        scripts: the steps' scripts, by the step's name.
        stored: the type in which the model is published, for `dtype: auto`.
    """
    options = {name: {_plain(key): value for key, value in args.items()} for name, args in steps.items()}
    every = _Options([*options.values()][::-1])  # the build's first
    assumed: list[str] = []
    tp, pp = _parallelism(every)
    dtype = _dtype(options, scripts, stored, assumed)
    return EngineArguments(
        tp=tp,
        pp=pp,
        dtype=dtype,
        weights=_weights(every),
        kv=_kv(every, dtype),
        max_batch_size=every.number("max_batch_size"),
        max_input_len=every.number("max_input_len"),
        max_output_len=every.number("max_output_len"),
        max_seq_len=every.number("max_seq_len"),
        max_beam_width=every.number("max_beam_width") or 1,
        divided_embedding=every.on("use_parallel_embedding"),
        by_shard=every.on("load_by_shard"),
        assumed=tuple(assumed),
    )


class _Options:
    """Options of several steps; the first step that has one decides."""

    def __init__(self, steps: Sequence[Mapping[str, bool | str | list[str]]]) -> None:
        self._steps = steps

    def text(self, *names: str) -> str | None:
        """The value of the first of the options that is there; None also for a bare flag."""
        for step in self._steps:
            for name in names:
                if isinstance(value := step.get(name), str):
                    return value.strip()
        return None

    def number(self, *names: str) -> int | None:
        text = self.text(*names)
        if text is None or not text.isascii() or not text.isdigit() or not 0 < int(text[:15]) < _MOST:
            return None
        return int(text[:15])

    def on(self, *names: str) -> bool:
        """Whether one of the flags is there and not said to be off."""
        for step in self._steps:
            for name in names:
                value = step.get(name)
                if value is True or (isinstance(value, str) and value.strip().lower() not in _OFF):
                    return True
        return False


def _plain(key: str) -> str:
    return key.lstrip("-").replace("-", "_").lower()


def _parallelism(every: _Options) -> tuple[int, int]:
    pp = every.number("pp_size", "pipeline_parallelism", "pp") or 1
    tp = every.number("tp_size", "tensor_parallelism", "tp", "infer_gpu_num")
    if tp is None:  # gpt's build.py of 0.5 and 0.7 has world_size alone
        tp = max(1, (every.number("world_size") or 1) // pp)
    return tp, pp


def _dtype(
    options: Mapping[str, Mapping[str, bool | str | list[str]]],
    scripts: Mapping[str, str],
    stored: str | None,
    assumed: list[str],
) -> str:
    """The type of what is not quantized.

    An FT checkpoint's own type wins over `build.py --dtype`: gpt's build.py reads it from `config.ini`.
    """
    convert = _Options([options.get("convert_to_ft", {})])
    if (stored_as := convert.text("storage_type", "t")) is not None and stored_as in _TYPES:
        return _TYPES[stored_as]
    if scripts.get("convert_to_ft", "").rpartition("/")[2] == "hf_gpt_convert.py":
        return "float32"  # its default
    text = _Options([*options.values()][::-1]).text("dtype")
    if text in _TYPES:
        return _TYPES[text]
    if text == "auto":
        published = _TYPES.get(stored or "", "float16")
        return "float16" if published == "float32" else published
    what = "no dtype is given" if text is None else f"the dtype {text[:40]!r} is not known"
    assumed.append(f"{what}, so it is taken to be float16")
    return "float16"


def _weights(every: _Options) -> Weights:
    if (form := every.text("qformat")) is not None and form.lower() not in _OFF:
        return _WEIGHTS.get(form.lower().partition(",")[0], "float")
    if every.on("use_weight_only", "weight_only_precision"):
        return _WEIGHTS.get((every.text("weight_only_precision") or "int8").lower(), "float")
    if every.on(*_SMOOTHQUANT):
        return "int8"
    return "fp8" if every.on(*_FP8_FLAGS) else "float"


def _kv(every: _Options, dtype: str) -> str:
    given = (every.text("kv_cache_dtype") or "").lower()
    if given == "int8" or every.on("int8_kv_cache"):
        return "int8"
    if given.startswith("fp8") or every.on("fp8_kv_cache"):
        return "fp8"
    return dtype
