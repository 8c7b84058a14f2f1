"""A parser that refuses, as it parses, what this toolchain does not do.

What a script can tell from its arguments alone is said before it reads anything; whoever asks a script's
parser whether it accepts a command line hears it too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

#: Options with the reason why each is refused; the first is what a script ends with.
Refusals = Iterator[tuple[str, str]]
ONE_RANK = "a CPU engine has one rank"


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one sentence.

    Args:
        description: of the script.
        refuse: yields what is not supported of the arguments.
    """

    def __init__(self, description: str | None, refuse: Callable[[argparse.Namespace], Refusals]) -> None:
        super().__init__(description=description)
        self._refuse = refuse

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's. Exits with code 2 where something is refused."""
        found, rest = super().parse_known_args(args, namespace)
        for option, reason in self._refuse(found):
            try:
                raise argparse.ArgumentError(self._option_string_actions[option], reason)
            except argparse.ArgumentError:
                self.error(f"{option}: {reason}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Ends the script with one line and exit code 2."""
        sys.stdout.flush()
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def one_rank(args: argparse.Namespace, *options: str) -> Refusals:
    """Refuses any other number than 1 of what counts ranks; `options` without their dashes."""
    for option in options:
        value = getattr(args, option)
        if value != 1:
            yield f"--{option}", f"{value} is not supported; {ONE_RANK}"


def at_least_one(args: argparse.Namespace, *options: str) -> Refusals:
    """Refuses numbers below 1; `options` without their dashes."""
    for option in options:
        if getattr(args, option) < 1:
            yield f"--{option}", "must be at least 1"
