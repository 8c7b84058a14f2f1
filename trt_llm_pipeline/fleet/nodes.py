"""What a machine has, beside what a cell needs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trt_llm_pipeline.fleet.cells import Cell, Resources
from trt_llm_pipeline.process.gpus import GpuMonitor
from trt_llm_pipeline.process.resources import machine_memory_bytes
from trt_llm_pipeline.units import in_words

# What Ray asks for first is what it takes the type from: "NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-16GB".
_SHOWN_CELLS = 3
_GPU_TYPE = re.compile(r"\w+\s+([A-Z0-9]+)")


@dataclass(frozen=True)
class NodeInfo:
    """A machine that cells can run on.

    Attributes:
        node_id: Ray's.
        host: its name or address.
        gpus, cpus: how many.
        memory: bytes that tasks may ask for.
        gpu_type, release: what its labels say; None without one.
    """

    node_id: str
    host: str
    gpus: float
    cpus: float
    memory: float
    gpu_type: str | None
    release: str | None

    def lacks(self, needs: Resources) -> str:
        """What a cell needs that this node does not have; empty where it has everything."""
        if needs.gpu_type is not None and self.gpu_type != needs.gpu_type:
            return f"its GPU type is {self.gpu_type}" if self.gpu_type else "it has no GPU type"
        if needs.gpus > self.gpus:
            return f"it has {self.gpus:g} GPUs"
        if needs.cpus > self.cpus:
            return f"it has {self.cpus:g} CPUs"
        if needs.memory is not None and needs.memory > self.memory:
            return f"it has {in_words(self.memory)} of memory"
        if needs.trt_llm and self.release and self.release != needs.trt_llm:
            return f"its TensorRT-LLM is {self.release}"
        return ""

    def describe(self) -> str:
        """The node in a few words."""
        gpu = f"{self.gpus:g} {self.gpu_type or 'GPU of no known type'}" if self.gpus else "no GPU"
        release = f", TensorRT-LLM {self.release}" if self.release else ""
        return f"{self.host}: {gpu}, {self.cpus:g} CPUs, {in_words(self.memory)}{release}"


def wanted(need: Resources) -> str:
    """What a cell needs, in words."""
    parts = []
    if need.gpus or need.gpu_type:
        parts.append(f"{need.gpus:g} {need.gpu_type or 'GPU of any type'}")
    parts.append(f"{need.cpus:g} {'CPU' if need.cpus == 1 else 'CPUs'}")
    if need.memory is not None:
        parts.append(f"{in_words(need.memory)} of memory")
    if need.trt_llm:
        parts.append(f"TensorRT-LLM {need.trt_llm}")
    return ", ".join(parts)


def missing(nodes: Sequence[NodeInfo], needs: Sequence[Resources]) -> dict[Resources, str]:
    """Of those needs that no node can ever fulfil: what they are, and what each node has instead."""
    found = {}
    for need in needs:
        reasons = [(node, node.lacks(need)) for node in nodes]
        if all(reason for _, reason in reasons):
            shown = "; ".join(f"{node.describe()} ({reason})" for node, reason in reasons)
            found[need] = f"it needs {wanted(need)}, and the cluster has {shown or 'no nodes'}"
    return found


def cannot_run(cells: Sequence[Cell], missing: Mapping[Resources, str]) -> list[str]:
    """A sentence for each of those needs: which cells have it, and why nothing fulfils it."""
    lines = []
    for need, why in missing.items():
        names = [cell.name for cell in cells if cell.resources == need]
        some = ", ".join(names[:_SHOWN_CELLS])
        more = f" and {len(names) - _SHOWN_CELLS} more" if len(names) > _SHOWN_CELLS else ""
        lines.append(f"no node can run {some}{more}: {why}")
    return lines


def this_machine() -> NodeInfo:
    """The machine that this process runs on, as Ray inside it describes it: it is told these figures."""
    with GpuMonitor(os.environ) as monitor:
        gpus = monitor.gpus
    match = _GPU_TYPE.match(gpus[0].name) if gpus else None
    return NodeInfo(
        "",
        platform.node(),
        len(gpus),
        os.cpu_count() or 1,
        machine_memory_bytes(),
        match[1] if match else None,
        None,
    )
