"""What one step runs with: where, with which arguments and variables, and what it may do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline.config import StepConfig
from trt_llm_pipeline.model_source.record import read_record
from trt_llm_pipeline.plan import Plan, PlannedStep
from trt_llm_pipeline.process import (
    Layers,
    Sandbox,
    hidden_places,
    program_places,
    readable,
    reduced,
    toolchain_places,
)
from trt_llm_pipeline.step.view import Seen, View, lay_out

#: Where programs look for the network's other end when there is nothing but loopback.
_LOOPBACK_ONLY = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo", "TP_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Confined:
    """How a step is run.

    Attributes:
        argv: program and arguments.
        cwd: where.
        env: its whole environment.
        sandbox: what it may do.
        view: its view of the workspace; None where it runs in the workspace itself.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    sandbox: Sandbox
    view: View | None


def environment(
    plan: Plan, step: StepConfig, env: Mapping[str, str], token: str | None, more: Iterable[str] = ()
) -> dict[str, str]:
    """The environment of a step's process: what `process.reduced` lets through, and what scripts need.

    Output is unbuffered so that it can be followed, no byte code is written into the toolchain, and
    `examples` of the toolchain's root can be imported, as 1.2's converters do. Not the root itself: its
    `tensorrt_llm` source folder would hide the installed package.

    Args:
        plan: the build's.
        step: what the config says of the step; the token is only for one that asks for it.
        env: the service's environment.
        token: for the Hub.
        more: names of more variables to let through.
    """
    kept = reduced(env, network=step.network, more=more)
    paths = [str(import_root(plan)), *filter(None, [kept.get("PYTHONPATH")])]
    kept["PYTHONUNBUFFERED"] = "1"
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    kept["PYTHONPATH"] = os.pathsep.join(paths)
    if token and step.token:
        kept["HF_TOKEN"] = token
    return kept


def import_root(plan: Plan) -> Path:
    """The directory from which a script can import `examples`."""
    return plan.workspace.state / "import"


@contextmanager
def confined(
    plan: Plan,
    step: PlannedStep,
    argv: Sequence[str],
    seen: Seen,
    *,
    layers: Layers,
    env: Mapping[str, str],
    token: str | None,
) -> Iterator[Confined]:
    """Prepares what a step runs with; its temporary directory and its home are gone afterwards.

    Args:
        plan: the build's.
        step: the step.
        argv: program and arguments.
        seen: what it is shown of the workspace.
        layers: what can be held here.
        env: the service's environment.
        token: for the Hub.
    """
    variables = environment(plan, step.config, env, token, layers.policy.variables)
    if layers.policy.mode == "off":
        yield Confined(tuple(argv), plan.workspace.root, variables, Sandbox(layers), None)
        return
    view = lay_out(plan.workspace, seen) if layers.files else None
    own = Path(tempfile.mkdtemp(prefix="trt-llm-step-"))
    try:
        (own / "tmp").mkdir()
        (own / "home").mkdir()
        variables |= {"TMPDIR": str(own / "tmp"), "HOME": str(own / "home")}
        if not step.config.network:
            variables = {**_LOOPBACK_ONLY, **variables}
        sandbox = Sandbox(
            layers,
            read=_read(plan, step, env, view),
            write=(own, *([view.root] if view else [plan.workspace.root])),
            network=step.config.network,
        )
        sandbox.give(own, own / "tmp", own / "home", *(view.folders() if view else ()))
        if view is None:
            yield Confined(tuple(argv), plan.workspace.root, variables, sandbox, None)
            return
        program = len(step.program)
        arguments = (*argv[:program], *view.arguments(argv[program:]))
        yield Confined(arguments, view.root, variables, sandbox, view)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _read(plan: Plan, step: PlannedStep, env: Mapping[str, str], view: View | None) -> tuple[Path, ...]:
    root = plan.workspace.root
    hidden = hidden_places(root, env)
    places = [
        *program_places(plan.toolchain.python, env, hidden),
        *toolchain_places(plan.toolchain.root, hidden),
        *readable([Path(part).parent for part in step.program if part.startswith("/")], hidden),
        import_root(plan),
        *_with_link_targets(plan.model_dir),
        *(path for path in plan.dataset_dirs.values() if path.is_dir()),
    ]
    return (*places, *(view.readable if view else ()))


def _with_link_targets(model_dir: Path) -> Iterator[Path]:
    """A model's directory, and the files that links of the user's lead to; what a tar brought counts not."""
    yield Path(os.path.realpath(model_dir))
    record = read_record(model_dir)
    brought = set() if record is None else {file.path for file in record.files}
    for path in model_dir.rglob("*"):
        if path.is_symlink() and path.is_file() and str(path.relative_to(model_dir)) not in brought:
            yield Path(os.path.realpath(path))
