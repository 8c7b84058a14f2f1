"""Watches argparse while a script parses, and stops it there. Part of `parser_probe.py`.

`parse_args` calls `parse_known_args` inside, which calls `_parse_known_args`; so only the outermost call ends
the program. Mistakes are taken where argparse finds them (values, counts, choices, abbreviations) and the
parse goes on, so that one run finds them all; what is required or excluded is worked out from the parser's
own actions afterwards. Nothing is read out of argparse's messages, whose words differ between releases.

Standard library only, and Python 3.8 or newer.
"""

# Without pathlib, which would add to the start-up time.
# ruff: noqa: PTH103, PTH110, PTH118, PTH122, PTH123

from __future__ import annotations

import argparse
import copy
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import probe_guard  # type: ignore[import-not-found,unused-ignore]

_MOST_CHOICES = 200
_PLAIN_TYPES = (int, float, complex, bool)


class Arg(str):
    """An argument of the step's command, which keeps its place through the script's own handling."""

    place: int


class _Rejected(BaseException):
    """Raised where the parser would print its usage and exit."""


class _Frame:
    """One `_parse_known_args` call: of the parser, or of a subparser inside it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.changed: list[Any] = []


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
        self._watching = False
        self._foreign = 0
        self._dropped: list[dict[str, Any]] = []
        self._original: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        """Forgets what the last attempt found."""
        self._mistakes: list[dict[str, Any]] = []
        self._frames: list[_Frame] = []
        self._parsers: list[Any] = []
        self._places: dict[int, list[int]] = {}
        self._given: dict[int, int] = {}
        self._converted: list[tuple[Any, str]] = []
        self._current: Any = None
        self._texts: list[str] = []
        self._unmatched: Any = None
        self._explained: set[int] = set()
        self._doubtful: set[str] = set()
        self._valuing = 0

    def install(self) -> None:
        """Patches argparse. Every hook does nothing until the outermost parse of the command line begins."""
        parser = argparse.ArgumentParser
        for name in (
            "_get_value",
            "_get_values",
            "_check_value",
            "_match_argument",
            "_parse_optional",
            "_get_option_tuples",
        ):
            self._hook(parser, name)
        for name in (
            "parse_args",
            "parse_known_args",
            "parse_intermixed_args",
            "parse_known_intermixed_args",
            "_parse_known_args",
        ):
            self._entry(parser, name)
        # Opening the file is the script's work; with mode "w" it would even empty it.
        argparse.FileType.__call__ = lambda *_: io.StringIO()  # type: ignore[method-assign]

    def _hook(self, owner: Any, name: str) -> None:
        original = self._original[name] = getattr(owner, name)
        own = getattr(self, "_on" + name)

        def hooked(parser: Any, *args: Any) -> Any:
            if not self._watching:
                return original(parser, *args)
            return own(parser, *args)

        setattr(owner, name, hooked)

    def _entry(self, owner: Any, name: str) -> None:
        original = self._original[name] = getattr(owner, name)

        def entered(parser: Any, *args: Any, **kwargs: Any) -> Any:
            if self._foreign:
                return original(parser, *args, **kwargs)
            if not self._watching:
                return self._outermost(name, parser, *args, **kwargs)
            if name == "_parse_known_args":
                return self._inner_parse(parser, *args, **kwargs)
            self._disarm(parser)
            return original(parser, *args, **kwargs)

        setattr(owner, name, entered)

    # The outermost parse

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
        strict = name in ("parse_args", "parse_intermixed_args") or _caller_refuses_leftovers(parser)
        inner = "parse_known_intermixed_args" if "intermixed" in name else "parse_known_args"
        # A subclass's own way of parsing counts, unless that is what called us.
        parse = getattr(parser, inner) if name in ("parse_args", "parse_intermixed_args") else None
        self._watching = True
        try:
            leftovers = self._attempts(parser, parse, inner, tokens, namespace)
        except Exception as error:  # noqa: BLE001 (any type or action of the script may raise anything)
            self._not_parsed("parser_raised", f"{type(error).__name__}: {error}")
        if strict:
            self._judge_leftovers(leftovers)
            leftovers = []
        unread = [arg for arg in self._args if arg not in tokens] if len(tokens) < len(self._args) else []
        mistakes = self._dropped + self._mistakes
        return self._finish(
            {
                "parsed": {
                    "mistakes": sorted(mistakes, key=lambda m: (m["place"] is None, m["place"] or 0)),
                    "leftovers": [str(text) for text in leftovers] + [str(arg) for arg in unread],
                    "options": self._options(parser),
                }
            }
        )

    def _attempts(self, parser: Any, parse: Any, inner: str, tokens: list[Any], namespace: Any) -> list[Any]:
        """Parses until the parser does not give up any more; each time, what it gave up on is left out."""
        while True:
            self._begin()
            self._disarm(parser)
            space = copy.copy(namespace)
            try:
                if parse is not None:
                    return list(parse(list(tokens), space)[1])
                return list(self._original[inner](parser, list(tokens), space)[1])
            except (_Rejected, argparse.ArgumentError) as error:
                shorter = self._drop(parser, error, tokens)
            if len(shorter) == len(tokens):
                return []
            tokens = shorter

    def _drop(self, parser: Any, error: BaseException, tokens: list[Any]) -> list[Any]:
        """Notes the mistake that ended a parse, and returns the arguments without it."""
        cause = error.args[1] if isinstance(error, _Rejected) else error
        name = getattr(cause, "argument_name", None)
        reason = getattr(cause, "message", None) or str(error.args[0])
        action = self._current
        if name is not None and argparse._get_action_name(action) != name:
            known = [a for p in [parser, *self._parsers] for a in p._actions]
            named = [a for a in known if argparse._get_action_name(a) == name]
            action = named[0] if named else None
        place = self._place(action) if action is not None else None
        earlier = [m for m in self._mistakes if place is not None and m["place"] == place]
        for mistake in earlier:
            self._dropped.append(mistake)
        if not earlier:
            token = next((t for t in tokens if getattr(t, "place", None) == place), "")
            if action is not None and action.nargs == 0 and "=" in token:
                value = token.partition("=")[2]
                mistake = self._mistake("unexpected_value", place, action, value=value)
            else:
                mistake = self._mistake("other", place, action, reason=reason)
            self._dropped.append(mistake)
        if place is None:
            return tokens
        kept, dropping = [], False
        for token in tokens:
            if getattr(token, "place", None) == place:
                dropping = True
            elif dropping and (token[:1] in parser.prefix_chars and len(token) > 1):
                dropping = False
            if not dropping:
                kept.append(token)
        return kept

    def _disarm(self, parser: Any) -> None:
        """Makes a parser raise where it would exit; never undone, as the process ends with this parse."""

        def error(message: str) -> NoReturn:
            raise _Rejected(message, sys.exc_info()[1])

        def leave(_: int = 0, message: str | None = None) -> NoReturn:
            raise _Rejected(message or "prints something and exits", None)

        parser.error, parser.exit = error, leave

    def _is_the_command_line(self, tokens: Sequence[Any]) -> bool:
        if not tokens:
            return not self._args
        return any(isinstance(token, Arg) or token in self._args for token in tokens)

    # One parser's turn

    def _inner_parse(self, parser: Any, *args: Any, **kwargs: Any) -> Any:
        frame = _Frame()
        required = [action for action in parser._actions if action.required]
        groups = parser._mutually_exclusive_groups
        self._frames.append(frame)
        self._parsers.append(parser)
        for action in required:
            action.required = False
        parser._mutually_exclusive_groups = []
        try:
            result = self._original["_parse_known_args"](parser, *args, **kwargs)
        finally:
            self._frames.pop()
            parser._mutually_exclusive_groups = groups
            for action in required:
                action.required = True
        excused = {m["name"] for m in self._dropped if m["name"]}
        for action in required:
            doubtful = self._doubtful.intersection(action.option_strings)
            if action not in frame.seen and not doubtful and _name(action) not in excused:
                self._mistakes.append(self._mistake("missing", None, action))
        for group in groups:
            present = [action for action in frame.changed if action in group._group_actions]
            for action in present[1:]:
                if action is not present[0]:
                    place = self._place(action)
                    other = self._written(self._place(present[0]), present[0])
                    self._mistakes.append(self._mistake("conflict", place, action, other=other))
            if group.required and not present:
                members = [_name(a) for a in group._group_actions if a.help is not argparse.SUPPRESS]
                self._mistakes.append(self._mistake("missing_one", None, None, members=members))
        return result

    def _on_parse_optional(self, parser: Any, text: str) -> Any:
        result = self._original["_parse_optional"](parser, text)
        # A tuple whose first item is the action; a list of such tuples since 3.12.8.
        first = result[0] if isinstance(result, list) and result else result
        if isinstance(first, tuple) and first[0] is not None and isinstance(text, Arg):
            self._places.setdefault(id(first[0]), []).append(text.place)
        return result

    def _on_get_option_tuples(self, parser: Any, text: str) -> Any:
        result = self._original["_get_option_tuples"](parser, text)
        if len(result) > 1:
            matches = [match[1] for match in result]
            place = getattr(text, "place", None)
            if place is not None and place not in self._explained:
                mistake = self._mistake("ambiguous", place, None, matches=matches)
                mistake["option"] = text.partition("=")[0]
                self._mistakes.append(mistake)
                self._explained.add(place)
            self._doubtful.update(matches)
            return []
        return result

    def _on_match_argument(self, parser: Any, action: Any, pattern: str) -> Any:
        try:
            return self._original["_match_argument"](parser, action, pattern)
        except argparse.ArgumentError as error:
            self._unmatched = action
            self._note("count", action, ahead=1, reason=error.message)
            self._explained.update(m["place"] for m in self._mistakes[-1:] if m["place"] is not None)
            return 0

    def _on_get_values(self, parser: Any, action: Any, texts: list[str]) -> Any:
        self._current, self._texts = action, list(texts)
        self._given[id(action)] = self._given.get(id(action), 0) + 1
        if self._frames:
            self._frames[-1].seen.append(action)
        if self._unmatched is action:
            self._unmatched = None
            return argparse.SUPPRESS
        if isinstance(action, (argparse._HelpAction, argparse._VersionAction)):
            self._note("exits", action)
            return argparse.SUPPRESS
        found = len(self._mistakes)
        self._converted = []
        self._valuing += 1
        try:
            values = self._original["_get_values"](parser, action, texts)
        finally:
            self._valuing -= 1
        if self._frames and values is not action.default:
            self._frames[-1].changed.append(action)
        return values if len(self._mistakes) == found else argparse.SUPPRESS

    def _on_get_value(self, parser: Any, action: Any, text: str) -> Any:
        original = self._original["_get_value"]
        try:
            value = original(parser, action, text)
        except argparse.ArgumentError as error:
            value, accepted = self._stand_in(parser, action, text)
            if accepted:
                return value
            if self._valuing:
                own = error.__context__
                said = str(own) if isinstance(own, argparse.ArgumentTypeError) else None
                self._note("type", action, value=text, reason=said, type=_type_name(action))
            self._converted.append((_UNUSABLE, text))
            return _UNUSABLE
        except OSError:
            self._converted.append((_UNUSABLE, text))  # about a file, which may come with an earlier step
            return _UNUSABLE
        except Exception as error:  # noqa: BLE001
            value, accepted = self._stand_in(parser, action, text)
            if accepted:
                return value
            reason = f"{type(error).__name__}: {error}"
            self._note("type", action, value=text, reason=reason, type=_type_name(action))
            return _UNUSABLE
        self._converted.append((value, text))
        return value

    def _on_check_value(self, parser: Any, action: Any, value: Any) -> None:
        if value is _UNUSABLE:
            return
        try:
            self._original["_check_value"](parser, action, value)
        except argparse.ArgumentError:
            text = next((text for known, text in self._converted if known is value), str(value))
            self._note("choice", action, value=text, choices=_texts(action.choices))

    def _stand_in(self, parser: Any, action: Any, text: str) -> tuple[Any, bool]:
        """Asks again with an empty directory and an empty file in place of a path that does not exist.

        The model and the outputs of earlier steps are not there yet: that they are missing is no mistake.
        """
        extension = os.path.splitext(text)[1]
        looks_like_path = os.sep in text or extension[1:2].isalpha()
        if not looks_like_path or action.type in _PLAIN_TYPES or os.path.exists(text):
            return None, False
        folder = os.path.join(self._scratch, "stand-in")
        file = folder + extension + ".file" * (not extension)
        os.makedirs(folder, exist_ok=True)
        with open(file, "ab"):
            pass
        for path in (folder, file):
            try:
                return self._original["_get_value"](parser, action, path), True
            except Exception:  # noqa: BLE001, S112
                continue
        return None, False

    # What is said about it

    def _judge_leftovers(self, leftovers: Iterable[Any]) -> None:
        """Arguments that nobody took: unknown options with their values, or values too many."""
        for text in leftovers:
            place = getattr(text, "place", None)
            if place is None:
                place = next(
                    (a.place for a in self._args if a == text and a.place not in self._explained), None
                )
            if place is None or place in self._explained or text == "--":
                continue
            self._explained.add(place)
            if text[:1] == "-" and len(text) > 1 and not text[1:2].isdigit():
                mistake = self._mistake("unknown", place, None)
                mistake["option"] = text.partition("=")[0]
                self._mistakes.append(mistake)
            elif place - 1 not in self._explained:
                before = [(p, i) for i, ps in self._places.items() for p in ps if p < place]
                action = self._action(max(before)[1]) if before else None
                at = max(before)[0] if before else place
                self._mistakes.append(self._mistake("unexpected_value", at, action, value=str(text)))

    def _action(self, identity: int) -> Any:
        return next((a for p in self._parsers for a in p._actions if id(a) == identity), None)

    def _place(self, action: Any, ahead: int = 0) -> int | None:
        """Where the occurrence of an option that is being read stands in the arguments."""
        places = self._places.get(id(action))
        if not places:
            values = [text.place for text in self._texts if isinstance(text, Arg)]
            return values[0] if values and action is self._current else None
        number = self._given.get(id(action), 0) + ahead
        return places[min(max(number, 1), len(places)) - 1]

    def _written(self, place: int | None, action: Any) -> str | None:
        """An option as the author wrote it."""
        if place is not None and action is not None and action.option_strings:
            return str(self._args[place]).partition("=")[0]
        return _name(action)

    def _note(self, kind: str, action: Any, *, ahead: int = 0, **facts: Any) -> None:
        self._mistakes.append(self._mistake(kind, self._place(action, ahead), action, **facts))

    def _mistake(self, kind: str, place: int | None, action: Any, **facts: Any) -> dict[str, Any]:
        mistake: dict[str, Any] = {"kind": kind, "place": place, "name": _name(action)}
        mistake["option"] = self._written(place, action)
        mistake["positional"] = action is not None and not action.option_strings
        mistake["nargs"] = None if action is None or action.nargs is None else str(action.nargs)
        mistake["strings"] = [] if action is None else list(action.option_strings)
        mistake.update(facts)
        return mistake

    def _options(self, parser: Any) -> list[dict[str, Any]]:
        actions = {id(a): a for p in [parser, *self._parsers] for a in p._actions}
        return [
            {
                "strings": list(action.option_strings),
                "name": _name(action),
                "required": bool(action.required),
                "nargs": None if action.nargs is None else str(action.nargs),
                "choices": None if action.choices is None else _texts(action.choices),
                "type": _type_name(action),
            }
            for action in actions.values()
        ]


class _Unusable:
    """Stands for a value that could not be converted."""


_UNUSABLE = _Unusable()


def _caller_refuses_leftovers(parser: Any) -> bool:
    """Whether a subclass's own strict method is what asked for a lenient parse.

    Such are an overridden `parse_args`, and `parse_args_into_dataclasses` of transformers.HfArgumentParser.
    """
    frame = sys._getframe(3)
    while frame is not None:
        if frame.f_locals.get("self") is parser:
            name = frame.f_code.co_name
            if name in ("parse_args", "parse_intermixed_args"):
                return True
            if name == "parse_args_into_dataclasses":
                return not frame.f_locals.get("return_remaining_strings")
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _name(action: Any) -> str | None:
    """An option's longest name, or a positional's."""
    if action is None:
        return None
    if action.option_strings:
        return str(max(action.option_strings, key=len))
    metavar = action.metavar if isinstance(action.metavar, str) else None
    return metavar or (str(action.dest) if action.dest not in (None, argparse.SUPPRESS) else "command")


def _type_name(action: Any) -> str | None:
    kind = action.type
    return None if kind is None else str(getattr(kind, "__name__", None) or repr(kind))


def _texts(values: Any) -> list[str]:
    return [str(value) for value in itertools.islice(values, _MOST_CHOICES)]
