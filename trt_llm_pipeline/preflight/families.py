"""Whether an example's scripts are for models of the type that a model's `config.json` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.fit.families import KNOWN_FAMILIES
from trt_llm_pipeline.plan import Plan

#: By the folders of TensorRT-LLM's `examples/`; types that nothing here knows are left out.
_TYPES: Mapping[str, tuple[str, ...]] = {
    "bloom": ("bloom",),
    "falcon": ("falcon", "RefinedWeb", "RefinedWebModel"),
    "gemma": ("gemma", "gemma2"),
    "gpt": ("gpt2", "gpt_bigcode"),
    "gptj": ("gptj",),
    "gptneox": ("gpt_neox",),
    "llama": ("llama", "mistral", "mixtral"),
    "mpt": ("mpt",),
    "opt": ("opt",),
    "qwen": ("qwen", "qwen2", "qwen3"),
}


def unsuited(plan: Plan, content: Mapping[str, Any]) -> str | None:
    """Why the model seems to be one for another example's scripts; None where nothing says so.

    Args:
        plan: what would be built.
        content: of the model's `config.json`.

    Raises:
        ConfigError: the toolchain says itself that the example takes no such model.
    """
    family = content.get("model_type")
    own = [step.example for step in plan.steps if _is_of_example(step.program, str(step.example))]
    if not own or not isinstance(family, str):
        return None
    example, model = own[0].name, plan.config.model_id
    known = plan.toolchain.models or _TYPES
    if family in known.get(example, (family,)):
        return None
    if plan.toolchain.models:
        message = f"the example {example} of the {plan.toolchain.title} toolchain builds models of type "
        message += f"{' and '.join(known[example])}, and {model} is of type {family[:40]}"
        raise ConfigError(
            [plan.config.mistake(f"{message}; {_advice(known, family)}", "example_name")],
            plan.config.source.name,
        )
    if family not in KNOWN_FAMILIES:
        return None
    return (
        f"the scripts of the example {example} are for models of type {' and '.join(known[example])}, as far "
        f"as is known here, and {model} is of type {family}; {_advice(known, family)}"
    )


def _is_of_example(program: tuple[str, ...], example: str) -> bool:
    return len(program) > 1 and program[1].rpartition("/")[0] == example


def _advice(known: Mapping[str, tuple[str, ...]], family: str) -> str:
    suited = [example for example, types in known.items() if family in types]
    if suited:
        return f"the example for those is {suited[0]}"
    return "name a model of another type, or an example that takes this one"
