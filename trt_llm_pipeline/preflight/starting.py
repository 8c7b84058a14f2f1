"""A config to begin with: the example that suits a model and a toolchain, made to fit the model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.errors import ConfigError, Mistake
from trt_llm_pipeline.fit import Device
from trt_llm_pipeline.model_source import ModelRequest, peek_config
from trt_llm_pipeline.preflight.fitting import fitting, refuse
from trt_llm_pipeline.preflight.validation import validate
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.toolchain import PROJECT_ROOT

EXAMPLES = PROJECT_ROOT / "examples"
PRECISIONS = ("fp16", "bf16", "int8", "fp8", "smoothquant")
_FLOATS = ("fp16", "bf16")
#: `model_type` of the models that an example is for, by the beginning of its file's name.
MODEL_TYPES = {
    "falcon": "falcon",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "opt": "opt",
    "qwen": "qwen",
    "qwen1.5": "qwen2",
    "starcoder": "gpt_bigcode",
}
_LENGTHS = ("max_position_embeddings", "n_positions", "seq_length")
#: What trtllm-build of 0.9 and 0.10 takes where a config gives no `max_output_len`, whatever the model.
_DEFAULT_OUTPUT = 1024


@dataclass(frozen=True)
class Example:
    """A config of the library in `examples/`.

    Attributes:
        path: its file.
        model_type: of the models that it is for.
        precision: one of `PRECISIONS`.
        gpus: how many ranks its engine has.
    """

    path: Path
    model_type: str
    precision: str
    gpus: int

    @property
    def shown(self) -> str:
        """Its path for people."""
        return f"examples/{self.path.parent.name}/{self.path.name}"


def examples() -> Iterator[Example]:
    """Every config of the library that another model can be put into, the fewest GPUs first."""
    found = []
    for path in EXAMPLES.glob("*/*.yaml"):
        prefixes = [prefix for prefix in MODEL_TYPES if re.match(rf"{re.escape(prefix)}[-.]", path.name)]
        if prefixes:
            known = re.search(rf"-({'|'.join(PRECISIONS)})-", path.name)
            gpus = re.search(r"-(\d+)gpu", path.name)
            kind = MODEL_TYPES[max(prefixes, key=len)]
            found.append(Example(path, kind, known[1] if known else "fp16", int(gpus[1]) if gpus else 1))
    return iter(sorted(found, key=lambda example: (example.gpus, example.path)))


def begin(
    model_id: str, settings: Settings, *, precision: str | None = None, gpu: Device | None = None
) -> str:
    """Writes a config for a model, for the toolchain at hand.

    Args:
        model_id: `owner/name` on the Hub, which is asked for its `config.json`.
        settings: the workspace and the environment.
        precision: one of `PRECISIONS`; None for 16 bits.
        gpu: what the engine is to be loaded on; None for this machine's.

    Returns:
        The text. It has been validated, and fits.

    Raises:
        ModelSourceError: there is no such model, or the Hub does not answer.
        ConfigError: no example suits the model, the precision, the toolchain and the GPU; says why of each.
    """
    asked = ModelRequest(model_id)
    content = peek_config(asked, settings.workspace.models, token=settings.token, env=settings.env)
    kind = content.get("model_type")
    of_kind = [example for example in examples() if example.model_type == kind]
    wanted = _FLOATS if precision is None else (precision,)
    suitable = [example for example in of_kind if example.precision in wanted]
    if not of_kind:
        known = ", ".join(sorted(set(MODEL_TYPES.values())))
        raise _refusal(f"is of the type {kind!r}, and there are examples for {known} only", model_id)
    if not suitable:
        there = ", ".join(sorted({example.precision for example in of_kind}))
        raise _refusal(f"there is no example of {kind} with {'/'.join(wanted)}; there is {there}", model_id)
    reasons = []
    for example in suitable:
        text = _adapted(example, model_id, content)
        try:
            return _checked(text, example, settings, gpu, _longest(content))
        except ConfigError as error:
            reasons.append(f"{example.shown}: {error.mistakes[0].message}")
    raise _refusal("no example suits it here:\n" + "\n".join(reasons), model_id)


def _checked(text: str, example: Example, settings: Settings, gpu: Device | None, longest: int | None) -> str:
    """The text with a head that says what it was checked against; `ConfigError` where it will not do."""
    # Without the cache every script is asked, so that it is known which options it has.
    validated = validate(text, "config.yaml", settings, ["cache=false"])
    bounded = text if longest is None else _bounded(text, validated.accepted.get("build", ()), longest)
    if bounded != text:
        text, validated = bounded, validate(bounded, "config.yaml", settings)
    fitted = fitting(validated.plan, settings, gpu=gpu)
    if gpu is None:
        refuse(validated.plan, fitted)
    if not fitted.possible:
        raise ConfigError([Mistake(f"it does not fit {gpu.name if gpu else 'this machine'}")])
    count = f"{example.gpus} GPU{'s' * (example.gpus != 1)}"
    place = f" on {count} ({gpu.name})" if gpu else f" on {count}"
    head = [
        f"# {validated.plan.config.model_id}, {example.precision}{place}.",
        f"# Begun with {example.shown}; {validated.in_words()}.",
        "# Every key is in docs/config.md; the options below args are those of the step's own script.",
    ]
    if fitted.assessment is None:
        head.append(f"# Whether it fits is not known: {fitted.reason or 'that check is off'}.")
    return "\n".join([*head, text])


def _adapted(example: Example, model_id: str, content: Mapping[str, Any]) -> str:
    """The example's text with another model, and no more tokens than that takes."""
    lines = example.path.read_text().split("\n")
    first = next(at for at, line in enumerate(lines) if line and not line.startswith("#"))
    text = "\n".join(lines[first:])
    text = re.sub(r"^model_id: .*$", f"model_id: {model_id}", text, count=1, flags=re.MULTILINE)
    text = re.sub(
        r"^allow_repository_code: true$",
        "# The model may come with code of its own. Read it before you allow it to run:\n"
        "# allow_repository_code: true",
        text,
        flags=re.MULTILINE,
    )
    longest = _longest(content)
    return text if longest is None else _shortened(text, longest)


