"""The stack, the memo and the data of the machine in `machine`: kinds of values in place of values."""

from __future__ import annotations

import pickle
import re
import struct
from typing import Any, NamedTuple

from trt_llm_pipeline.model_source.pickles.sections import Reader

#: What one pickle may have at most. One of 100,000 tensors has 20 MB and remembers 700,000 values.
MOST_BYTES = 32 << 20
MOST_VALUES = 1 << 20
LONGEST_LINE = 1024
_MAY_BE_INDEX = re.compile(rb"[\s\d_+-]*")
LONGEST_TEXT = 64  # of texts that are looked at
_MOST_ITEMS = 8  # of tuples that are looked into: the arguments of every rebuild function fit


class BeyondTheList(Exception):
    """The pickle asks for more than weights need; the text says for what."""


class CannotGoOn(Exception):
    """No unpickler gets further than here."""


class BreaksOff(CannotGoOn):
    """Because there is no more of it."""


class Value(NamedTuple):
    """A value on the stack: its kind, and what of it has to be known."""

    kind: str
    of: Any = None


NONE, BOOL, FLOAT, LIST, DICT, SET = map(Value, ("None", "bool", "float", "list", "dict", "set"))
MAPPING, STORAGE, TENSOR, OTHER = map(Value, ("mapping", "storage", "tensor", "object"))
INT, TEXT, TUPLE = map(Value, ("int", "text", "tuple"))

#: What is certainly not callable and has no attributes that could be set.
PLAIN = frozenset({"None", "bool", "float", "list", "dict", "set", "int", "text", "tuple"})

# Wider than Python's own rules: what only C's functions take for a number is one here, and theirs end at NUL.
INTEGER_LINE = re.compile(rb"[\x00-\x20+\-0-9a-fA-FxXoOL_]*(\x00.*)?", re.DOTALL)
FLOAT_LINE = re.compile(rb"[\x00-\x20+\-0-9.eEinfatyINFATYxXpP_]*(\x00.*)?", re.DOTALL)
QUOTED_LINE = re.compile(rb"\s*(['\"]).*\1\s*", re.DOTALL)
ANY_LINE = re.compile(rb".*", re.DOTALL)


class Stack:
    """What a pickle's opcodes work on.

    Args:
        reader: where the pickle begins.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._stack: list[Value] = []
        self._below: list[list[Value]] = []  # what lies below each mark
        self._values = 0
        self._memo: dict[int, Value] = {}
        self._says_protocol = False

    # The stack.

    def _push(self, value: Value) -> None:
        if self._values >= MOST_VALUES:
            raise BeyondTheList(f"has a pickle of more than {MOST_VALUES:,} values")
        self._values += 1
        self._stack.append(value)

    def _pop(self) -> Value:
        value = self._stack.pop()
        self._values -= 1
        return value

    def _mark(self) -> None:
        self._push(NONE)  # counted, so that marks are bounded too
        self._stack.pop()
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Value]:
        items = self._stack
        self._stack = self._below.pop()
        self._values -= len(items) + 1
        return items

    def _pop_or_unmark(self) -> None:
        if self._stack:
            self._pop()
        else:
            self._pop_mark()

    def _duplicate(self) -> None:
        self._push(self._stack[-1])

    # The memo.

    def _put(self, index: int) -> None:
        if index >= 1 << 32 or len(self._memo) >= MOST_VALUES:
            raise BeyondTheList(f"has a pickle that remembers more than {MOST_VALUES:,} values")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        value = self._memo.get(index)
        if value is None:
            raise CannotGoOn("it refers to a value that is not there")
        self._push(value)

    # Data.

    def _number(self, layout: str) -> int:
        found: int = struct.unpack(layout, self._reader.take(struct.calcsize(layout)))[0]
        return found

    def _int(self, layout: str) -> None:
        self._push(Value("int", self._number(layout)))

    def _long(self, layout: str) -> None:
        size = self._number(layout)
        if size < 0:
            raise CannotGoOn("it has a number of negative length")
        if size > LONGEST_TEXT:
            self._reader.skip(size)
            self._push(INT)
        else:
            self._push(Value("int", int.from_bytes(self._reader.take(size), "little", signed=True)))

    def _text(self, layout: str) -> None:
        size = self._number(layout)
        if size < 0:
            raise CannotGoOn("it has a text of negative length")
        if size > LONGEST_TEXT:
            self._reader.skip(size)
            self._push(TEXT)
            return
        try:
            self._push(Value("text", self._reader.take(size).decode("utf-8", "surrogatepass")))
        except UnicodeDecodeError:
            self._push(TEXT)

    def _bytes(self, layout: str) -> None:
        size = self._number(layout)
        if size < 0:
            raise CannotGoOn("it has bytes of negative length")
        self._reader.skip(size)
        self._push(TEXT)

    def _line(self, form: re.Pattern[bytes], value: Value) -> None:
        """A value that is written out in a line, as protocol 0 does; what cannot be one ends the reading."""
        line = self._reader.line(LONGEST_LINE)
        if len(line) <= LONGEST_LINE and not form.fullmatch(line):
            raise CannotGoOn("it has a number or a text that is none")
        self._push(value)

    def _line_index(self) -> int:
        line = self._reader.line(LONGEST_LINE).partition(b"\0")[0]  # to C, a number ends there
        if len(line) > LONGEST_LINE and _MAY_BE_INDEX.fullmatch(line):
            raise BeyondTheList("has a number of more than 1,024 digits")
        try:
            return int(line)
        except ValueError:
            raise CannotGoOn("it refers to a value that is not there") from None

    def _proto(self) -> None:
        if self._reader.byte() > pickle.HIGHEST_PROTOCOL:
            raise CannotGoOn("it is of an unknown protocol")
        self._says_protocol = True

    def _tuple(self, items: list[Value]) -> Value:
        """A tuple whose items can be looked at, one level deep, so that no program can nest without end."""
        if len(items) > _MOST_ITEMS:
            return TUPLE
        return Value("tuple", tuple(TUPLE if item.kind == "tuple" else item for item in items))

    def _small_tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)][::-1]
        self._push(self._tuple(items))
