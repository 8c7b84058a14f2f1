"""One parse that goes on past mistakes. Part of `parser_probe.py`.

Mistakes are noted where argparse finds them (values, counts, choices, abbreviations) and the parse goes on,
so that one run finds them all; what is required or excluded is worked out from the parser's own actions
afterwards. Nothing is read out of argparse's messages, whose words differ between releases.

Standard library only, and Python 3.8 or newer.
"""

from __future__ import annotations

# Without pathlib, which would add to the start-up time.
# ruff: noqa: PTH103, PTH110, PTH118, PTH122, PTH123
import argparse
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

_MOST_CHOICES = 200
_PLAIN_TYPES = (int, float, complex, bool)
_UNUSABLE = object()  # stands for a value that could not be converted


class Arg(str):
    """An argument of the step's command, which keeps its place through the script's own handling."""

    place = -1  # unknown


def place_of(text: Any) -> int | None:
    """An argument's place among the step's; None for text that the script or argparse has made."""
    return text.place if isinstance(text, Arg) and text.place >= 0 else None


class _Turn:
    """One parser's turn: the outer one's, or a subparser's inside it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.changed: list[Any] = []


class Attempt:
    """What one parse has found. Its methods stand in for those of `ArgumentParser` of the same names.

    Attributes:
        mistakes: what has been found so far, each as `mistake()` makes it.
        leftovers: the arguments that nobody took, known as soon as argparse itself is done: a script that
            refuses something then, before it is given them, does not hide them.

    Args:
        args: the step's arguments.
        original: argparse's own methods.
        scratch: an existing directory, for stand-ins.
        excused: names of options that were left out, and are not to be called missing.
        defaults_count: see `defaults_count()`.
    """

    def __init__(
        self,
        args: Sequence[Arg],
        original: Mapping[str, Any],
        scratch: str,
        excused: set[str],
        *,
        defaults_count: bool,
    ) -> None:
        self.mistakes: list[dict[str, Any]] = []
        self.leftovers: list[Any] = []
        self._args = args
        self._original = original
        self._scratch = scratch
        self._excused = excused
        self._defaults_count = defaults_count
        self._turns: list[_Turn] = []
        self._parsers: list[Any] = []
        self._places: dict[int, list[int]] = {}
        self._given: dict[int, int] = {}
        self._converted: list[tuple[Any, str]] = []
        self._current: Any = None
        self._texts: list[str] = []
        self._unmatched: Any = None
        self._explained: set[int] = set()
        self._abbreviated: set[int] = set()
        self._doubtful: set[str] = set()
        self._valuing = 0

    def parse(self, parser: Any, *args: Any, **kwargs: Any) -> Any:
        """`_parse_known_args`: nothing is required and nothing excluded until it is over."""
        turn = _Turn()
        required = [action for action in parser._actions if action.required]
        groups = parser._mutually_exclusive_groups
        self._turns.append(turn)
        self._parsers.append(parser)
        for action in required:
            action.required = False
        parser._mutually_exclusive_groups = []
        try:
            result = self._original["_parse_known_args"](parser, *args, **kwargs)
        finally:
            self._turns.pop()
            parser._mutually_exclusive_groups = groups
            for action in required:
                action.required = True
        if not self._turns:
            self.leftovers = [*getattr(result[0], argparse._UNRECOGNIZED_ARGS_ATTR, ()), *result[1]]
        for action in required:
            doubtful = self._doubtful.intersection(action.option_strings)
            if action not in turn.seen and not doubtful and _name(action) not in self._excused:
                self.mistakes.append(self.mistake("missing", None, action))
        for group in groups:
            self._judge_group(group, turn)
        return result

    def _judge_group(self, group: Any, turn: _Turn) -> None:
        present = [action for action in turn.changed if action in group._group_actions]
        for action in present[1:]:
            if action is not present[0]:
                other = self._written(self.place(present[0]), present[0])
                self.mistakes.append(self.mistake("conflict", self.place(action), action, other=other))
        if group.required and not present:
            members = [_name(a) for a in group._group_actions if a.help is not argparse.SUPPRESS]
            if not self._excused.intersection(filter(None, members)):
                self.mistakes.append(self.mistake("missing_one", None, None, members=members))

    def parse_optional(self, parser: Any, text: str) -> Any:
        result = self._original["_parse_optional"](parser, text)
        # A tuple whose first item is the action; a list of such tuples since 3.12.8.
        first = result[0] if isinstance(result, list) and result else result
        place = place_of(text)
        if isinstance(first, tuple) and first[0] is not None and place is not None:
            self._places.setdefault(id(first[0]), []).append(place)
            self._note_abbreviation(first[0], text, place)
        return result

    def _note_abbreviation(self, action: Any, text: str, place: int) -> None:
        option = text.partition("=")[0]
        meant = [name for name in action.option_strings if name.startswith(option)]
        if option[:2] == "--" and meant and option not in meant and place not in self._abbreviated:
            self._abbreviated.add(place)
            self.mistakes.append(self.mistake("abbreviated", place, action, option=option, matches=meant))

    def get_option_tuples(self, parser: Any, text: str) -> Any:
        result = self._original["_get_option_tuples"](parser, text)
        if len(result) > 1:
            matches = [match[1] for match in result]
            place = place_of(text)
            if place is None or place not in self._explained:
                option = text.partition("=")[0]
                self.mistakes.append(self.mistake("ambiguous", place, None, matches=matches, option=option))
            if place is not None:
                self._explained.add(place)
            self._doubtful.update(matches)
            return []
        return result

    def match_argument(self, parser: Any, action: Any, pattern: str) -> Any:
        try:
            return self._original["_match_argument"](parser, action, pattern)
        except argparse.ArgumentError as error:
            self._unmatched = action
            place = self.place(action, ahead=1)
            self.mistakes.append(self.mistake("count", place, action, reason=error.message))
            if place is not None:
                self._explained.add(place)
            return 0

    def get_values(self, parser: Any, action: Any, texts: list[str]) -> Any:
        self._current, self._texts = action, list(texts)
        self._given[id(action)] = self._given.get(id(action), 0) + 1
        if self._turns:
            self._turns[-1].seen.append(action)
        if self._unmatched is action:
            self._unmatched = None
            return argparse.SUPPRESS
        if isinstance(action, (argparse._HelpAction, argparse._VersionAction)):
            self._note("exits", action)
            return argparse.SUPPRESS
        found = len(self.mistakes)
        self._converted = []
        self._valuing += 1
        try:
            values = self._original["_get_values"](parser, action, texts)
        finally:
            self._valuing -= 1
        # Later releases count an option for its group whatever its value, others not with its default.
        given = bool(action.option_strings or texts)
        if self._turns and (given if self._defaults_count else values is not action.default):
            self._turns[-1].changed.append(action)
        # SUPPRESS keeps argparse from calling the action.
        return values if len(self.mistakes) == found else argparse.SUPPRESS

    def get_value(self, parser: Any, action: Any, text: str) -> Any:
        said = None
        try:
            value = self._original["_get_value"](parser, action, text)
        except OSError:
            value = _UNUSABLE  # about a file, which may come with an earlier step
        except Exception as error:  # noqa: BLE001 (a type is any function of the script's)
            value = self._stand_in(parser, action, text)
            own = error.__context__ if isinstance(error, argparse.ArgumentError) else error
            if isinstance(own, argparse.ArgumentTypeError):
                said = str(own)
            elif own is error:
                said = f"{type(own).__name__}: {own}"
            if value is _UNUSABLE and self._valuing:  # else it is a default, which the author did not write
                self._note("type", action, value=text, reason=said, type=_type_name(action))
        self._converted.append((value, text))
        return value

    def check_value(self, parser: Any, action: Any, value: Any) -> None:
        if value is _UNUSABLE:
            return
        try:
            self._original["_check_value"](parser, action, value)
        except argparse.ArgumentError:
            text = next((text for known, text in self._converted if known is value), str(value))
            self._note("choice", action, value=text, choices=_texts(action.choices))

    def _stand_in(self, parser: Any, action: Any, text: str) -> Any:
        """Asks again with an empty directory and an empty file in place of a path that does not exist.

        The model and the outputs of earlier steps are not there yet: that they are missing is no mistake.
        """
        extension = os.path.splitext(text)[1]
        looks_like_path = os.sep in text or extension[1:2].isalpha()
        if not looks_like_path or action.type in _PLAIN_TYPES or os.path.exists(text):
            return _UNUSABLE
        folder = os.path.join(self._scratch, "stand-in")
        file = folder + (extension or ".file")
        os.makedirs(folder, exist_ok=True)
        with open(file, "ab"):
            pass
        for path in (folder, file):
            try:
                return self._original["_get_value"](parser, action, path)
            except Exception:  # noqa: BLE001, S112
                continue
        return _UNUSABLE

    def judge_leftovers(self, leftovers: Iterable[Any]) -> None:
        """Notes the arguments that nobody took: unknown options with their values, or values too many."""
        for text in leftovers:
            place = place_of(text)
            if place in self._explained:
                continue
            if place is not None:
                self._explained.add(place)
            if text[:1] == "-" and text not in ("-", "--") and not text[1:2].isdigit():
                written = str(text if place is None else self._args[place])
                self.mistakes.append(self.mistake("unknown", place, None, option=written.partition("=")[0]))
            elif place is None or place - 1 not in self._explained:
                at, action = self._option_before(place)
                self.mistakes.append(self.mistake("unexpected_value", at, action, value=str(text)))

    def _option_before(self, place: int | None) -> tuple[int | None, Any]:
        """The option after which a value stands that nobody took: its place and its action, or no action."""
        if place is None:
            return None, None
        occurrences = (
            (at, identity) for identity, places in self._places.items() for at in places if at < place
        )
        at, identity = max(occurrences, default=(place, None))
        return at, next((action for action in self._actions() if id(action) == identity), None)

    def action_named(self, name: str | None, parser: Any) -> Any:
        """The action that an ArgumentError names; without a name, the one that was given its values last."""
        if name is None or argparse._get_action_name(self._current) == name:
            return self._current
        known = [*parser._actions, *self._actions()]
        return next((a for a in known if argparse._get_action_name(a) == name), None)

    def place(self, action: Any, ahead: int = 0) -> int | None:
        """Where the occurrence of an option that is being read stands in the arguments."""
        places = self._places.get(id(action))
        if not places:
            values = [place for place in map(place_of, self._texts) if place is not None]
            return values[0] if values and action is self._current else None
        number = self._given.get(id(action), 0) + ahead
        return places[min(max(number, 1), len(places)) - 1]

    def _actions(self) -> list[Any]:
        return [action for parser in self._parsers for action in parser._actions]

    def _written(self, place: int | None, action: Any) -> str | None:
        """An option as the author wrote it."""
        if place is not None and action is not None and action.option_strings:
            return str(self._args[place]).partition("=")[0]
        return _name(action)

    def _note(self, kind: str, action: Any, **facts: Any) -> None:
        self.mistakes.append(self.mistake(kind, self.place(action), action, **facts))

    def mistake(self, kind: str, place: int | None, action: Any, **facts: Any) -> dict[str, Any]:
        """One mistake as it is reported; `place` counts the step's arguments from 0."""
        return {
            "kind": kind,
            "place": place,
            "name": _name(action),
            "option": self._written(place, action),
            "positional": action is not None and not action.option_strings,
            "nargs": None if action is None or action.nargs is None else str(action.nargs),
            "strings": [] if action is None else list(action.option_strings),
            **facts,
        }

    def options(self, parser: Any) -> list[dict[str, Any]]:
        """What the parsers that had a turn accept."""
        actions = {id(action): action for action in [*parser._actions, *self._actions()]}
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


def defaults_count() -> bool:
    """Whether in this argparse an option with its default value excludes others; to be asked unpatched."""
    parser = _Raising(add_help=False)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--given", nargs="?")
    group.add_argument("--other", action="store_true")
    try:
        parser.parse_args(["--given", "--other"])
    except argparse.ArgumentError:
        return True
    return False


class _Raising(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


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
