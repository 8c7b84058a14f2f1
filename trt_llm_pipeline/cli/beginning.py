"""trt-llm-pipeline init: a config to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_llm_pipeline.cli.edge import failures, say
from trt_llm_pipeline.cli.inputs import WorkspaceOption, settings_of


def init(
    model: Annotated[str, typer.Option(metavar="OWNER/NAME", help="The model, as on the Hub.")],
    gpu: Annotated[
        str | None,
        typer.Option(help="The GPU to load the engine on, such as H100. [default: this machine's]"),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp16, bf16, int8, fp8 or smoothquant. [default: fp16 or bf16]")
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write it; - prints it. Nothing is replaced.")
    ] = Path("config.yaml"),
    workspace: WorkspaceOption = None,
) -> None:
    """Write a config for a model and the toolchain at hand.

    It is made from examples/ and the model's config.json.
    """
    with failures(False):
        from trt_llm_pipeline import delivery, fit
        from trt_llm_pipeline.config import check_model_id
        from trt_llm_pipeline.preflight import starting

        settings = settings_of(workspace)
        try:
            check_model_id(model)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--model") from None
        if precision is not None and precision not in starting.PRECISIONS:
            choices = ", ".join(starting.PRECISIONS)
            raise typer.BadParameter(f"{precision!r} is none of {choices}", param_hint="--precision")
        try:
            device = None if gpu is None else fit.find_gpu(gpu)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--gpu") from None
        printed = str(output) == "-"
        if not printed:
            if output.is_file():
                raise typer.BadParameter(
                    f"{output} is there already; name another FILE", param_hint="--output"
                )
            delivery.check_output(output)
        text = starting.begin(model, settings, precision=precision, gpu=device)
        if printed:
            say(text, nl=False)
            return
        with output.open("x") as file:
            file.write(text)
        say(f"wrote {output}: edit it, then trt-llm-pipeline plan {output}", err=True)
        say(output)
