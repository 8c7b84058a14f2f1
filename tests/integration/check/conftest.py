"""The toolchain's scripts put their own root on sys.path; so do the tests that run them in this process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "cpu_toolchain"))

# torch is installed for one of the interpreters alone; elsewhere the reference is the toolchain's own.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_torch_*.py"]
