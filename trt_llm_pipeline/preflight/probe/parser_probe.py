"""Asks a script's own parser about an argv; started in the script's interpreter, never imported.

    python -B parser_probe.py REQUEST.json

The request: `mode` ("script" or "module"), `target` (the file or the module's name), `args` (what follows
it), `root` (the toolchain), `scratch` (the one directory that may be written), `report` (the file to write).
The script is started as `python target args...` would start it, and is stopped in its outermost parse. The
report is JSON: `{"parsed": ...}` (see `probe_watch.py`) or `{"not_parsed": {"kind", "detail"}}`.

Standard library only, and Python 3.8 or newer: `$TRTLLM_PYTHON` need not be the service's interpreter.
"""

# Without pathlib, which would add to the start-up time.
# ruff: noqa: PTH100, PTH103, PTH104, PTH109, PTH118, PTH120, PTH123

from __future__ import annotations

import sys

# The interpreter put this file's directory first; the script must never find the service's modules there.
_HERE = sys.path.pop(0) if sys.path and not getattr(sys.flags, "safe_path", False) else None

import builtins  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import types  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import probe_attempt  # type: ignore[import-not-found,unused-ignore]  # noqa: E402
import probe_guard  # type: ignore[import-not-found,unused-ignore]  # noqa: E402
import probe_watch  # type: ignore[import-not-found,unused-ignore]  # noqa: E402

del sys.path[0]

_ONE_LINE = 300


def main() -> NoReturn:
    """Runs the script until it parses, and reports."""
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    report_path = request["report"]
    open(report_path + ".begun", "w").close()  # what runs this file is a Python interpreter

    def finish(report: dict[str, Any]) -> NoReturn:
        # No handler, thread or `finally` of the script may run after its parse, so there is no ordinary exit.
        partial = report_path + ".partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(report, file)
        os.rename(partial, report_path)
        os._exit(0)

    def not_parsed(kind: str, detail: str = "") -> NoReturn:
        finish({"not_parsed": {"kind": kind, "detail": " ".join(detail.split())[:_ONE_LINE]}})

    target, root, scratch = request["target"], request["root"], request["scratch"]
    is_script = request["mode"] == "script"
    if not getattr(sys.flags, "safe_path", False):
        # A script's own folder is first on the path; with `-m` that is the working directory.
        sys.path.insert(0, os.path.dirname(target) if is_script else os.getcwd())
    if root not in sys.path:
        sys.path.append(root)  # last, so that a source tree never hides the installed package
    _redirect_homes(scratch)

    source = target if is_script else probe_guard.find_source(target, as_program=True)
    if source is None:
        not_parsed("import", f"ModuleNotFoundError: No module named {target!r}")
    folders = [os.path.dirname(source), root]
    if not probe_guard.mentions_parser(source, folders):
        not_parsed("no_parser")

    args = [probe_attempt.Arg(text) for text in request["args"]]
    for place, arg in enumerate(args):
        arg.place = place
    sys.argv = [target, *args]
    guard = probe_guard.Guard(scratch, source)
    probe_watch.Watch(args, scratch, finish, not_parsed).install()
    guard.install(lambda name: not_parsed("other_tool", name))
    try:
        if is_script:
            _run_script(target)
        else:
            import runpy

            runpy.run_module(target, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = 0 if error.code is None else error.code
        not_parsed("exited" if isinstance(code, int) else "gave_up", str(code))
    except SyntaxError as error:
        not_parsed("syntax", f"line {error.lineno}: {error.msg}")
    except BaseException as error:  # noqa: BLE001
        refused = guard.refused_in(error)
        if refused is not None:
            not_parsed("refused", refused)
        kind = "import" if isinstance(error, ImportError) else "raised"
        not_parsed(kind, f"{type(error).__name__}: {error}")
    not_parsed("ended")


def _run_script(path: str) -> None:
    """Runs a file as `__main__`, as the interpreter would."""
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None)
    _KEPT.append(sys.modules["__main__"])
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # noqa: S102


_KEPT: list[Any] = []  # this program's own module, which must outlive its place in sys.modules


def _redirect_homes(scratch: str) -> None:
    """Sends caches, settings and temporary files into `scratch`.

    Only here and not in the interpreter's environment, because packages installed for one user and version
    managers are found through HOME while the interpreter starts.
    """
    home, temporary = os.path.join(scratch, "home"), os.path.join(scratch, "tmp")
    os.makedirs(home, exist_ok=True)
    os.makedirs(temporary, exist_ok=True)
    os.environ.update(HOME=home, TMPDIR=temporary, TEMP=temporary, TMP=temporary, PYTHONDONTWRITEBYTECODE="1")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "MPLCONFIGDIR"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = True


if __name__ == "__main__":
    main()
