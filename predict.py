"""Cog's side: inputs in, the archive out. Everything else is in trt_llm_pipeline."""

from __future__ import annotations

from functools import partial
from typing import Optional

from cog import BasePredictor, CancelationException, Input, Path, Secret

from trt_llm_pipeline import pipeline
from trt_llm_pipeline.config.source import read
from trt_llm_pipeline.observer import Lines
from trt_llm_pipeline.preflight import validate
from trt_llm_pipeline.process.limit import translated
from trt_llm_pipeline.server.answer import check_variables, decide_delivery, server_argv
from trt_llm_pipeline.server.cancellation import delivered
from trt_llm_pipeline.server.guard import noted
from trt_llm_pipeline.server.orphan import exit_when_orphaned
from trt_llm_pipeline.server.sent import sent_name
from trt_llm_pipeline.server.telling import telling_all
from trt_llm_pipeline.settings import Settings


class Predictor(BasePredictor):
    """Builds a TensorRT-LLM engine from a YAML config."""

    def setup(self) -> None:
        """Makes sure that this worker does not outlive the server."""
        exit_when_orphaned()

    def predict(
        self,
        config: Path = Input(
            description="The build config: the address of a YAML file, a data: URI, or a path on the server."
        ),
        hf_token: Optional[Secret] = Input(  # noqa: UP045  Cog reads this annotation
            description="A Hugging Face token, for models that are gated or private.", default=None
        ),
        destination: Optional[str] = Input(  # noqa: UP045
            description="Where to send the archive, with build.json returned instead: s3://, gs:// or az:// "
            "with bucket and key, hf://OWNER/REPO/PATH, an https:// address to PUT to, or a file:// path in "
            "the workspace.",
            default=None,
        ),
    ) -> Path:
        """Downloads the model, runs the config's steps, and returns the engine directory as an archive."""
        log = Lines(partial(print, flush=True), self.record_metric)
        settings = Settings.from_env()
        check_variables(settings.env)
        token = hf_token.get_secret_value() if hf_token else None
        with noted(settings.env) as note, delivered(CancelationException), telling_all(), translated():
            text, name = read(str(config), settings.reach)
            validated = validate(text, sent_name(str(config), name), settings)
            result = pipeline.build(validated, settings, log, token=token, destination=destination)
            note.size = result.size if result.archive else 0
        if result.archive is None:
            return Path(result.record_path)
        decision = decide_delivery(result.size, server_argv(), settings.env)
        log.log(decision.reason)
        return Path(result.archive if decision.returns == "archive" else result.record_path)
