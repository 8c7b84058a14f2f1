"""A model's tensors: which there are, how large they are, and how ranks share them. No weights are read.

How TensorRT-LLM shares a model over ranks (`attention.py`, `mlp.py`, `embedding.py` and `linear.py` in its
`tensorrt_llm/layers`): tensor parallelism divides the matrices of attention and MLP and the head; a key or
value head is never divided, so with more ranks than such heads each rank has one whole. Norms and the word
embedding are on every rank, the embedding unless it is asked to be divided. Pipeline parallelism gives each
rank some of the layers, the first one the embeddings, the last one the final norm and the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["first", "layer", "last"]
#: `matrix` can be quantized; `embedding`, `head` and `float` (norms, biases, routers) keep the model's type.
Kind = Literal["matrix", "embedding", "head", "float"]
#: Divided by tensor parallelism; divided by whole key-value heads; the same on every rank.
Split = Literal["ranks", "kv_heads", "whole"]


@dataclass(frozen=True)
class Tensors:
    """Tensors of one sort.

    Attributes:
        name: what they are.
        parameters: how many numbers they hold together; in one layer, for those of layers.
        place: in the first rank of a pipeline, in each layer, or in the last rank.
        kind: whether quantization concerns them.
        split: how tensor parallelism divides them.
    """

    name: str
    parameters: int
    place: Place = "layer"
    kind: Kind = "matrix"
    split: Split = "ranks"


@dataclass(frozen=True)
class ModelShape:
    """What a model's `config.json` says of its size.

    Attributes:
        family: `model_type`, as the model's repository writes it.
        layers, heads, kv_heads, head_size, hidden_size, vocab_size: as usual; heads of a layer.
        tied: the head is the word embedding, so there is one matrix for both.
        max_positions: the longest sequence that it was made for, in tokens; None where it has no limit.
        dtype: the type in which its weights are published (`torch_dtype`); None where it does not say.
        tensors: all of them but a tied head.
    """

    family: str
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden_size: int
    vocab_size: int
    tied: bool
    max_positions: int | None
    dtype: str | None
    tensors: tuple[Tensors, ...]

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(
            tensors.parameters * (self.layers if tensors.place == "layer" else 1) for tensors in self.tensors
        )

    def kv_heads_of_rank(self, tp: int) -> int:
        """Key-value heads of a layer that one of `tp` ranks keeps: at least one."""
        return -(-self.kv_heads // tp)

    def can_be_divided(self, tp: int, pp: int = 1) -> bool:
        """Whether TensorRT-LLM can share it so: whole heads on each rank, and as many layers on each."""
        even = self.kv_heads % tp == 0 or tp % self.kv_heads == 0
        return self.heads % tp == 0 and even and self.layers % pp == 0
