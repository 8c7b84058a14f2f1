"""Published models, as the tests of `fit` use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.conftest import FIXTURES
from trt_llm_pipeline.fit import ModelShape, shape_of


@dataclass(frozen=True)
class Known:
    """A published model: its `config.json`, and what is known of its size."""

    name: str
    model_id: str
    parameters: int
    kv_bytes_per_token: int
    config: dict[str, Any]

    @property
    def shape(self) -> ModelShape:
        return shape_of(self.config)


MODELS = [Known(**row) for row in json.loads((FIXTURES / "published_models.json").read_text())["models"]]


def known(name: str) -> Known:
    """The model of that name."""
    return next(model for model in MODELS if model.name == name)