def _longest(content: Mapping[str, Any]) -> int | None:
    """The most tokens that a model takes, by its `config.json`; None where that does not say."""
    return next((content[key] for key in _LENGTHS if isinstance(content.get(key), int)), None)


def _lengths(text: str) -> dict[str, int]:
    """The lengths that a config gives, by their options."""
    return {name: int(found) for name, found in re.findall(r"^ +(max_\w+_len): (\d+)$", text, re.MULTILINE)}


def _bounded(text: str, options: Collection[str], longest: int) -> str:
    """The answer's length given too, where the script would else take its own, which may be too long.

    From 0.11 on, trtllm-build has no `max_output_len` and takes the model's own length for all.
    """
    given = _lengths(text)
    told = "max_output_len" in given or "max_seq_len" in given
    if told or "max_input_len" not in given or "--max_output_len" not in options:
        return text
    left = min(_DEFAULT_OUTPUT, max(1, longest - given["max_input_len"]))
    line = r"^( +)(max_input_len: \d+)$"
    return re.sub(line, rf"\g<1>\g<2>\n\g<1>max_output_len: {left}", text, count=1, flags=re.MULTILINE)


def _shortened(text: str, longest: int) -> str:
    """Lengths that go beyond what the model takes: half of it for the prompt, half for the answer."""
    given = _lengths(text)
    half = max(1, longest // 2)
    changed = {}
    if given.get("max_seq_len", 0) > longest:
        changed["max_seq_len"] = longest
    if given.get("max_input_len", 0) + given.get("max_output_len", 1) > longest:
        changed |= {"max_input_len": half, "max_output_len": max(1, longest - half)}
    for name, value in changed.items():
        text = re.sub(rf"^( +{name}: )\d+$", rf"\g<1>{value}", text, flags=re.MULTILINE)
    return text


def _refusal(message: str, model_id: str) -> ConfigError:
    return ConfigError([Mistake(message)], model_id)
