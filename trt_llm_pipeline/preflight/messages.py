"""What a check of a script's options says, in words."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_CHOICES = 12
_NOT_PARSED = {
    "no_parser": "{name} has no argparse parser, so its options cannot be asked for",
    "import": "{name} cannot be imported on this machine: {detail}",
    "syntax": "{name} is not valid Python for the interpreter that runs it: {detail}",
    "raised": "{name} stopped before it read its options: {detail}",
    "exited": "{name} exited with code {detail} before it read its options",
    "gave_up": "{name} exited with code 1 before it read its options: {detail}",
    "ended": "{name} ended without reading its options",
    "refused": "{name} tried to {detail} before it read its options, which a check does not allow",
    "other_tool": "{name} reads its options with {detail}, which cannot be asked",
    "other_arguments": "{name} parses other arguments than those of its command line",
    "parser_raised": "{name}: its parser failed: {detail}",
}


def not_parsed(name: str, kind: str, detail: str) -> str:
    """Why a script could not be asked."""
    return _NOT_PARSED[kind].format(name=name, detail=detail)


def silent(name: str, exit_code: int | None, stderr: str, *, timed_out: bool, time_limit: float) -> str:
    """Why a script that left no report could not be asked."""
    if timed_out:
        return f"{name} did not read its options within {time_limit:g} s"
    if exit_code is not None and exit_code < 0:
        return f"{name} was ended by {_signal_name(-exit_code)} before it read its options"
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    said = f": {last[:200]}" if last else ""
    return f"{name} ended with code {exit_code} before it read its options{said}"


def mistake(found: Mapping[str, Any], script: str, known: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """One mistake in words, and what comes closest to it.

    Args:
        found: a mistake as `probe_watch.py` reports it.
        script: the script's name.
        known: every option string of the script's parser.
    """
    kind, option = found["kind"], found["option"]
    closest: tuple[str, ...] = ()
    said = f"{option}: {found.get('reason')}"
    if kind == "unknown":
        closest = close_options(option, known)
        listed = ", ".join(closest)
        said = f"{script} has no option {option}"
        if closest:
            said += f"; the closest {'are' if len(closest) > 1 else 'is'} {listed}"
        else:
            said += ", nor one like it; its --help lists those that it has"
    elif kind == "missing":
        short = [string for string in found["strings"] if string != option]
        also = f" (or {', '.join(short)})" if short else ""
        subject = f"the argument {option}" if found["positional"] else f"{option}{also}"
        said = f"{subject} is required by {script}"
    elif kind == "missing_one":
        said = f"one of {', '.join(found['members'])} is required by {script}"
    elif kind == "conflict":
        said = f"{option} cannot be used together with {found['other']}"
    elif kind == "type" and found["reason"] is None:
        said = f"{option}: invalid {found['type']} value {found['value']!r}"
    elif kind == "choice":
        closest = tuple(difflib.get_close_matches(found["value"], found["choices"], 3, 0.6))
        said = f"{option}: invalid choice {found['value']!r} ({_choices(found['choices'], closest)})"
    elif kind == "ambiguous":
        closest = tuple(found["matches"])
        said = f"{option} is ambiguous for {script}: it could be {' or '.join(closest)}"
    elif kind == "abbreviated":
        closest = tuple(found["matches"])
        said = f"{script} takes {option} for {closest[0]}; write {closest[0]}: whether an engine fits, and "
        said += "where a step writes, is told by the options' whole names"
    elif kind == "exits":
        said = f"{option} only makes {script} print something and stop; leave it out"
    elif kind == "unexpected_value":
        said = _unexpected(found, script)
    return said, closest


def without_followers(found: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[Mapping[str, Any]]:
    """The mistakes without those that others have brought about.

    An option is missing because it was mistyped, or a script insists on one because its value was refused.

    Args:
        found: mistakes as `probe_watch.py` reports them.
        known: every option string of the script's parser.
    """
    mistyped = [close_options(each["option"], known) for each in found if each["kind"] == "unknown"]
    meant = {option for options in mistyped for option in options}
    meant.update(option for each in found if each["place"] is not None for option in each["strings"])
    return [each for each in found if each["place"] is not None or not meant.intersection(each["strings"])]


def close_options(option: str, known: Sequence[str]) -> tuple[str, ...]:
    """The options that come closest: the same but for dashes, underscores and case, or up to three."""
    plain = {string: _plain(string) for string in known}
    same = [string for string in known if plain[string] == _plain(option)]
    if same:
        return tuple(same)
    words = list(dict.fromkeys(plain.values()))
    close = difflib.get_close_matches(_plain(option), words, 3, 0.6)
    return tuple(next(string for string in known if plain[string] == word) for word in close)


def _plain(option: str) -> str:
    return option.lstrip("-").replace("-", "_").lower()


def _choices(choices: Sequence[str], closest: Sequence[str]) -> str:
    if len(choices) <= _MOST_CHOICES:
        return f"choose from {', '.join(choices)}"
    if closest:
        return f"one of {len(choices)} choices; the closest: {', '.join(closest)}"
    return f"choose from {', '.join(choices[:_MOST_CHOICES])} and {len(choices) - _MOST_CHOICES} more"


def _unexpected(found: Mapping[str, Any], script: str) -> str:
    option, value, nargs = found["option"], found["value"], found["nargs"]
    if not found["strings"]:
        return f"{script} has no place for the argument {value!r}"
    if nargs == "0":
        return f"{option} takes no value, but was given {value!r}"
    count = {"None": "one value", "?": "at most one value"}.get(str(nargs), f"{nargs} values")
    return f"{option} takes {count}; {value!r} is one too many"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
