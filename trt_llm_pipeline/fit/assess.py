"""Will it fit: one model, one config's arguments, the devices and the machine, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trt_llm_pipeline.engine.limits import KV_FRACTION
from trt_llm_pipeline.fit.arguments import EngineArguments
from trt_llm_pipeline.fit.gpus import Device
from trt_llm_pipeline.fit.host import Host, HostNeeds, host_needs
from trt_llm_pipeline.fit.recorded import Peaks
from trt_llm_pipeline.fit.remedies import Remedy, remedies
from trt_llm_pipeline.fit.shape import ModelShape
from trt_llm_pipeline.fit.sums import Needs, Room, needs, room
from trt_llm_pipeline.units import in_words

#: `no`: the weights alone are larger than the device. `one`: not even one request of the config's length has
#: room for its KV cache. `some`: not as many as the config wants at once. `unknown`: the weights fit, and the
#: config does not say how many tokens it wants. `yes`: nothing stands against it.
Answer = Literal["yes", "unknown", "some", "one", "no"]


@dataclass(frozen=True)
class Verdict:
    """Whether an engine loads on a device.

    Attributes:
        answer: see `Answer`.
        room: the sums behind it.
        remedies: for `some`, `one` and `no`: what would be enough.
    """

    answer: Answer
    room: Room
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True)
class Assessment:
    """Everything that is known of whether a model fits.

    Attributes:
        shape, arguments: what was computed from.
        need: what the engine needs of a device.
        host_need: what the build needs of the machine.
        host: the machine.
        verdicts: one for each kind of device.
        peaks: what earlier builds of the same model have used.
        disk: bytes that the steps write, at least: the engine, and a checkpoint for each step before it.
    """

    shape: ModelShape
    arguments: EngineArguments
    need: Needs
    host_need: HostNeeds
    host: Host
    verdicts: tuple[Verdict, ...]
    peaks: tuple[Peaks, ...] = ()
    disk: int = 0

    @property
    def errors(self) -> tuple[str, ...]:
        """Why it cannot possibly load or be converted, one sentence each; none where it might.

        A machine without a device to load it on is not the one on which it will be built, so what that
        machine lacks is only a warning.
        """
        found = [_too_large(self, verdict) for verdict in self.verdicts if verdict.answer == "no"]
        if self._host_is_too_small and self.verdicts:
            found.append(_host_too_small(self, impossible=True))
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may go wrong, one sentence each."""
        found = []
        arguments, shape = self.arguments, self.shape
        if not shape.can_be_divided(arguments.tp, arguments.pp):
            found.append(
                f"{shape.heads} attention heads, {shape.kv_heads} key-value heads and {shape.layers} layers "
                f"cannot be divided evenly by tensor parallelism {arguments.tp} and pipeline parallelism "
                f"{arguments.pp}"
            )
        asked = arguments.length or max(arguments.max_input_len or 0, arguments.max_output_len or 0)
        if shape.max_positions is not None and asked > shape.max_positions:
            found.append(
                f"the config asks for requests of {asked:,} tokens, and the model was made for "
                f"{shape.max_positions:,}: what it writes beyond them is of no use, unless its positions are "
                f"scaled; make {arguments.length_options} smaller"
            )
        for verdict in self.verdicts:
            if verdict.answer in ("some", "one"):
                found.append(_too_many(self, verdict))
            count = verdict.room.device.count
            if count is not None and count < arguments.world_size and verdict.answer != "no":
                gpus = f"{count} GPU{'s' * (count != 1)} of type {verdict.room.device.name}"
                found.append(
                    f"the engine has {arguments.world_size} ranks, and this machine has {gpus}: it can be "
                    "built here, but not loaded"
                )
        if self._host_is_too_small and not self.verdicts:
            found.append(_host_too_small(self, impossible=True))
        elif self.host_need.short_on(self.host) and not self._host_is_too_small:
            found.append(_host_too_small(self, impossible=False))
        found.extend(
            f"build {peak.build_id} of this model used {in_words(peak.host_bytes)} of memory in step "
            f"{peak.host_step}, and this machine has {in_words(self.host.memory_bytes)}"
            for peak in self.peaks
            if peak.host_bytes > self.host.memory_bytes
        )
        return tuple(found)

    @property
    def _host_is_too_small(self) -> bool:
        return self.host_need.impossible_on(self.host)

    def facts(self) -> dict[str, Any]:
        """What follows from the model and the config alone, and is the same on every machine."""
        return facts(self.shape, self.arguments)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values; sizes in bytes."""
        return {
            **self.facts(),
            "assumed": list(self.arguments.assumed),
            "host": {
                "memory_bytes": self.host.memory_bytes,
                "convert_bytes": self.host_need.convert,
                "build_bytes": self.host_need.build,
            },
            "disk_bytes": self.disk,
            "kv_fraction": KV_FRACTION,
            "devices": [_device(verdict) for verdict in self.verdicts],
            "recorded": [peak.as_json() for peak in self.peaks],
            "errors": list(self.errors),
            "warnings": list(self.warnings),
        }


def assess(
    shape: ModelShape,
    arguments: EngineArguments,
    devices: Sequence[Device],
    host: Host,
    peaks: Sequence[Peaks] = (),
    *,
    steps: int = 1,
) -> Assessment:
    """Puts the sums together.

    Args:
        shape: the model's.
        arguments: the config's.
        devices: what to try to load it on.
        host: where it is converted and built.
        peaks: what earlier builds of the same model have used.
        steps: how many steps the config has.
    """
    need = needs(shape, arguments)
    verdicts = []
    for device in devices:
        there = room(need, arguments, shape, device)
        answer = _answer(need, arguments, there)
        enough: tuple[Remedy, ...] = ()
        if answer not in ("yes", "unknown"):
            enough = remedies(shape, arguments, device, all_at_once=answer != "no")
        verdicts.append(Verdict(answer, there, enough))
    return Assessment(
        shape=shape,
        arguments=arguments,
        need=need,
        host_need=host_needs(shape, arguments, need),
        host=host,
        verdicts=tuple(verdicts),
        peaks=tuple(peaks),
        disk=steps * need.weights,
    )


def facts(shape: ModelShape, arguments: EngineArguments) -> dict[str, Any]:
    """What follows from the model and the arguments alone; sizes in bytes."""
    need = needs(shape, arguments)
    return {
        "family": shape.family,
        "parameters": shape.parameters,
        "dtype": arguments.dtype,
        "weights": arguments.weights_name,
        "kv_cache": arguments.kv,
        "tensor_parallelism": arguments.tp,
        "pipeline_parallelism": arguments.pp,
        "weight_bytes": need.weights,
        "rank_weight_bytes": need.rank_weights,
        "kv_bytes_per_token": need.kv_per_token,
        "tokens_at_once": need.tokens,
    }


def _answer(need: Needs, arguments: EngineArguments, there: Room) -> Answer:
    if there.left <= 0:
        return "no"
    if there.tokens < arguments.least_length * arguments.max_beam_width:
        return "one"
    if there.tokens < need.least_tokens:
        return "some"
    return "unknown" if need.tokens is None else "yes"


def _too_large(assessment: Assessment, verdict: Verdict) -> str:
    device = verdict.room.device
    ranks = assessment.arguments.world_size
    of = "" if ranks == 1 else f" of the largest of {ranks} ranks"
    return (
        f"the weights{of} alone take {in_words(assessment.need.rank_weights)} as "
        f"{assessment.arguments.weights_name}, and {device.name} has {in_words(device.memory_bytes)}"
        f"{_advice(verdict)}"
    )


def _too_many(assessment: Assessment, verdict: Verdict) -> str:
    there, arguments, need = verdict.room, assessment.arguments, assessment.need
    least = "" if arguments.length else "at least "
    wanted = f"{least}{need.least_tokens:,} tokens at once ({arguments.max_batch_size} requests)"
    if verdict.answer == "one":
        wanted = f"one request of {least}{arguments.least_length:,} tokens"
    return (
        f"beside the weights, {there.device.name} has room for the KV cache of at most {there.tokens:,} "
        f"tokens, and the config wants {wanted}{_advice(verdict)}"
    )


def _host_too_small(assessment: Assessment, *, impossible: bool) -> str:
    need, host = assessment.host_need, assessment.host
    converting = need.convert is not None and need.convert >= need.build
    what = "the model that is converted takes" if converting else "the engine of the largest rank takes"
    gpus = f" and {in_words(host.gpu_bytes)} on its GPUs" if host.gpu_bytes and converting else ""
    outcome = "so it cannot be built here" if impossible else "so the build may fail"
    advice = f"; build on a machine with more than {in_words(need.most)} of memory"
    if converting and need.build <= host.memory_bytes:
        advice += ", or let the script read it file by file (load_by_shard), if it can"
    return (
        f"{what} at least {in_words(need.most)} of memory, and this machine has "
        f"{in_words(host.memory_bytes)}{gpus}, {outcome}{advice}"
    )


def _advice(verdict: Verdict) -> str:
    enough = [remedy.text for remedy in verdict.remedies]
    if verdict.answer == "some" and verdict.room.max_batch_size:
        enough.insert(0, f"max_batch_size {verdict.room.max_batch_size}")
    if not enough:
        return "; nothing that was tried would be enough"
    return f"; enough would be: {', or '.join(enough)}"


def _device(verdict: Verdict) -> Mapping[str, Any]:
    there = verdict.room
    return {
        "name": there.device.name,
        "memory_bytes": there.device.memory_bytes,
        "source": there.device.source,
        "count": there.device.count,
        "answer": verdict.answer,
        "left_bytes": there.left,
        "kv_cache_bytes": there.kv_bytes,
        "kv_cache_tokens": there.tokens,
        "max_batch_size": there.max_batch_size,
        "max_length": there.max_length,
        "remedies": [
            {"change": remedy.change, "rank_weight_bytes": remedy.rank_weights} for remedy in verdict.remedies
        ],
    }
