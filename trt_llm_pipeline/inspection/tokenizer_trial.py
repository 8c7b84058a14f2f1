"""Loading a packed tokenizer for real, offline and without remote code, where transformers is installed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trt_llm_pipeline import process
from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.inspection.checks import Check
from trt_llm_pipeline.inspection.readiness import DEFAULT_END_ID

_WITHIN_S = 120.0
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "USE_TORCH": "0",
    "USE_TF": "0",
    "USE_FLAX": "0",
}
_LOAD = """
import json, sys
try:
    import transformers
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        sys.argv[1], local_files_only=True, trust_remote_code=False
    )
    tokenizer("hello")
    told = {"class": type(tokenizer).__name__, "eos": tokenizer.eos_token, "id": tokenizer.eos_token_id}
except ImportError as error:
    told = {"absent": str(error)}
except Exception as error:
    told = {"error": f"{type(error).__name__}: {error}"}
if "transformers" in sys.modules:
    told["version"] = getattr(sys.modules["transformers"], "__version__", "")
print()
print(json.dumps(told))
"""


def try_tokenizer(contents: Mapping[str, bytes], python: str, env: Mapping[str, str]) -> Check:
    """Load a tokenizer with AutoTokenizer in a process of its own, in a sandbox.

    Args:
        contents: the tokenizer's files and the engine's `config.json` by name, as they lie in the archive.
        python: the interpreter; whether it has transformers is found out.
        env: the service's environment. It says what the operator wants of the sandbox, and a part of it is
            the process's, with the Hub shut off.

    Returns:
        `ok` with what was loaded; `problem` where it does not load or has no eos_token; `unknown` where that
        could not be tried.
    """
    name = "tokenizer loads"
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as scratch:
        folder = Path(scratch) / "engine"
        folder.mkdir()
        for file, data in contents.items():
            if Path(file).name == file:
                (folder / file).write_bytes(data)
        # -I: nothing is imported from the folder, whatever its files are called.
        argv = [python, "-I", "-c", _LOAD, str(folder)]
        own = Path(scratch).resolve()
        quiet = {**process.reduced(env), **_OFFLINE, "HOME": str(own), "TMPDIR": str(own)}
        try:
            layers = process.find_layers(process.Policy.from_env(env))
            places = process.program_places(python, quiet, process.hidden_places(None, env))
            sandbox = process.Sandbox(layers, places, (own,))
            sandbox.give(own, *own.rglob("*"))
            ran = process.capture(argv, cwd=own, env=quiet, timeout=_WITHIN_S, sandbox=sandbox)
        except PipelineError as error:
            return Check(name, "unknown", f"not tried: {error}")
    return _verdict(name, ran)


def _verdict(name: str, ran: process.Captured) -> Check:
    try:
        told = json.loads(ran.stdout.strip().rpartition("\n")[2])
    except ValueError:
        told = None
    if not isinstance(told, dict):
        why = "took too long" if ran.timed_out else f"ended with code {ran.exit_code} and said nothing"
        return Check(name, "unknown", f"not tried: the interpreter {why}")
    if "absent" in told:
        what = _first_line(told["absent"])
        return Check(
            name, "unknown", f"not tried ({what}); set TRTLLM_PYTHON to an interpreter that has transformers"
        )
    where = f"transformers {told.get('version')}"
    if "error" in told:
        return Check(
            name,
            "problem",
            f"{where} cannot load it: {_first_line(told['error'])}; correct the tokenizer in the model's "
            "repository "
            "and build again",
        )
    if told.get("eos") is None:
        return Check(name, "problem", f"{where} loads it as {told.get('class')}, without an eos_token")
    number = told.get("id")
    setting = {} if number == DEFAULT_END_ID else {"END_ID": str(number), "PAD_ID": str(number)}
    said = f"{where} loads it as {told.get('class')}; {told['eos']!r} is token {number}"
    return Check(name, "ok", said, setting)


def _first_line(text: object) -> str:
    return str(text).strip().partition("\n")[0][:300]
