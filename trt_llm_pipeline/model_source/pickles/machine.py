"""What a pickle would do, found out by reading its opcodes; nothing of it is done.

A pickle is a program for a stack machine. Here the machine runs on kinds of values in place of values: it
knows that something is a list or the function `torch._utils._rebuild_tensor_v2`, makes no list and calls no
function, and stops where the program asks for more than weights need. So each opcode has the effect on stack
and memo that CPython's `Lib/pickle.py` and `Modules/_pickle.c` give it, and nothing is found by searching
for signs: https://github.com/python/cpython/blob/main/Lib/pickletools.py describes the opcodes.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable

from trt_llm_pipeline.model_source.pickles import names
from trt_llm_pipeline.model_source.pickles.names import Name
from trt_llm_pipeline.model_source.pickles.sections import Exhausted, Reader
from trt_llm_pipeline.model_source.pickles.stack import (
    ANY_LINE,
    BOOL,
    DICT,
    FLOAT,
    FLOAT_LINE,
    INT,
    INTEGER_LINE,
    LIST,
    LONGEST_LINE,
    LONGEST_TEXT,
    MAPPING,
    MOST_BYTES,
    NONE,
    OTHER,
    PLAIN,
    QUOTED_LINE,
    SET,
    STORAGE,
    TENSOR,
    TEXT,
    BeyondTheList,
    BreaksOff,
    CannotGoOn,
    Stack,
    Value,
)

# The opcodes that torch's own reader of weights knows.
_OF_WEIGHTS = frozenset(
    opcode[0]
    for opcode in (
        *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.NEWOBJ),
        *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT, pickle.LONG1),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.BINUNICODE, pickle.SHORT_BINSTRING),
        *(pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_SET, pickle.EMPTY_TUPLE),
        *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
        *(pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.BINPERSID),
        *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT),
    )
)


class Machine(Stack):
    """Reads one pickle.

    Args:
        reader: where it begins.
        weights: whether it is one that `torch.load` reads. Then only what torch's own reader of weights knows
            is taken; else plain data in any protocol is, too.

    Attributes:
        storages: bytes of each storage that it refers to, by key.
        result: what it makes.
    """

    def __init__(self, reader: Reader, *, weights: bool) -> None:
        super().__init__(reader)
        self._weights = weights
        self.storages: dict[str, int] = {}
        self.result = NONE

    def run(self) -> None:
        """Reads to the end of the pickle.

        Raises:
            BeyondTheList: it asks for what is not allowed.
            CannotGoOn: it is no pickle, or a damaged one, and no unpickler has called anything before it
                finds that out. `BreaksOff` where more bytes could change that.
        """
        reader, weights = self._reader, self._weights
        end = reader.place + MOST_BYTES
        try:
            while True:
                opcode = reader.byte()
                run = _RUN.get(opcode)
                if run is None:
                    raise CannotGoOn(f"0x{opcode:02x} at byte {reader.place - 1} is no opcode")
                if weights and opcode not in _OF_WEIGHTS:
                    raise BeyondTheList(f"has the opcode 0x{opcode:02x}, which no file of weights has")
                if opcode == _STOP:
                    self.result = self._pop()
                    return
                run(self)
                if reader.place > end:
                    raise BeyondTheList(f"has a pickle of more than {MOST_BYTES >> 20} MiB")
        except IndexError:
            raise CannotGoOn(f"its stack is empty at byte {reader.place}") from None
        except Exhausted:
            raise BreaksOff(f"it breaks off at byte {reader.place}") from None

    # Into containers.

    def _append(self, count: int | None) -> None:
        if count is None:
            self._pop_mark()
        else:
            self._pop()
        self._fill(self._stack[-1], frozenset({"list"}))

    def _set_items(self, count: int | None) -> None:
        if count is None:
            self._pop_mark()
        else:
            self._pop()
            self._pop()
        self._fill(self._stack[-1], frozenset({"dict", "mapping"}))

    def _add_items(self) -> None:
        self._pop_mark()
        self._fill(self._stack[-1], frozenset({"set"}))

    def _fill(self, target: Value, wanted: frozenset[str]) -> None:
        if target.kind in wanted or (not self._weights and target.kind in PLAIN):
            return
        raise BeyondTheList(f"puts items into something that is no container ({_called(target)})")

    # What could run something.

    def _global(self) -> None:
        module, name = self._reader.line(LONGEST_LINE), self._reader.line(LONGEST_LINE)
        if max(len(module), len(name)) > LONGEST_LINE:
            if _NO_FILE.search(module):
                raise CannotGoOn("it asks for a module that there cannot be")
            raise BeyondTheList("asks for a name of more than 1,024 characters")
        try:
            found = names.modern(module.decode(), name.decode())
        except UnicodeDecodeError:
            raise CannotGoOn("it asks for a name that is none") from None
        if found in names.ALLOWED:
            self._push(Value("global", found))
            return
        if _NO_MODULE.search(found[0]):  # as any text that begins with a c seems to have
            raise CannotGoOn("it asks for a module that there cannot be")
        raise BeyondTheList(f"asks for {'.'.join(found)[:LONGEST_TEXT]}")

    def _instance(self) -> None:
        self._global()  # first, as `pickle.py` does
        self._pop_mark()
        raise BeyondTheList(_IMPORTS)

    def _of_two_texts(self) -> None:
        if {self._stack[-1].kind, self._stack[-2].kind} & (PLAIN - {"text"}):
            raise CannotGoOn("it asks for a name that is none")
        raise BeyondTheList(_IMPORTS)

    def _call(self, place: int) -> None:
        if self._stack[-place].kind in PLAIN:
            raise CannotGoOn("it calls what cannot be called")
        raise BeyondTheList(_IMPORTS)

    def _object(self) -> None:
        self._stack = self._pop_mark()
        self._call(len(self._stack) or 1)

    def _extension(self, layout: str) -> None:
        self._number(layout)
        if self._says_protocol:
            raise BeyondTheList(_IMPORTS)
        raise CannotGoOn("it asks for an extension, and no Python has one")

    def _persistent(self) -> None:
        value = self._pop()
        if not self._weights:
            self._push(OTHER)
            return
        items = value.of if value.kind == "tuple" and isinstance(value.of, tuple) else ()
        if len(items) < 5 or items[0] != Value("text", "storage"):
            raise BeyondTheList("refers to something outside of itself that is no storage")
        kind, key, count = items[1], items[2], items[4]
        size = names.STORAGES.get(kind.of) if kind.kind == "global" else None
        if size is None or not isinstance(key.of, str) or not isinstance(count.of, int) or count.of < 0:
            raise BeyondTheList("describes a storage in a way that torch does not")
        if self.storages.setdefault(key.of, size * count.of) != size * count.of:
            raise BeyondTheList("describes one storage in two ways")
        self._push(STORAGE)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if function.kind in PLAIN and not self._weights:
            raise CannotGoOn("it calls what cannot be called")
        if function.kind != "global" or function.of not in names.CALLABLES:
            raise BeyondTheList(f"calls something that is no function of the list ({_called(function)})")
        if arguments.kind != "tuple":
            raise BeyondTheList(f"calls {_called(function)} with what are no arguments")
        self._push(self._made_by(function.of, arguments))

    def _new_object(self) -> None:
        arguments, made = self._pop(), self._pop()
        if made.kind in PLAIN and not self._weights:
            raise CannotGoOn("it makes an object of no class")
        if made.kind != "global" or made.of not in names.CALLABLES or made.of in names.FUNCTIONS:
            raise BeyondTheList(f"makes an object of no class of the list ({_called(made)})")
        if arguments.kind != "tuple":
            raise BeyondTheList(f"makes an object of {_called(made)} of what are no arguments")
        self._push(self._made_by(made.of, arguments))

    def _made_by(self, name: Name, arguments: Value) -> Value:
        if name in names.MAPPINGS:
            return MAPPING
        if name in names.TENSORS:
            return TENSOR
        if name == names.ENCODE:
            given = arguments.of if isinstance(arguments.of, tuple) else ()
            if len(given) != 2 or given[0].kind != "text" or given[1].of not in ("latin1", "utf-8"):
                raise BeyondTheList("calls _codecs.encode for something other than bytes")
            return TEXT
        return SET if name == ("builtins", "set") else OTHER

    def _build(self) -> None:
        self._pop()
        target = self._stack[-1]
        if target.kind in ("mapping", "tensor", "object") or (not self._weights and target.kind in PLAIN):
            return
        raise BeyondTheList(f"sets attributes of something that is no tensor ({_called(target)})")


def _called(value: Value) -> str:
    return str(".".join(value.of)) if value.kind == "global" else value.kind


_STOP = pickle.STOP[0]
_IMPORTS = "asks for a function or a class in a way that no file of weights does"

# No file or folder on any import path is called so. Hyphens are no sign: there is `lib-dynload`.
_NO_FILE = re.compile(rb"[^.]{256}")  # longer than a name may be on any file system
_NO_MODULE = re.compile(r"[\s/\x00-\x1f]|^$")

_RUN: dict[int, Callable[[Machine], object]] = {
    opcode[0]: run
    for opcode, run in {
        pickle.STOP: Machine._pop,
        pickle.PROTO: Machine._proto,
        pickle.FRAME: lambda m: m._reader.take(8),
        pickle.MARK: Machine._mark,
        pickle.POP: Machine._pop_or_unmark,
        pickle.POP_MARK: Machine._pop_mark,
        pickle.DUP: Machine._duplicate,
        pickle.NONE: lambda m: m._push(NONE),
        pickle.NEWTRUE: lambda m: m._push(BOOL),
        pickle.NEWFALSE: lambda m: m._push(BOOL),
        pickle.EMPTY_LIST: lambda m: m._push(LIST),
        pickle.EMPTY_DICT: lambda m: m._push(DICT),
        pickle.EMPTY_SET: lambda m: m._push(SET),
        pickle.EMPTY_TUPLE: lambda m: m._push(Value("tuple", ())),
        pickle.TUPLE: lambda m: m._push(m._tuple(m._pop_mark())),
        pickle.TUPLE1: lambda m: m._small_tuple(1),
        pickle.TUPLE2: lambda m: m._small_tuple(2),
        pickle.TUPLE3: lambda m: m._small_tuple(3),
        pickle.LIST: lambda m: (m._pop_mark(), m._push(LIST)),
        pickle.DICT: lambda m: (m._pop_mark(), m._push(DICT)),
        pickle.FROZENSET: lambda m: (m._pop_mark(), m._push(SET)),
        pickle.BININT: lambda m: m._int("<i"),
        pickle.BININT1: lambda m: m._int("<B"),
        pickle.BININT2: lambda m: m._int("<H"),
        pickle.LONG1: lambda m: m._long("<B"),
        pickle.LONG4: lambda m: m._long("<i"),
        pickle.BINFLOAT: lambda m: (m._reader.take(8), m._push(FLOAT)),
        pickle.INT: lambda m: m._line(INTEGER_LINE, INT),
        pickle.LONG: lambda m: m._line(INTEGER_LINE, INT),
        pickle.FLOAT: lambda m: m._line(FLOAT_LINE, FLOAT),
        pickle.STRING: lambda m: m._line(QUOTED_LINE, TEXT),
        pickle.UNICODE: lambda m: m._line(ANY_LINE, TEXT),
        pickle.BINUNICODE: lambda m: m._text("<I"),
        pickle.SHORT_BINUNICODE: lambda m: m._text("<B"),
        pickle.BINUNICODE8: lambda m: m._text("<Q"),
        pickle.SHORT_BINSTRING: lambda m: m._text("<B"),
        pickle.BINSTRING: lambda m: m._bytes("<i"),
        pickle.BINBYTES: lambda m: m._bytes("<I"),
        pickle.SHORT_BINBYTES: lambda m: m._bytes("<B"),
        pickle.BINBYTES8: lambda m: m._bytes("<Q"),
        pickle.BYTEARRAY8: lambda m: m._bytes("<Q"),
        pickle.PUT: lambda m: m._put(m._line_index()),
        pickle.BINPUT: lambda m: m._put(m._reader.byte()),
        pickle.LONG_BINPUT: lambda m: m._put(m._number("<I")),
        pickle.MEMOIZE: lambda m: m._put(len(m._memo)),
        pickle.GET: lambda m: m._get(m._line_index()),
        pickle.BINGET: lambda m: m._get(m._reader.byte()),
        pickle.LONG_BINGET: lambda m: m._get(m._number("<I")),
        pickle.APPEND: lambda m: m._append(1),
        pickle.APPENDS: lambda m: m._append(None),
        pickle.SETITEM: lambda m: m._set_items(1),
        pickle.SETITEMS: lambda m: m._set_items(None),
        pickle.ADDITEMS: Machine._add_items,
        pickle.GLOBAL: Machine._global,
        pickle.REDUCE: Machine._reduce,
        pickle.NEWOBJ: Machine._new_object,
        pickle.BUILD: Machine._build,
        pickle.BINPERSID: Machine._persistent,
        pickle.PERSID: lambda m: m._line(ANY_LINE, OTHER),
        pickle.NEXT_BUFFER: lambda m: m._push(OTHER),
        pickle.READONLY_BUFFER: lambda m: m._stack[-1],
        pickle.INST: Machine._instance,
        pickle.OBJ: Machine._object,
        pickle.NEWOBJ_EX: lambda m: m._call(3),
        pickle.STACK_GLOBAL: Machine._of_two_texts,
        pickle.EXT1: lambda m: m._extension("<B"),
        pickle.EXT2: lambda m: m._extension("<H"),
        pickle.EXT4: lambda m: m._extension("<i"),
    }.items()
}
