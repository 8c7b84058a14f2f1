"""What the machine itself must hold while a model is converted and an engine is built, at least."""

from __future__ import annotations

from dataclasses import dataclass

from trt_llm_pipeline.fit.arguments import BYTES_OF, EngineArguments
from trt_llm_pipeline.fit.shape import ModelShape
from trt_llm_pipeline.fit.sums import Needs


@dataclass(frozen=True)
class Host:
    """A machine's memory, in bytes.

    Attributes:
        memory_bytes: what a build can use of it: a control group's limit, if that is less.
        gpu_bytes: of all its GPUs together.
    """

    memory_bytes: int
    gpu_bytes: int = 0


@dataclass(frozen=True)
class HostNeeds:
    """What a build needs of a machine, at least; in bytes.

    Attributes:
        convert: the model, as the conversion holds it; scripts that load it with `device_map="auto"` may have
            a part of it on the GPUs. None where it is read file by file.
        build: the engine of the largest rank, which TensorRT hands over in the machine's memory.
    """

    convert: int | None
    build: int

    @property
    def most(self) -> int:
        """The larger of the two."""
        return max(self.convert or 0, self.build)

    def impossible_on(self, host: Host) -> bool:
        """Whether they exceed what there is, wherever the conversion puts the model."""
        return self.build > host.memory_bytes or (self.convert or 0) > host.memory_bytes + host.gpu_bytes

    def short_on(self, host: Host) -> bool:
        """Whether they exceed the machine's own memory."""
        return self.most > host.memory_bytes


def host_needs(shape: ModelShape, arguments: EngineArguments, need: Needs) -> HostNeeds:
    """What the conversion and the build of that engine need.

    The model is loaded in the type in which it is published or in the engine's, whichever is smaller.
    """
    smaller = min(BYTES_OF.get(shape.dtype or "", 2), BYTES_OF[arguments.dtype])
    whole = shape.parameters * smaller
    return HostNeeds(convert=None if arguments.by_shard else whole, build=need.rank_weights)
