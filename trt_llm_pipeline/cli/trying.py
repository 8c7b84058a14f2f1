"""trt-llm-pipeline try: one prompt to an engine."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from trt_llm_pipeline.cli.edge import JsonOption, failures, print_json, say
from trt_llm_pipeline.cli.inputs import settings_of

_HOUR_S = 3600.0


def try_(
    archive: Annotated[
        str,
        typer.Argument(
            metavar="ARCHIVE", help="A file, or an https://, s3://, gs://, az:// or hf:// address."
        ),
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to go on from.")],
    tokens: Annotated[int, typer.Option(min=1, help="How many to generate at most.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Generate with an archive's engine through the toolchain's run.py: the text, and tokens per second."""
    with failures(as_json):
        from trt_llm_pipeline import toolchain
        from trt_llm_pipeline.artifact.unpack import unpack
        from trt_llm_pipeline.check.trial import check_prompt, generate, require_engine
        from trt_llm_pipeline.delivery import collect
        from trt_llm_pipeline.preflight.parser_check import option_reader
        from trt_llm_pipeline.process import find_layers
        from trt_llm_pipeline.process.gpus import GpuMonitor
        from trt_llm_pipeline.redaction import Redactor

        check_prompt(prompt)
        settings = settings_of(None)
        tools = toolchain.find(settings.env)
        layers = find_layers(settings.sandbox)
        with tempfile.TemporaryDirectory(prefix="trt-llm-try-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary)
            with collect.opened(archive, settings.reach) as stream:
                unpack(stream, folder, collect.shown(archive))
            require_engine(folder, collect.shown(archive))
            example = _example(tools, folder)
            with GpuMonitor(settings.env) as gpus:
                count = len(gpus.gpus)
            found = generate(
                folder,
                prompt,
                tokens=tokens,
                toolchain=tools,
                example=example,
                gpus=count,
                env=settings.env,
                layers=layers,
                redactor=Redactor([settings.token, *settings.secrets]),
                options=option_reader(tools, settings.env, layers, None),
                timeout=settings.step_timeout or _HOUR_S,
            )
        if as_json:
            print_json(asdict(found))
        else:
            say(found.text)
            say(found.in_words(), err=True)


def _example(tools: Any, folder: Path) -> Path:
    """The example that an unpacked archive's engine is of, and whether this toolchain can run it.

    Raises:
        ToolchainError: another one has built it.
    """
    from trt_llm_pipeline.artifact.statement import CONFIG_NAME
    from trt_llm_pipeline.config import load
    from trt_llm_pipeline.errors import ConfigError, ToolchainError
    from trt_llm_pipeline.files import read_json

    try:
        manifest = read_json(folder / "manifest.json")
        built = manifest.get("toolchain", {}).get("name")
        name = load(folder / CONFIG_NAME).example_name
    except (OSError, ValueError, AttributeError, ConfigError):
        return Path(tools.examples)
    if built in ("cpu", "tensorrt_llm") and built != tools.name:
        raise ToolchainError(
            f"the engine was built by the toolchain {built}, and {tools.root} is {tools.title}; "
            "set TRTLLM_DIR"
        )
    return Path(tools.example_dir(name))
