"""The environment of a program that is not trusted: what is listed here, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from trt_llm_pipeline.redaction import is_secret, may_hold_secret

#: Names and patterns of the variables that a step gets, where the service has them.
PASSED = (
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "HOME", "TMPDIR", "USER", "LOGNAME",
    "SHELL", "TERM", "TZ", "LANG", "LANGUAGE", "LC_*", "HOSTNAME", "PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX",
    "CUDA_*", "CUDNN_*", "CUBLAS_*", "NVIDIA_*", "NCCL_*", "NVSHMEM_*", "GLOO_*", "UCX_*",
    "TORCH_*", "PYTORCH_*", "TRITON_*", "TENSORRT_*", "TRT_*", "TLLM_*", "TRTLLM_*", "MODELOPT_*", "JAX_*",
    "XLA_*", "TF_*", "FT_*", "TOKENIZERS_*", "SAFETENSORS_*", "ACCELERATE_*", "CC", "CXX", "NVCC_*",
    "OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "NUMBA_*", "MALLOC_*",
    "OMPI_*", "OPAL_*", "PMIX_*", "PRTE_*", "MPICH_*", "HWLOC_*", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE",
    "RANK", "LOCAL_RANK", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_*", "TRANSFORMERS_VERBOSITY",
)  # fmt: skip
#: More of them for a program that has the network.
PASSED_WITH_NETWORK = (
    "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy",
    "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip
#: Those of them that tell libraries how to compute; where things are and which devices there are is not it.
DECIDING = (
    "CUDA_*", "CUDNN_*", "CUBLAS_*", "NVIDIA_*", "TORCH_*", "PYTORCH_*", "TRITON_*", "TENSORRT_*", "TRT_*",
    "TLLM_*", "TRTLLM_*", "MODELOPT_*", "JAX_*", "XLA_*", "TF_*", "FT_*",
)  # fmt: skip
_PLACES = ("*_VISIBLE_DEVICES", "*_DEVICE_ORDER", "*_HOME", "*_ROOT", "*_PATH", "*_DIR", "TRTLLM_PYTHON")
#: The service's own variables, whose prefix is a toolchain's too.
_OWN = "TRT_LLM_*"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def reduced(env: Mapping[str, str], *, network: bool = False, more: Iterable[str] = ()) -> dict[str, str]:
    """The part of an environment that a program which is not trusted may see.

    Args:
        env: the service's environment.
        network: whether the program has the network; without it the Hub's libraries are told not to try.
        more: names and patterns that the operator adds ($TRT_LLM_STEP_ENV); these also pass what looks like
            a secret.
    """
    patterns = [*PASSED, *(PASSED_WITH_NETWORK if network else ())]
    given = tuple(more)
    kept = {
        name: value
        for name, value in env.items()
        if _matches(name, given)
        or (
            _matches(name, patterns)
            and not fnmatchcase(name, _OWN)
            and not may_hold_secret(name)
            and not is_secret(name, value)
        )
    }
    return kept if network else {**kept, **_OFFLINE}


def deciding(env: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """The part of a step's environment on which its results may depend, wherever it runs.

    Args:
        env, more: as for `reduced`.

    Returns:
        No secret and no place on this machine.
    """
    given = tuple(more)
    return {
        name: value
        for name, value in reduced(env, more=given).items()
        if (_matches(name, DECIDING) or _matches(name, given))
        and not _matches(name, _PLACES)
        and not value.startswith("/")
        and not may_hold_secret(name)
        and not is_secret(name, value)
    }


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
