"""Compiles a decoder with ONNX Runtime: graph and weights in, engine file out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto

from trt_llm_cpu.console import BadInputError
from trt_llm_cpu.engine_file import write_engine
from trt_llm_cpu.graph import DecoderGraph
from trt_llm_cpu.spec import DecoderSpec
from trt_llm_cpu.weights import Weight

# The location that stands for "the weights of this engine file" in the graph; the runtime hands them over.
_LOCATION = "engine"


def compile_engine(path: Path, spec: DecoderSpec, weights: Sequence[Weight]) -> int:
    """Compiles a decoder into one engine file and returns its size in bytes.

    ONNX Runtime optimises the graph while the weights are inputs of it: it cannot fold them, so that they
    stay in their storage type, a float16 engine is half a float32 one, and no memory is needed for them
    here.

    Raises:
        BadInputError: ONNX Runtime refuses the graph.
        UnsupportedError: the graph cannot be built.
    """
    graph = optimise(DecoderGraph(spec, weights).build())
    facts = {"spec": spec.to_json(), "onnxruntime": onnxruntime.__version__}
    return write_engine(
        path, facts, externalise(graph, weights).SerializeToString(deterministic=True), weights
    )


def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as ONNX Runtime optimises it for any CPU. Raises BadInputError when it refuses the graph."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "graph.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its exceptions share no base of their own
            raise BadInputError(
                f"ONNX Runtime cannot compile this model: {str(error).splitlines()[0]}"
            ) from None
        return onnx.load(target)


def externalise(model: onnx.ModelProto, weights: Sequence[Weight]) -> onnx.ModelProto:
    """Turns the inputs that are weights into initializers whose data is outside the graph."""
    by_name = {weight.name: weight for weight in weights}
    graph = model.graph
    rest = [value for value in graph.input if value.name not in by_name]
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input if value.name in by_name}
    del graph.input[:]
    graph.input.extend(rest)
    for name, weight in by_name.items():
        tensor = TensorProto(name=name, data_type=types[name], dims=weight.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", _LOCATION), ("offset", "0"), ("length", str(weight.size))):
            tensor.external_data.add(key=key, value=value)
        graph.initializer.append(tensor)
    domains = sorted((one.domain, one.version) for one in model.opset_import)
    del model.opset_import[:]
    for domain, version in domains:
        model.opset_import.add(domain=domain, version=version)
    return model
