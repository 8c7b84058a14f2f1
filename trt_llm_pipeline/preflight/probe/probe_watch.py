"""Watches argparse while a script parses, and stops the script there. Part of `parser_probe.py`.

`parse_args` calls `parse_known_args` inside, which calls `_parse_known_args`; so only the outermost call ends
the program. Where the parser gives up in spite of `probe_attempt.py`, because an action of the script's own
refuses or exits, it parses again without that argument, until every mistake is found.

Standard library only, and Python 3.8 or newer.
"""

from __future__ import annotations

import argparse
import copy
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import probe_guard  # type: ignore[import-not-found,unused-ignore]
from probe_attempt import Arg, Attempt, defaults_count, place_of  # type: ignore[import-not-found,unused-ignore]

_HOOKS = (
    "_get_value",
    "_get_values",
    "_check_value",
    "_match_argument",
    "_parse_optional",
    "_get_option_tuples",
)
_STRICT = ("parse_args", "parse_intermixed_args")
_ENTRIES = (*_STRICT, "parse_known_args", "parse_known_intermixed_args", "_parse_known_args")


class _Rejected(BaseException):
    """Raised where the parser would print its usage and exit."""


class Watch:
    """The patched argparse.

    Args:
        args: the step's arguments.
        scratch: an existing directory, for stand-ins.
        finish: writes a report and ends the process.
        not_parsed: the same for a script that cannot be asked: kind, detail.
    """

    def __init__(
        self,
        args: Sequence[Arg],
        scratch: str,
        finish: Callable[[dict[str, Any]], NoReturn],
        not_parsed: Callable[[str, str], NoReturn],
    ) -> None:
        self._args = list(args)
        self._scratch = scratch
        self._finish = finish
        self._not_parsed = not_parsed
        self._attempt: Attempt | None = None
        self._foreign = 0
        self._dropped: list[dict[str, Any]] = []
        self._original: dict[str, Any] = {}
        self._defaults_count = False

    def install(self) -> None:
        """Patches argparse. Every hook does nothing until the outermost parse of the command line begins."""
        self._defaults_count = defaults_count()
        for name in _HOOKS:
            self._hook(name)
        for name in _ENTRIES:
            self._entry(name)
        # Opening the file is the script's work; with mode "w" it would even empty it.
        argparse.FileType.__call__ = lambda *_: io.StringIO()  # type: ignore[method-assign]

    def _hook(self, name: str) -> None:
        original = self._original[name] = getattr(argparse.ArgumentParser, name)

        def hooked(parser: Any, *args: Any) -> Any:
            if self._attempt is None:
                return original(parser, *args)
            return getattr(self._attempt, name.lstrip("_"))(parser, *args)

        setattr(argparse.ArgumentParser, name, hooked)

    def _entry(self, name: str) -> None:
        original = self._original[name] = getattr(argparse.ArgumentParser, name)

        def entered(parser: Any, *args: Any, **kwargs: Any) -> Any:
            if self._foreign:
                return original(parser, *args, **kwargs)
            if self._attempt is None:
                return self._outermost(name, parser, *args, **kwargs)
            if name == "_parse_known_args":
                return self._attempt.parse(parser, *args, **kwargs)
            _disarm(parser)
            return original(parser, *args, **kwargs)

        setattr(argparse.ArgumentParser, name, entered)

    def _outermost(
        self, name: str, parser: Any, args: Any = None, namespace: Any = None, *rest: Any, **kwargs: Any
    ) -> Any:
        tokens = list(sys.argv[1:] if args is None else args)
        if not self._is_the_command_line(tokens):
            if not probe_guard.importing():
                self._not_parsed("other_arguments", "")
            self._foreign += 1  # a library that parses its defaults as it is imported
            try:
                return self._original[name](parser, args, namespace, *rest, **kwargs)
            finally:
                self._foreign -= 1
        tokens = self._placed(tokens)
        unread = [arg for arg in self._args if arg not in tokens] if len(tokens) < len(self._args) else []
        strict = name in _STRICT or _caller_refuses_leftovers(parser)
        inner = "parse_known_intermixed_args" if "intermixed" in name else "parse_known_args"
        # A subclass's own way of parsing counts, unless that is what called us.
        lenient = getattr(parser, inner) if name in _STRICT else self._original[inner].__get__(parser)
        try:
            attempt, leftovers = self._attempts(parser, lenient, tokens, namespace)
        except Exception as error:  # noqa: BLE001 (any type or action of the script may raise anything)
            self._not_parsed("parser_raised", f"{type(error).__name__}: {error}")
        if strict:
            attempt.judge_leftovers(leftovers)
            leftovers = []
        mistakes = self._dropped + attempt.mistakes
        return self._finish(
            {
                "parsed": {
                    "mistakes": sorted(mistakes, key=lambda m: (m["place"] is None, m["place"] or 0)),
                    "leftovers": [str(text) for text in [*leftovers, *unread]],
                    "options": attempt.options(parser),
                }
            }
        )

    def _attempts(
        self, parser: Any, lenient: Callable[..., Any], tokens: list[Any], namespace: Any
    ) -> tuple[Attempt, list[Any]]:
        """Parses until the parser does not give up any more; each time, what it gave up on is left out."""
        while True:
            excused = {m["name"] for m in self._dropped if m["name"]}
            attempt = self._attempt = Attempt(
                self._args, self._original, self._scratch, excused, defaults_count=self._defaults_count
            )
            _disarm(parser)
            try:
                return attempt, list(lenient(list(tokens), copy.copy(namespace))[1])
            except (_Rejected, argparse.ArgumentError) as error:
                shorter = self._drop(attempt, parser, error, tokens)
            if len(shorter) == len(tokens):
                attempt.mistakes.clear()  # they are among the dropped
                return attempt, attempt.leftovers
            tokens = shorter

    def _drop(self, attempt: Attempt, parser: Any, error: BaseException, tokens: list[Any]) -> list[Any]:
        """Notes the mistake that ended a parse, and returns the arguments without it."""
        cause = error.args[1] if isinstance(error, _Rejected) else error
        name = getattr(cause, "argument_name", None)
        reason = getattr(cause, "message", None) or str(error.args[0])
        action = attempt.action_named(name, parser)
        place = attempt.place(action) if action is not None else None
        known = [m for m in attempt.mistakes if place is None or m["place"] == place]
        if not any(m["place"] == place for m in known):
            token = next((t for t in tokens if place_of(t) == place), "")
            if action is not None and action.nargs == 0 and "=" in token:
                value = token.partition("=")[2]
                known.append(attempt.mistake("unexpected_value", place, action, value=value))
            else:
                known.append(attempt.mistake("other", place, action, reason=reason))
        self._dropped.extend(known)
        if place is None:
            return tokens
        kept, dropping = [], False
        for token in tokens:
            if place_of(token) == place:
                dropping = True
            elif token[:1] in parser.prefix_chars and len(token) > 1:
                dropping = False
            if not dropping:
                kept.append(token)
        return kept

    def _is_the_command_line(self, tokens: Sequence[Any]) -> bool:
        if not tokens:
            return not self._args
        known = {_plain(arg) for arg in self._args}
        same = sum(_plain(token) in known for token in tokens)
        return any(isinstance(token, Arg) for token in tokens) or same * 2 > len(tokens)

    def _placed(self, tokens: list[Any]) -> list[Any]:
        """The arguments with their places, also where the script has rewritten some of them."""
        placed, free = [], list(self._args)
        for number, token in enumerate(tokens):
            arg = token if isinstance(token, Arg) else next((a for a in free if a == token), None)
            if arg is None and isinstance(token, str):
                arg = Arg(token)
                arg.place = number if len(tokens) == len(self._args) else -1
            free = [a for a in free if a is not arg]
            placed.append(token if arg is None else arg)
        return placed


def _disarm(parser: Any) -> None:
    """Makes a parser raise where it would exit; never undone, as the process ends with this parse."""

    def error(message: str) -> NoReturn:
        raise _Rejected(message, sys.exc_info()[1])

    def leave(_: int = 0, message: str | None = None) -> NoReturn:
        raise _Rejected(message or "prints something and exits", None)

    parser.error, parser.exit = error, leave


def _caller_refuses_leftovers(parser: Any) -> bool:
    """Whether a subclass's own strict method is what asked for a lenient parse.

    Such are an overridden `parse_args`, and `parse_args_into_dataclasses` of transformers.HfArgumentParser.
    """
    frame = sys._getframe(3)
    while frame is not None:
        if frame.f_locals.get("self") is parser:
            name = frame.f_code.co_name
            if name in _STRICT:
                return True
            if name == "parse_args_into_dataclasses":
                return not frame.f_locals.get("return_remaining_strings")
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _plain(text: Any) -> str:
    return str(text).replace("_", "-")
