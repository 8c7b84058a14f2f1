"""trt-llm-pipeline inspect and verify: what is in an archive, and whether it is what it says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from trt_llm_pipeline.cli.edge import JsonOption, failures, leave, print_json, say


def inspect(
    engine: Annotated[
        str,
        typer.Argument(
            metavar="ENGINE", help="A file, or an https://, s3://, gs://, az:// or hf:// address."
        ),
    ],
    serve_on: Annotated[
        str | None, typer.Option(help="The GPUs that will serve it: H100, or their compute capability, sm90.")
    ] = None,
    trt_llm: Annotated[
        str | None, typer.Option(help="The TensorRT-LLM release that will serve it: 0.9.0.")
    ] = None,
    world_size: Annotated[int | None, typer.Option(min=1, help="WORLD_SIZE there.")] = None,
    write_config: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write what serving needs there: config.yaml, fill_template_values."
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Fill the backend's all_models/inflight_batcher_llm as a whole, too."
        ),
    ] = None,
    engine_dir: Annotated[
        str | None,
        typer.Option(help="Where the server has the engine. [default: where cog-triton unpacks it]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is in an archive, and whether it can be served.

    By cog-triton: ready, not ready or unverified.

    The exit code is 5 where it is not ready. --serve-on and --trt-llm settle most of what is unverified.
    """
    with failures(as_json):
        from trt_llm_pipeline import inspection
        from trt_llm_pipeline.delivery import collect
        from trt_llm_pipeline.net.addresses import Reach
        from trt_llm_pipeline.settings import one_owner

        serve_on = None if serve_on is None else _capability(serve_on)
        if trt_llm is not None:
            _check_release(trt_llm)
        if write_config is None and (templates or engine_dir):
            raise typer.BadParameter("--templates and --engine-dir say what --write-config writes; add it")
        python = os.environ.get("TRTLLM_PYTHON") or sys.executable
        reach = Reach.from_env(one_owner())
        try:
            with collect.source(engine, reach) as source:
                found = inspection.inspect(
                    source,
                    label=collect.shown(engine),
                    serve_on=serve_on,
                    trt_llm=trt_llm,
                    world_size=world_size,
                    python=python,
                    env=os.environ,
                    reach=reach,
                )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        written = None
        if write_config is not None:
            written = inspection.write_configs(
                found, write_config, engine_dir=engine_dir, templates=templates
            )
        if as_json:
            told = {**found.as_json(), "written": written.as_json() if written else None}
            print_json(_judged(told, found.verdict != "not ready"))
        else:
            say(found.as_text())
            for path in written.files if written else ():
                say(f"wrote {path}")
        for note in written.notes if written and not as_json else ():
            say(f"note: {note}", err=True)
        if found.verdict == "not ready":
            leave("check")


def _judged(told: dict[str, Any], good: bool) -> dict[str, Any]:
    """What is printed as JSON: a bad verdict says its kind, as an error does."""
    return told if good else {**told, "kind": "check"}


def _capability(given: str) -> str:
    """The compute capability that `--serve-on` means: one as such, or that of the GPU of that name."""
    from trt_llm_pipeline.fit import capability_of
    from trt_llm_pipeline.inspection.serving import compute_capability

    try:
        return capability_of(given) or compute_capability(given)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or a GPU such as H100", param_hint="--serve-on") from None


def _check_release(given: str) -> None:
    from trt_llm_pipeline.inspection.serving import release

    try:
        release(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--trt-llm") from None


def verify(
    archive: Annotated[
        str,
        typer.Argument(
            metavar="ARCHIVE", help="A file, or an https://, s3://, gs://, az:// or hf:// address."
        ),
    ],
    key: Annotated[
        Path | None, typer.Option(help="Demand a signature by this public key (PEM).", metavar="PUBLIC_KEY")
    ] = None,
    statement: Annotated[
        str | None,
        typer.Option(help="The statement, where it does not lie beside the archive: a file or an address."),
    ] = None,
    any_compression: Annotated[
        bool, typer.Option("--any-compression", help="Accept the same content in other compressed bytes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check an archive against its statement.

    That says how it was built. The exit code is 0 if all holds, 5 if something does not or the archive is
    damaged, and 2 if there is no such archive or statement, or the key is not there or none.
    """
    with failures(as_json):
        from trt_llm_pipeline.artifact.dsse import load_verifying_key
        from trt_llm_pipeline.delivery import collect
        from trt_llm_pipeline.inspection.verify import verify as verify_archive
        from trt_llm_pipeline.net.addresses import Reach
        from trt_llm_pipeline.settings import one_owner

        reach = Reach.from_env(one_owner())
        public = load_verifying_key(key) if key else None
        with collect.opened(archive, reach) as stream:
            envelope = collect.read_statement(archive, reach, statement)
            found = verify_archive(
                stream,
                envelope,
                label=collect.shown(archive),
                key=public,
                any_compression=any_compression,
            )
        if as_json:
            print_json(_judged(found.as_json(), found.holds))
        else:
            say(found.as_text())
        if not found.holds:
            leave("check")
