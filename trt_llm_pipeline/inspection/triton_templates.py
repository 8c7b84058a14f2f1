"""Fills the templates of a Triton model repository, as the backend's `fill_template.py` does, and whole.

The script replaces what it knows by Python's `string.Template.safe_substitute` and leaves the rest as it
stands, which a server takes for a value. Here nothing may be left.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from trt_llm_pipeline.errors import BadArgument, PipelineError
from trt_llm_pipeline.files import PARTIAL_SUFFIX

REPOSITORY_NAME = "triton_model_repo"
# Where a checkout of the backend, or of TensorRT-LLM from 0.20 on, has them.
_INSIDE = ("", "all_models/inflight_batcher_llm", "triton_backend/all_models/inflight_batcher_llm")
_PLACEHOLDER = re.compile(r"\$\{([^}\n]*)\}?")
_TEMPLATE = "config.pbtxt"
_LARGEST = 4 << 20
_SHOWN = 8


@dataclass(frozen=True)
class Templates:
    """The templates of a model repository.

    Attributes:
        root: the directory with a folder for each model.
        texts: each template's text, by the model's name.
    """

    root: Path
    texts: Mapping[str, str]

    def names(self, model: str) -> set[str]:
        """The names that a model's template wants values for."""
        return {match[1] for match in _PLACEHOLDER.finditer(self.texts[model]) if match[1]}


def read_templates(directory: Path) -> Templates:
    """Reads them.

    Args:
        directory: the backend's `all_models/inflight_batcher_llm`, or its checkout.

    Raises:
        BadArgument: there are none, or one is no template.
        PipelineError: one cannot be read.
    """
    root = _find(directory)
    found = sorted(root.glob(f"*/{_TEMPLATE}"))
    return Templates(root, {path.parent.name: _read(path) for path in found})


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with every known `${name}` replaced."""
    return Template(text).safe_substitute(values)


def fill_repository(templates: Templates, destination: Path, values: Mapping[str, str]) -> list[Path]:
    """Writes a whole model repository: the filled templates, and everything beside them as it is.

    Args:
        templates: what to fill.
        destination: the repository's directory, which must not be there yet. It appears whole or not at all.
        values: see `consumer_configs.template_values`.

    Returns:
        The filled files.

    Raises:
        BadArgument: something is in the destination's place.
        PipelineError: it cannot be written, or a `${...}` is left.
    """
    filled = {model: fill(text, values) for model, text in templates.texts.items()}
    left = [
        f"{templates.root / model / _TEMPLATE}:{number}: {match[0]}"
        for model, text in filled.items()
        for number, line in enumerate(text.split("\n"), start=1)
        for match in _PLACEHOLDER.finditer(line)
    ]
    if left:
        raise PipelineError(_left_over(left))
    if destination.exists() or destination.is_symlink():
        raise BadArgument(f"{destination} is already there; remove it, or name another directory")
    partial = destination.with_name(f".{destination.name}{PARTIAL_SUFFIX}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(templates.root, partial, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        for model, text in filled.items():
            (partial / model / _TEMPLATE).write_text(text)
        partial.rename(destination)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PipelineError(f"{destination} cannot be written: {error}") from None
    return [destination / model / _TEMPLATE for model in filled]


def _find(templates: Path) -> Path:
    for inside in _INSIDE:
        if any((templates / inside).glob(f"*/{_TEMPLATE}")):
            return templates / inside
    lacks = f"has no {_TEMPLATE} one folder down" if templates.is_dir() else "is no directory"
    raise BadArgument(
        f"{templates} {lacks}; name the directory "
        "all_models/inflight_batcher_llm in a checkout of triton-inference-server/tensorrtllm_backend"
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise BadArgument(f"{path} is far too large for a template")
        return path.read_text()
    except UnicodeDecodeError:
        raise BadArgument(f"{path} is no UTF-8 text, so it is no template") from None
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error}") from None


def _left_over(left: Sequence[str]) -> str:
    more = f"\nand {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    listed = "\n".join(left[:_SHOWN])
    return (
        f"nothing was written, because no value is known for:\n{listed}{more}\n"
        "The templates are of a release that is not known here: fill them by hand, from fill_template_values"
    )
