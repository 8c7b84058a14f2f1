"""The config as it was run: references replaced, directories found, no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from trt_llm_pipeline.config import ArgValue
from trt_llm_pipeline.plan.plan import Plan


def resolved_yaml(plan: Plan, found: Mapping[str, Path]) -> str:
    """YAML text that builds the same engine again, in any workspace.

    Args:
        plan: the plan that was run.
        found: each step's output directory.

    Returns:
        The config with its references replaced and every output directory named; paths in the workspace
        begin with `/src`. Tokens, the query of an address, and `cache`, which is about how this one was made,
        are left out.
    """
    config = plan.config

    def portable(text: str) -> str:
        return plan.workspace.portable(text).replace("${", "$${")

    resolve = plan.resolver(found)

    def value(given: ArgValue) -> Any:
        if given is True:
            return None
        if isinstance(given, list):
            return [portable(resolve(item)) for item in given]
        return portable(resolve(given)) if isinstance(given, str) else given

    result: dict[str, Any] = config.model_dump(
        exclude={"hf_token", "cache"}, exclude_none=True, exclude_unset=True
    )
    if config.model_tar_url is not None:  # a signed address's query is a secret
        result["model_tar_url"] = urlsplit(config.model_tar_url)._replace(query="", fragment="").geturl()
    for name, step in config.steps():
        result[name] = {
            **result[name],
            "output_dir": portable(str(found[name])),
            "args": {key: value(given) for key, given in step.args.items()},
        }
        if step.script is not None:
            result[name]["script"] = resolve(step.script).replace("${", "$${")
    # In ASCII: some characters beyond it, such as U+0085, are line breaks to YAML.
    return str(yaml.safe_dump(result, sort_keys=False, width=1000))
