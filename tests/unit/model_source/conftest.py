"""Tests beside torch run where torch is installed: requirements/test.txt has it for Python 3.11."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_torch_*.py"]
