"""Which variables a program that is not trusted gets."""

from __future__ import annotations

import pytest

from trt_llm_pipeline.process import reduced

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def test_what_scripts_need_is_passed_and_the_hub_is_shut_off() -> None:
    env = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "LC_ALL": "C", "TOKENIZERS_PARALLELISM": "false"}
    assert reduced({**env, "MAIL": "x", "TRT_LLM_WORKSPACE": "/src"}) == {**env, **OFFLINE}


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AZURE_STORAGE_KEY",
        "TRT_LLM_SIGNING_KEY",
        "CUDA_REGISTRY_PASSWORD",
        "NVIDIA_API_KEY",
        "KUBERNETES_SERVICE_HOST",
        "HF_HOME",
        "SSH_AUTH_SOCK",
    ],
)
@pytest.mark.parametrize("network", [False, True])
def test_no_secret_is_passed(name: str, *, network: bool) -> None:
    assert name not in reduced({name: "x" * 20}, network=network)


def test_proxies_and_the_hubs_address_are_for_those_who_have_the_network() -> None:
    env = {"HTTPS_PROXY": "http://proxy", "HF_ENDPOINT": "http://hub"}
    assert reduced(env) == OFFLINE
    assert reduced(env, network=True) == env


def test_the_operator_adds_variables_by_name_or_pattern() -> None:
    env = {"MY_LICENSE_KEY": "abc", "MY_OTHER": "1", "YOURS": "2"}
    assert reduced(env, network=True, more=["MY_*"]) == {"MY_LICENSE_KEY": "abc", "MY_OTHER": "1"}
