"""What the service's environment decides, read once at the edge and passed inwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from pydantic import SecretStr

from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.model_source import ServicePolicy, check_variables
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.process import Policy
from trt_llm_pipeline.redaction import check_token, secrets_of, token_of, without_tokens
from trt_llm_pipeline.units import parse_size
from trt_llm_pipeline.workspace import Workspace

KEEP_BUILDS = 5
# What a server for strangers refuses, and a machine with one owner allows.
_ONE_OWNER = {
    "TRT_LLM_TIMING_CACHE": "on",
    "TRT_LLM_ALLOW_PRIVATE_ADDRESSES": "1",
    "TRT_LLM_SHARED_MODELS": "1",
}
_SIGNING_KEY = "TRT_LLM_SIGNING_KEY"  # steps are not told where the key lies


@dataclass(frozen=True)
class Settings:
    """A service's settings.

    Attributes:
        workspace: the directory that builds may write ($TRT_LLM_WORKSPACE).
        env: the environment that steps get, without any token.
        token: the Hub token of the environment ($HF_TOKEN), or None.
        cache_folder: where cached steps lie when several workspaces share them; None for the workspace's own.
        secrets: values of the environment that nobody may see: tokens, keys and passwords, by their names.
        step_timeout: seconds a step may take where the config does not say ($TRT_LLM_STEP_TIMEOUT).
        keep_builds: how many successful builds are kept, and how many failed ones ($TRT_LLM_KEEP_BUILDS).
        disk_check: whether a build is refused where its disk looks too small ($TRT_LLM_DISK_CHECK=off).
        fit_check: whether a build is refused where its engine cannot fit ($TRT_LLM_FIT_CHECK=off).
        repository_code: whether code that comes with a model is run ($TRT_LLM_REPOSITORY_CODE).
        cache_limit: bytes that cached steps may take ($TRT_LLM_CACHE_LIMIT); None for a quarter of the disk.
        signing_key: the private key that signs statements ($TRT_LLM_SIGNING_KEY); None leaves them unsigned.
        reach: which addresses may be connected to ($TRT_LLM_ALLOW_PRIVATE_ADDRESSES).
        timing_cache: whether timings of kernels are kept for the next build ($TRT_LLM_TIMING_CACHE).
        sandbox: what steps run in ($TRT_LLM_SANDBOX, $TRT_LLM_STEP_USER, $TRT_LLM_STEP_ENV).
    """

    workspace: Workspace
    env: Mapping[str, str]
    token: str | None
    step_timeout: float | None = None
    keep_builds: int = KEEP_BUILDS
    disk_check: bool = True
    fit_check: bool = True
    cache_limit: int | None = None
    cache_folder: Path | None = None
    secrets: tuple[str, ...] = ()
    signing_key: Path | None = None
    sandbox: Policy = field(default_factory=Policy)
    repository_code: ServicePolicy = "ask"
    timing_cache: bool = False
    reach: Reach = field(default_factory=Reach)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, workspace: Path | None = None) -> Settings:
        """Reads the settings.

        Args:
            env: the environment.
            workspace: wins over $TRT_LLM_WORKSPACE; without both it is ./workspace.

        Raises:
            PipelineError: a variable's value makes no sense.
            BadArgument: the Hub's token cannot be one.
        """
        check_variables(env)
        chosen = workspace or Path(env.get("TRT_LLM_WORKSPACE") or "workspace")
        return cls(
            workspace=Workspace.at(chosen),
            env={name: value for name, value in without_tokens(env).items() if name != _SIGNING_KEY},
            token=token_of(env),
            step_timeout=_number(env, "TRT_LLM_STEP_TIMEOUT", None),
            keep_builds=max(1, int(_number(env, "TRT_LLM_KEEP_BUILDS", KEEP_BUILDS) or KEEP_BUILDS)),
            disk_check=_switch(env, "TRT_LLM_DISK_CHECK"),
            fit_check=_switch(env, "TRT_LLM_FIT_CHECK"),
            cache_limit=_bytes(env, "TRT_LLM_CACHE_LIMIT"),
            secrets=secrets_of(env),
            signing_key=Path(env[_SIGNING_KEY]) if env.get(_SIGNING_KEY) else None,
            sandbox=Policy.from_env(env),
            repository_code=_policy(env, "TRT_LLM_REPOSITORY_CODE"),
            timing_cache=_switch(env, "TRT_LLM_TIMING_CACHE", default="off"),
            reach=Reach.from_env(env),
        )

    @classmethod
    def of_one_owner(cls, env: Mapping[str, str] = os.environ, workspace: Path | None = None) -> Settings:
        """The same on a machine of the user's own, as on the command line and on a fleet's nodes.

        Args, raises: as `from_env`.
        """
        return cls.from_env(one_owner(env), workspace)

    def hub_token(self, given: str | None, in_config: SecretStr | None) -> str | None:
        """The token to use: one given with the request, else the config's, else the environment's.

        Raises:
            BadArgument: the one that was given cannot be a token. Of the others that is known already.
        """
        if given:
            return check_token(given, "the input hf_token")
        return (in_config.get_secret_value().strip() if in_config else None) or self.token


def one_owner(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment in which what is not set is as befits a machine with one owner, and not a server."""
    return {**_ONE_OWNER, **env}


def _switch(env: Mapping[str, str], name: str, default: str = "on") -> bool:
    text = env.get(name) or default
    if text.lower() not in ("on", "off"):
        raise PipelineError(f"{name} is {text!r}; set it to on or off, or unset it")
    return text.lower() == "on"


def _policy(env: Mapping[str, str], name: str) -> ServicePolicy:
    text = (env.get(name) or "ask").lower()
    policies: tuple[ServicePolicy, ...] = get_args(ServicePolicy)
    for policy in policies:
        if text == policy:
            return policy
    raise PipelineError(f"{name} is {text!r}; set it to {', '.join(policies)}, or unset it")


def _number(env: Mapping[str, str], name: str, default: float | None) -> float | None:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < float("inf"):
        raise PipelineError(f"{name} is {text!r}; set it to a number above 0, or unset it")
    return value


def _bytes(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name)
    if not text:
        return None
    size = parse_size(text)
    if size is None:
        raise PipelineError(f"{name} is {text!r}; write a number of bytes, or one with a unit: 500MB, 20GB")
    return size
