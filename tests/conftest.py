"""What tests of every kind share: a workspace, and a toolchain in miniature."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from trt_llm_pipeline.net.addresses import ALLOW_PRIVATE, Reach
from trt_llm_pipeline.process import Layers, Policy, find_layers
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
#: What the quick start builds; the loopback Hub of the tests has the demo's model under this name.
MODEL_ID = "sshleifer/tiny-gpt2"
FIXTURES = ROOT / "tests" / "fixtures"

# One profile for the suite: a busy machine makes nothing fail. CI tries the same examples every time;
# elsewhere they are random, and one that failed is kept and tried first.
_CI = bool(os.environ.get("CI"))
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
    derandomize=_CI,
    database=None if _CI else DirectoryBasedExampleDatabase(ROOT / ".hypothesis" / "examples"),
    print_blob=True,
)
hypothesis.settings.load_profile("suite")

#: The tests' servers are on loopback, where strangers' addresses may not lead.
ANYWHERE = Reach(inside=True)
INSIDE = {ALLOW_PRIVATE: "1"}
os.environ.update(INSIDE)

# A shell that runs the suite in the background has it ignore SIGINT, and so all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

_MINIATURE = {
    "examples/gpt": ("build.py", "hf_gpt_convert.py"),
    "examples/llama": ("build.py", "convert_checkpoint.py"),
    "examples/quantization": ("quantize.py",),
    "examples/models/core/qwen": ("convert_checkpoint.py",),
    "examples/models/contrib/dbrx": ("convert_checkpoint.py",),
}


#: Files whose tests take minutes each and share nothing. Otherwise one test process is left with one of them.
SPREAD = {"tests/integration/faults/test_failing_disk.py"}


class Scheduling(LoadFileScheduling):
    """A file's tests go to one test process, as its fixtures cost a server each; those of `SPREAD` to any."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return nodeid if file in SPREAD else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """How the tests are dealt out to the test processes."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


#: Prints the most memory that the process has had resident, in KiB. Not `getrusage`: its figure begins with
#: that of the process which forked this one.
PRINT_PEAK_KIB = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(line.split()[1])
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace that has not been prepared."""
    return Workspace.at(tmp_path / "workspace")


@pytest.fixture(scope="session")
def layers() -> Layers:
    """What can be held of a sandbox on this machine."""
    return find_layers(Policy())


@pytest.fixture
def miniature(tmp_path: Path) -> Toolchain:
    """A toolchain whose examples have the names of TensorRT-LLM's and whose scripts do nothing."""
    root = tmp_path / "toolchain"
    for folder, scripts in _MINIATURE.items():
        (root / folder).mkdir(parents=True)
        for script in scripts:
            (root / folder / script).write_text("")
    (root / "secret.py").write_text("")
    return Toolchain(root, "miniature", "1.0", ("1.0",), sys.executable, "for a test")
