"""The ONNX graph of a decoder with a KV cache, for GPT-2 and Llama alike.

Inputs (B batch, S new tokens, P cached tokens, T = P + S, N positions whose logits are wanted):

    input_ids        int64 [B, S]
    position_ids     int64 [B, S]      position of each new token in its own sequence
    attention_mask   int64 [B, T]      1 for a token, 0 for padding
    logit_positions  int64 [N]         columns of input_ids
    past_key_L       float [B, kv heads, P, head size], past_value_L likewise, for each layer L

Outputs: `logits` float [B, N, vocabulary], `present_key_L` and `present_value_L` with T in the place of P.

Prefill is the same graph with P = 0. Weights are graph inputs here, so that whoever optimises the graph
cannot fold them; `compiler` turns them into external initializers afterwards. Arithmetic is in float32; a
weight in another storage type is cast where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_llm_cpu.console import UnsupportedError
from trt_llm_cpu.dtypes import storage_type
from trt_llm_cpu.rope import inverse_frequencies
from trt_llm_cpu.spec import DecoderSpec, RopeSpec
from trt_llm_cpu.weights import Weight

OPSET = 20
# The IR version that introduced opset 20; later ones are refused by older runtimes.
IR_VERSION = 9

_ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class DecoderGraph:
    """Builds the graph of one decoder.

    Args:
        spec: its sizes and kinds. weights: the weights that it has, in the unified checkpoint's names.
        Which biases exist, and whether the
            head is its own matrix or the embedding, is seen from their names.

    Raises:
        UnsupportedError: an activation that is not known.
    """

    def __init__(self, spec: DecoderSpec, weights: Sequence[Weight]) -> None:
        if spec.activation not in _ACTIVATIONS:
            raise UnsupportedError(
                f"activation {spec.activation} is not supported; {', '.join(sorted(_ACTIVATIONS))} are."
            )
        self.spec = spec
        self.weights = {weight.name: weight for weight in weights}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def build(self) -> onnx.ModelProto:
        """The graph, its weights as inputs of their own names and storage types."""
        spec = self.spec
        hidden = self.embed()
        bias = self.attention_bias()
        rotation = self.rotation(spec.rope) if spec.rope else None
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "N", spec.vocab_size])]
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "S"]),
            helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["B", "S"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["B", "T"]),
            helper.make_tensor_value_info("logit_positions", TensorProto.INT64, ["N"]),
        ]
        for layer in range(spec.num_layers):
            hidden = self.layer(layer, hidden, bias, rotation)
            for side, group, length in (("past", inputs, "P"), ("present", outputs, "T")):
                for kind in ("key", "value"):
                    shape = ["B", spec.num_kv_heads, length, spec.head_size]
                    name = f"{side}_{kind}_{layer}"
                    group.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        wanted = self.op("Gather", [hidden, "logit_positions"], axis=1)
        self.head(self.norm("transformer.ln_f", wanted))
        for weight in self.weights.values():
            onnx_type = storage_type(weight.dtype).onnx
            inputs.append(helper.make_tensor_value_info(weight.name, onnx_type, list(weight.shape)))
        graph = helper.make_graph(self._nodes, spec.family, inputs, outputs, list(self._constants.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="trt_llm_cpu"
        )
        model.ir_version = IR_VERSION
        return model

    # The parts of a decoder

    def embed(self) -> str:
        """Token embedding, with learned positions added where there are any. [B, S, hidden]"""
        tokens = self._rows("transformer.vocab_embedding.weight", "input_ids")
        if self.spec.rope:
            return tokens
        return self.op("Add", [tokens, self._rows("transformer.position_embedding.weight", "position_ids")])

    def attention_bias(self) -> str:
        """0 where a query may look, a number near minus infinity where not. [B, 1, 1, S, T]"""
        total = self._length("attention_mask", 1)
        new = self._length("input_ids", 1)
        columns = self.op("Range", [self.constant(0), total, self.constant(1)])
        rows = self.op("Slice", [columns, self._vector(self.op("Sub", [total, new])), self._vector(total)])
        causal = self.op("LessOrEqual", [columns, self._unsqueeze(rows, 1)])
        tokens = self.op("Cast", ["attention_mask"], to=TensorProto.BOOL)
        allowed = self.op("And", [causal, self._unsqueeze(tokens, 1)])
        lowest = self.constant(np.float32(np.finfo(np.float32).min))
        bias = self.op("Where", [allowed, self.constant(np.float32(0)), lowest])
        return self._unsqueeze(bias, 1, 2)

    def rotation(self, rope: RopeSpec) -> tuple[str, str]:
        """Cosine and sine of each new token's rotary angles. Each [B, 1, S, head size / 2]"""
        frequencies = self.constant(inverse_frequencies(rope, self.spec.head_size))
        positions = self.op("Cast", [self._unsqueeze("position_ids", 1, 3)], to=TensorProto.FLOAT)
        angles = self.op("Mul", [positions, frequencies])
        return self.op("Cos", [angles]), self.op("Sin", [angles])

    def layer(self, number: int, hidden: str, bias: str, rotation: tuple[str, str] | None) -> str:
        """One pre-norm decoder layer. [B, S, hidden]"""
        prefix = f"transformer.layers.{number}"
        normed = self.norm(f"{prefix}.input_layernorm", hidden)
        hidden = self.op("Add", [hidden, self.attention(number, normed, bias, rotation)])
        return self.op("Add", [hidden, self.mlp(prefix, self.norm(f"{prefix}.post_layernorm", hidden))])

    def attention(self, number: int, hidden: str, bias: str, rotation: tuple[str, str] | None) -> str:
        """Grouped-query attention over the cache and the new tokens; one group a head is the classic one."""
        spec = self.spec
        prefix = f"transformer.layers.{number}.attention"
        size, kv_heads = spec.head_size, spec.num_kv_heads
        group = spec.num_heads // kv_heads
        widths = self.constant(np.array([spec.num_heads * size, kv_heads * size, kv_heads * size]))
        projected = self.linear(f"{prefix}.qkv", hidden)
        query, key, value = self.ops("Split", [projected, widths], 3, axis=-1)
        query, key, value = (
            self.op("Transpose", [self._reshape(one, 0, 0, heads, size)], perm=[0, 2, 1, 3])
            for one, heads in ((query, spec.num_heads), (key, kv_heads), (value, kv_heads))
        )
        if rotation:
            query, key = self.rotate(query, rotation), self.rotate(key, rotation)
        key = self._named("Concat", [f"past_key_{number}", key], f"present_key_{number}", axis=2)
        value = self._named("Concat", [f"past_value_{number}", value], f"present_value_{number}", axis=2)
        # Queries that share a key/value head are stacked along S, so that keys and values are not repeated.
        query = self.op("Mul", [query, self.constant(np.float32(size**-0.5))])
        query = self._reshape(query, 0, kv_heads, -1, size)
        scores = self.op("MatMul", [query, self.op("Transpose", [key], perm=[0, 1, 3, 2])])
        new = self._vector(self._length("input_ids", 1))
        total = self._vector(self._length("attention_mask", 1))
        heads = self.constant(np.array([0, kv_heads, group]))
        scores = self.op("Reshape", [scores, self.op("Concat", [heads, new, total], axis=0)])
        shares = self.op("Softmax", [self.op("Add", [scores, bias])], axis=-1)
        stacked = self.constant(np.array([0, kv_heads, -1]))
        shares = self.op("Reshape", [shares, self.op("Concat", [stacked, total], axis=0)])
        mixed = self.op("MatMul", [shares, value])
        unstacked = self.op(
            "Concat",
            [self.constant(np.array([0, spec.num_heads])), new, self.constant(np.array([size]))],
            axis=0,
        )
        mixed = self.op("Transpose", [self.op("Reshape", [mixed, unstacked])], perm=[0, 2, 1, 3])
        return self.linear(f"{prefix}.dense", self._reshape(mixed, 0, 0, spec.num_heads * size))

    def rotate(self, vectors: str, rotation: tuple[str, str]) -> str:
        """Rotary embedding: pairs are (i, i + head size / 2), as Hugging Face's Llama stores them."""
        cosine, sine = rotation
        half = self.spec.head_size // 2
        first, second = self.ops("Split", [vectors, self.constant(np.array([half, half]))], 2, axis=-1)
        left = self.op("Sub", [self.op("Mul", [first, cosine]), self.op("Mul", [second, sine])])
        right = self.op("Add", [self.op("Mul", [second, cosine]), self.op("Mul", [first, sine])])
        return self.op("Concat", [left, right], axis=-1)

    def mlp(self, prefix: str, hidden: str) -> str:
        """The MLP; gated as Llama's where the spec says so (`fc` is activated, `gate` multiplies)."""
        inner = self.activation(self.linear(f"{prefix}.mlp.fc", hidden))
        if self.spec.gated_mlp:
            inner = self.op("Mul", [inner, self.linear(f"{prefix}.mlp.gate", hidden)])
        return self.linear(f"{prefix}.mlp.proj", inner)

    def activation(self, hidden: str) -> str:
        """The spec's activation."""
        kind = _ACTIVATIONS[self.spec.activation]
        if kind == "relu":
            return self.op("Relu", [hidden])
        if kind == "silu":
            return self.op("Mul", [hidden, self.op("Sigmoid", [hidden])])
        return self.op("Gelu", [hidden], approximate="tanh" if kind == "gelu_tanh" else "none")

    def norm(self, name: str, hidden: str) -> str:
        """LayerNorm or RMSNorm over the last axis."""
        scale = self._float(f"{name}.weight")
        epsilon = self.spec.norm_epsilon
        if self.spec.norm == "layernorm":
            shift = self._float(f"{name}.bias")
            return self.op("LayerNormalization", [hidden, scale, shift], axis=-1, epsilon=epsilon)
        square = self.op("Mul", [hidden, hidden])
        mean = self.op("ReduceMean", [square, self.constant(np.array([-1]))], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, self.constant(np.float32(epsilon))])])
        return self.op("Mul", [self.op("Div", [hidden, root]), scale])

    def head(self, hidden: str) -> None:
        """Logits, by the head's own matrix or by the embedding. [B, N, vocabulary]"""
        own = "lm_head.weight" in self.weights
        matrix = self._float("lm_head.weight" if own else "transformer.vocab_embedding.weight")
        self._named("MatMul", [hidden, self.op("Transpose", [matrix], perm=[1, 0])], "logits")

    def linear(self, name: str, hidden: str) -> str:
        """A linear layer, its bias where there is one, its int8 scales where there are any."""
        product = self.op("MatMul", [hidden, self._float(f"{name}.weight")])
        if f"{name}.per_channel_scale" in self.weights:
            product = self.op("Mul", [product, self._float(f"{name}.per_channel_scale")])
        if f"{name}.bias" in self.weights:
            product = self.op("Add", [product, self._float(f"{name}.bias")])
        return product

    # Small steps

    def op(self, kind: str, inputs: Sequence[str], **attributes: object) -> str:
        """Adds a node and returns its one output."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: object) -> list[str]:
        """Adds a node and returns its outputs."""
        self._count += 1
        names = [f"{kind}_{self._count}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, f"{kind}_{self._count}", **attributes))
        return names

    def constant(self, value: int | np.ndarray | np.generic) -> str:
        """The name of a small constant, shared by all that use the same one."""
        array = np.asarray(value)
        name = f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()[:64]}"
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def _named(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def _float(self, name: str) -> str:
        if self.weights[name].dtype == "float32":
            return name
        return self.op("Cast", [name], to=TensorProto.FLOAT)

    def _rows(self, name: str, indices: str) -> str:
        rows = self.op("Gather", [name, indices])
        if self.weights[name].dtype == "float32":
            return rows
        return self.op("Cast", [rows], to=TensorProto.FLOAT)

    def _length(self, name: str, axis: int) -> str:
        shape = self.op("Shape", [name], start=axis, end=axis + 1)
        return self.op("Squeeze", [shape])

    def _vector(self, scalar: str) -> str:
        return self._unsqueeze(scalar, 0)

    def _unsqueeze(self, name: str, *axes: int) -> str:
        return self.op("Unsqueeze", [name, self.constant(np.array(axes))])

    def _reshape(self, name: str, *shape: int) -> str:
        return self.op("Reshape", [name, self.constant(np.array(shape))])
