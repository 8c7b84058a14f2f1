"""Whether the scripts of a config are for models of the type that a model's `config.json` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trt_llm_pipeline.errors import ConfigError, Mistake
from trt_llm_pipeline.fit.families import KNOWN_FAMILIES
from trt_llm_pipeline.plan import Plan, PlannedStep

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
        ConfigError: the toolchain says itself that a script's example takes no such model.
    """
    family = content.get("model_type")
    if not isinstance(family, str):
        return None
    known = plan.toolchain.models or _TYPES
    wrong = [step for step in plan.steps if family not in known.get(_example(plan, step), (family,))]
    if not wrong:
        return None
    if plan.toolchain.models:
        mistakes = dict.fromkeys(_refusal(plan, step, family) for step in wrong)
        raise ConfigError([*mistakes], plan.config.source.name)
    if family not in KNOWN_FAMILIES:
        return None
    example = _example(plan, wrong[0])
    return (
        f"the scripts of the example {example} are for models of type {' and '.join(known[example])}, as far "
        f"as is known here, and {plan.config.model_id} is of type {family}; {_advice(known, family)}"
    )


def _refusal(plan: Plan, step: PlannedStep, family: str) -> Mistake:
    example, known = _example(plan, step), plan.toolchain.models
    said = f"the example {example} of the {plan.toolchain.title} toolchain builds models of type "
    said += f"{' and '.join(known[example])}, and {plan.config.model_id} is of type {family[:40]}"
    blamed = ("example_name",) if example == step.example.name else (step.name, "script")
    return plan.config.mistake(f"{said}; {_advice(known, family)}", *blamed)


def _example(plan: Plan, step: PlannedStep) -> str:
    """The example that a step's script is of; "" where it is of none."""
    if len(step.program) < 2:
        return ""
    folder = Path(step.program[1]).parent
    return folder.name if folder.is_relative_to(plan.toolchain.examples) else ""


def _advice(known: Mapping[str, tuple[str, ...]], family: str) -> str:
    suited = [example for example, types in known.items() if family in types]
    if suited:
        return f"the example for those is {suited[0]}"
    return "name a model of another type, or an example that takes this one"
