"""Would the step's script accept this argv? Its own parser is asked, before anything is downloaded.

`probe` starts the script in the interpreter that will run it, under `parser_probe.py`, which stops it as soon
as its argparse has parsed the arguments. So the answer is the script's own, for any release of TensorRT-LLM
and with options that it adds at run time. What cannot be asked is "not checked", with the reason, and blocks
nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.preflight import messages
from trt_llm_pipeline.process import (
    UNCONFINED,
    Captured,
    Layers,
    Sandbox,
    capture,
    hidden_places,
    program_places,
    readable,
    reduced,
    toolchain_places,
)
from trt_llm_pipeline.redaction import Redactor, secrets_of
from trt_llm_pipeline.toolchain import Toolchain

# A first import of torch and tensorrt_llm from a cold disk takes tens of seconds.
TIME_LIMIT_S = 60.0

_PROBE = Path(__file__).parent / "probe" / "parser_probe.py"
_ANSWER = "report.json"
_PYTHON_NAME = re.compile(r"(python|pypy)[\d.]*$")
_SHEBANG_BYTES = 1024


@dataclass(frozen=True)
class OptionMistake:
    """One argument that the script's parser does not accept.

    Attributes:
        option: the option as the author wrote it, without a value; None where no option is to blame.
        message: what is wrong, one sentence or two.
        closest: the script's options (for a wrong choice, its choices) that come closest, best first.
        argv_index: where it stands in the step's arguments, those after the script; None for what is missing.
    """

    option: str | None
    message: str
    closest: tuple[str, ...] = ()
    argv_index: int | None = None


@dataclass(frozen=True)
class OptionFacts:
    """One option or positional argument of the script's parser.

    Attributes:
        strings: its names (`--out-dir`, `-o`); empty for a positional argument.
        name: the longest of them, or the positional argument's name.
        required: whether the parser insists on it.
        nargs: argparse's `nargs` as text; None for exactly one value.
        choices: the accepted values as text, at most 200; None where any will do.
        type: the name of the type that converts it; None for text.
    """

    strings: tuple[str, ...]
    name: str
    required: bool
    nargs: str | None
    choices: tuple[str, ...] | None
    type: str | None


@dataclass(frozen=True)
class Checked:
    """The parser was asked.

    Attributes:
        mistakes: everything that it does not accept, in the arguments' order; what is missing comes last.
        leftovers: arguments that the parser left to the script (`parse_known_args`): not checked.
        options: what the parser accepts.
    """

    mistakes: tuple[OptionMistake, ...]
    leftovers: tuple[str, ...] = ()
    options: tuple[OptionFacts, ...] = ()


@dataclass(frozen=True)
class NotChecked:
    """The parser could not be asked.

    Attributes:
        reason: why, in one line that names the script.
        no_python: what was to run the script is no Python interpreter.
    """

    reason: str
    no_python: bool = False


@dataclass(frozen=True)
class _Program:
    """What an argv runs: `mode` is "script" or "module"; `name` is what people call it."""

    interpreter: tuple[str, ...]
    mode: str
    target: str
    args: tuple[str, ...]
    name: str


def probe(
    command: Sequence[str],
    *,
    interpreter: str,
    toolchain_root: Path,
    env: Mapping[str, str],
    time_limit: float = TIME_LIMIT_S,
    python_path: Sequence[Path] = (),
    scratch: Path | None = None,
    layers: Layers = UNCONFINED,
    hidden: Sequence[Path] = (),
) -> Checked | NotChecked:
    """Asks the parser of a step's script whether it accepts the step's arguments.

    The script runs up to its outermost parse and no further, in an empty temporary directory, and may write
    nowhere else, connect nowhere and start nothing of its own. Several threads may ask at once.

    Args:
        command: the step's argv: `[interpreter, script, *args]`, `[interpreter, "-m", module, *args]`, or
            `[executable, *args]` for a console script.
        interpreter: the toolchain's interpreter, for a console script whose own cannot be told.
        toolchain_root: made importable, after everything else.
        env: the step's environment.
        time_limit: seconds until a script that has not parsed is ended.
        python_path: directories to put before the environment's PYTHONPATH.
        scratch: where to make the temporary directory; None for the system's place.
        layers: what can be held of a sandbox here.
        hidden: what the script must not be able to read, wherever it lies.
    """
    found = _program(command, interpreter, env)
    if isinstance(found, NotChecked):
        return found
    paths = [*map(str, python_path), *filter(None, [env.get("PYTHONPATH")])]
    environment = {**env, "PYTHONDONTWRITEBYTECODE": "1"}
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    with tempfile.TemporaryDirectory(
        prefix="trt-llm-preflight-", dir=scratch, ignore_cleanup_errors=True
    ) as temporary:
        folder = Path(temporary).resolve()
        places = [
            *program_places(found.interpreter[0], environment, hidden),
            *toolchain_places(toolchain_root, hidden),
            *readable([_PROBE.parent, *python_path], ()),
        ]
        if found.mode == "script":
            places.extend(readable([Path(found.target).parent], hidden))
        sandbox = Sandbox(layers, tuple(places), (folder,))
        try:
            ended = _ask(found, folder, toolchain_root.resolve(), environment, time_limit, sandbox)
        except PipelineError as error:
            return NotChecked(f"{found.name}: {error}")
        answer = _read(folder / _ANSWER)
        begun = (folder / f"{_ANSWER}.begun").exists()
    if answer is None:
        reason = messages.silent(
            found.name, ended.exit_code, ended.stderr, timed_out=ended.timed_out, time_limit=time_limit
        )
        return NotChecked(reason, no_python=not begun and (ended.exit_code or 0) >= 0 and not ended.timed_out)
    if "not_parsed" in answer:
        reason = messages.not_parsed(found.name, **answer["not_parsed"])
        return NotChecked(Redactor(secrets_of(env))(reason))
    return _checked(answer["parsed"], found.name)


def option_reader(
    toolchain: Toolchain, env: Mapping[str, str], layers: Layers, workspace: Path | None
) -> Callable[[Sequence[str]], Sequence[OptionFacts] | str]:
    """What asks the parser of a command's script for its options; a text says why it could not be asked.

    Args:
        toolchain: whose scripts.
        env: the service's environment.
        layers: what can be held of a sandbox here.
        workspace: whose secrets the script must not read.
    """

    def options(command: Sequence[str]) -> Sequence[OptionFacts] | str:
        told = probe(
            command,
            interpreter=toolchain.python,
            toolchain_root=toolchain.root,
            env=reduced(env, more=layers.policy.variables),
            layers=layers,
            hidden=hidden_places(workspace, env),
        )
        return told.reason if isinstance(told, NotChecked) else told.options

    return options


def _ask(
    program: _Program,
    folder: Path,
    toolchain_root: Path,
    env: Mapping[str, str],
    time_limit: float,
    sandbox: Sandbox,
) -> Captured:
    """Runs the script under the probe, which leaves its answer in `folder`."""
    (folder / "cwd").mkdir()
    request = {
        "mode": program.mode,
        "target": program.target,
        "args": program.args,
        "root": str(toolchain_root),
        "scratch": str(folder),
        "report": str(folder / _ANSWER),
    }
    asked = folder / "request.json"
    asked.write_text(json.dumps(request))
    sandbox.give(folder, folder / "cwd", asked)
    return capture(
        [*program.interpreter, "-B", str(_PROBE), str(asked)],
        cwd=folder / "cwd",
        env=env,
        timeout=time_limit,
        stdout_limit=4096,
        sandbox=sandbox,
    )


def _checked(parsed: Mapping[str, Any], script: str) -> Checked:
    options = tuple(
        OptionFacts(
            strings=tuple(fields["strings"]),
            name=fields["name"],
            required=fields["required"],
            nargs=fields["nargs"],
            choices=None if fields["choices"] is None else tuple(fields["choices"]),
            type=fields["type"],
        )
        for fields in parsed["options"]
    )
    known = [string for option in options for string in option.strings]
    mistakes = []
    for found in messages.without_followers(parsed["mistakes"], known):
        message, closest = messages.mistake(found, script, known)
        option = None if found["positional"] else found["option"]
        mistakes.append(OptionMistake(option, message, closest, found["place"]))
    return Checked(tuple(mistakes), tuple(parsed["leftovers"]), options)


def _read(report: Path) -> dict[str, Any] | None:
    try:
        answer = json.loads(report.read_text())
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _program(command: Sequence[str], interpreter: str, env: Mapping[str, str]) -> _Program | NotChecked:
    first, *rest = command
    if first == interpreter or _PYTHON_NAME.match(Path(first).name):
        return _after_interpreter(first, rest)
    path = shutil.which(first, path=env.get("PATH"))
    if path is None:
        return NotChecked(f"{first} was not found on PATH, so its options cannot be asked for")
    own = _shebang(Path(path), env)
    if own is None:
        return NotChecked(f"{first} is not a Python program, so its options cannot be asked for")
    runner = own if shutil.which(own[0]) else (interpreter,)
    return _Program(runner, "script", os.path.abspath(path), tuple(rest), Path(path).name)  # noqa: PTH100


def _after_interpreter(interpreter: str, words: Sequence[str]) -> _Program | NotChecked:
    if os.sep in interpreter:
        interpreter = os.path.abspath(interpreter)  # noqa: PTH100 (resolving would lose a virtual environment)
    flags: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-"):
        flags.append(rest.pop(0))
        if flags[-1] in ("-X", "-W") and rest:
            flags.append(rest.pop(0))
    if rest and rest[0] == "-m" and len(rest) > 1:
        return _Program((interpreter, *flags), "module", rest[1], tuple(rest[2:]), rest[1])
    if not rest or rest[0].startswith("-"):
        return NotChecked("the command names no script, so no options can be asked for")
    script = os.path.abspath(rest[0])  # noqa: PTH100 (resolving a link would change the script's own folder)
    if not Path(script).is_file():
        return NotChecked(f"{script} does not exist, so its options cannot be asked for")
    return _Program((interpreter, *flags), "script", script, tuple(rest[1:]), Path(script).name)


def _shebang(path: Path, env: Mapping[str, str]) -> tuple[str, ...] | None:
    """The interpreter that a console script's first lines name; None if that is not Python.

    Installers write `#!/bin/sh` and an `exec` line where the interpreter's path is too long for a shebang
    (https://github.com/pypa/distlib, `ScriptMaker`).
    """
    try:
        with path.open("rb") as file:
            head = file.read(_SHEBANG_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    lines = [*head.splitlines(), "", ""]
    if not lines[0].startswith("#!"):
        return None
    words = lines[0][2:].split()
    if words and Path(words[0]).name == "sh" and "exec" in lines[1]:
        words = shlex.split(lines[1].replace("'''exec'", "").split('"$0"')[0])
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        if words:
            words[0] = shutil.which(words[0], path=env.get("PATH")) or words[0]
    if not words or not _PYTHON_NAME.match(Path(words[0]).name):
        return None
    return tuple(words)
