"""Writes what serving an archive needs into a directory: `inspect ARCHIVE --write-config DIR`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.engine.limits import engine_limits
from trt_llm_pipeline.errors import ArtifactError, BadArgument
from trt_llm_pipeline.files import appearing
from trt_llm_pipeline.inspection import consumer_configs, triton_templates
from trt_llm_pipeline.inspection.checks import settings
from trt_llm_pipeline.inspection.consumer_configs import COG_TRITON_NAME, VALUES_NAME
from trt_llm_pipeline.inspection.inspect_archive import Inspection
from trt_llm_pipeline.inspection.readiness import CONFIG_NAME


@dataclass(frozen=True)
class Written:
    """What was written: the files, and what should be known of them, one sentence each."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"files": [str(path) for path in self.files], "notes": list(self.notes)}


def write_configs(
    found: Inspection, directory: Path, *, engine_dir: str | None = None, templates: Path | None = None
) -> Written:
    """Writes cog-triton's `config.yaml`, the values for the backend's `fill_template.py`, and its repository.

    Args:
        found: the archive that was inspected.
        directory: where to write; made if need be. What is already there is not replaced.
        engine_dir: where the archive will be unpacked on the server; None for where cog-triton does.
        templates: the backend's `all_models/inflight_batcher_llm`; None writes no model repository.

    Raises:
        ArtifactError: the archive has no engine of one part, or its `config.json` does not say enough.
        BadArgument: a file is in the way, the directory cannot be made, `engine_dir` cannot be written as a
            value, or `templates` holds none.
        PipelineError: a template has something left, or a file cannot be read or written.
    """
    limits = engine_limits(_config(found), found.label)
    place = engine_dir or consumer_configs.DEFAULT_ENGINE_DIR
    values = consumer_configs.template_values(limits, place)
    read = None if templates is None else triton_templates.read_templates(templates)
    texts = {
        COG_TRITON_NAME: consumer_configs.cog_triton_config(limits, settings(found.checks), place),
        VALUES_NAME: consumer_configs.values_text(values),
    }
    if read is not None:
        for model in read.texts:
            wanted = {name: value for name, value in values.items() if name in read.names(model)}
            texts[f"{VALUES_NAME}.{model}"] = consumer_configs.values_text(wanted)
    for name in texts:
        if (directory / name).exists():
            raise BadArgument(f"{directory / name} is already there; remove it, or name another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadArgument(f"{directory} cannot be made: {error.strerror}") from None
    files: list[Path] = []
    if read is not None:  # first, because it is what can fail
        repository = directory / triton_templates.REPOSITORY_NAME
        files += triton_templates.fill_repository(read, repository, values)
    for name, text in texts.items():
        with appearing(directory / name) as file:
            file.write(text.encode())
        files.append(directory / name)
    return Written(tuple(files), tuple(consumer_configs.notes(limits)))


def _config(found: Inspection) -> dict[str, Any]:
    content = found.contents.kept.get(CONFIG_NAME)
    if content is None:
        raise ArtifactError(f"{found.label} has no {CONFIG_NAME} at its top, so nothing can be told from it")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ArtifactError(f"{found.label}: its {CONFIG_NAME} is no JSON object; build the engine again")
    return value
