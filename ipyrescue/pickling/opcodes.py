"""A stream to the plain values in it, without unpickling: nothing is imported, nothing is called, no class is made.

A strict reader of the opcodes that build None, bool, int, float, str, bytes, list, tuple and dict (`pickletools` of the
standard library describes all of them; protocol 5). Where a stream would import or call something stands an `Unread`.
Whoever wrote the stream may be an enemy: opcodes, depth and what a value unfolds to are bounded, and so is the time
that keys of a dict take.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ipyrescue.errors import CorruptError

MOST_OPCODES = 10_000_000
MOST_ELEMENTS = 20_000_000
"""Of one value, each as often as it is referred to."""

DEEPEST = 200
_MOST_SLOW_KEYS = 2_000
_MOST_IN_KEY = 1_000
_MOST_INTEGER_BYTES = 64 << 10
_LARGEST_FAST_KEY = 1 << 60
_LONGEST_NAME = 100
_PROTOCOL = 5

Tensors = Callable[[int, tuple[Any, ...]], Any]
"""A storage's number and the place in it (`offset`, `shape`, `stride`) to a tensor or array; else an `Unread`."""


@dataclass(frozen=True, eq=False)
class Unread:
    """Stands for what only unpickling would make; *what* says so."""

    what: str


@dataclass(frozen=True, eq=False)
class _Global(Unread):
    name: str


@dataclass(frozen=True, eq=False)
class _Storage(Unread):
    number: int


class NotPlainError(Exception):
    """Why a value is not restored without unpickling, as the end of a sentence."""


def read(stream: bytes, tensors: Tensors) -> tuple[Any, ...]:
    """The values of a group's names; in place of each tensor what *tensors* makes of it. Raises CorruptError."""
    try:
        content = _Reader(stream, tensors).run()
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise CorruptError(f"A stream is none that ipyrescue writes: {type(error).__name__}.") from error
    if type(content) is not tuple or len(content) != 2 or type(content[0]) is not tuple:
        raise CorruptError("A stream does not hold the values of a group.")
    return content[0]


def check(value: Any) -> None:
    """Raises NotPlainError for a value with an `Unread` in it, that holds itself, is deep, or unfolds to a lot."""
    _weigh(value, {}, DEEPEST, MOST_ELEMENTS)


def _weigh(value: Any, known: dict[int, tuple[int, int] | None], deepest: int, most: int) -> tuple[int, int]:
    """How many elements a value unfolds to, and how deep; *known* are containers met before. Raises NotPlainError."""
    if isinstance(value, Unread):
        raise NotPlainError(value.what)
    if type(value) not in (list, tuple, dict):
        return 1, 0
    if id(value) not in known:
        known[id(value)] = None
        weight, height = 1, 0
        for item in (*value.keys(), *value.values()) if type(value) is dict else value:
            if deepest <= 0:
                raise NotPlainError("nested too deep")
            below, lower = _weigh(item, known, deepest - 1, most)
            weight, height = weight + below, max(height, lower + 1)
        if weight > most:
            raise NotPlainError("unfolds to more than it is")
        known[id(value)] = weight, height
    found = known[id(value)]
    if found is None:
        raise NotPlainError("holds itself")
    if found[1] > deepest:
        raise NotPlainError("nested too deep")
    return found


class _Reader:
    """One stream. Each opcode is a method that takes its arguments from the stream and its operands from the stack."""

    def __init__(self, stream: bytes, tensors: Tensors) -> None:
        self._stream, self._at = stream, 0
        self._tensors = tensors
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._slow_keys = 0

    def run(self) -> Any:
        stream, opcodes = self._stream, _OPCODES
        for _ in range(MOST_OPCODES):
            code = stream[self._at]
            self._at += 1
            if code == _STOP:
                (content,) = self._stack
                return content
            opcodes[code](self)
        raise CorruptError(f"A stream has more than {MOST_OPCODES:,} opcodes.")

    # arguments

    def _take(self, size: int) -> bytes:
        found = self._stream[self._at : self._at + size]
        if len(found) != size:
            raise IndexError
        self._at += size
        return found

    def _number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(size), "little", signed=signed)

    def _line(self) -> str:
        end = self._stream.index(b"\n", self._at)
        return self._take(end - self._at + 1)[:-1].decode()

    # the frame around all

    def protocol(self) -> None:
        if self._number(1) != _PROTOCOL:
            raise ValueError

    def frame(self) -> None:
        if self._number(8) > len(self._stream) - self._at:
            raise IndexError

    # the stack

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def pop(self) -> None:
        self._stack.pop()

    def get(self, size: int) -> None:
        self._stack.append(self._memo[self._number(size)])

    def put(self, size: int) -> None:
        self._memo[self._number(size)] = self._stack[-1]

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    # plain values

    def constant(self, value: Any) -> None:
        self._stack.append(value)

    def integer(self, size: int, signed: bool) -> None:
        self._stack.append(self._number(size, signed=signed))

    def long(self, size: int) -> None:
        length = self._number(size)
        data = self._take(length)
        is_small = length <= _MOST_INTEGER_BYTES
        self._stack.append(int.from_bytes(data, "little", signed=True) if is_small else Unread("a huge int"))

    def real(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def text(self, size: int) -> None:
        self._stack.append(self._take(self._number(size)).decode("utf-8", "surrogatepass"))

    def data(self, size: int) -> None:
        self._stack.append(self._take(self._number(size)))

    def bytearray(self) -> None:
        self._take(self._number(8))
        self._stack.append(Unread("a bytearray"))

    # containers

    def empty(self, kind: type) -> None:
        self._stack.append(kind())

    def tuple_of(self, size: int) -> None:
        at = len(self._stack) - size
        if at < 0:
            raise IndexError
        self._stack[at:] = [tuple(self._stack[at:])]

    def tuple_to_mark(self) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def append(self) -> None:
        self._extend([self._stack.pop()])

    def appends(self) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        home = self._stack[-1]
        if isinstance(home, Unread):
            return
        if type(home) is not list:
            raise TypeError
        home.extend(items)

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def set_items(self) -> None:
        self._update(self._to_mark())

    def _update(self, items: list[Any]) -> None:
        home = self._stack[-1]
        if len(items) % 2:
            raise ValueError
        if isinstance(home, Unread):
            return
        if type(home) is not dict:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._admit(key)
            home[key] = value

    def _admit(self, key: Any) -> None:
        """Refuse keys that take long to hash or to compare: chosen by an enemy, they all fall on one place."""
        kind = type(key)
        if kind is str or kind is bytes or (kind is int and abs(key) < _LARGEST_FAST_KEY):
            return
        self._slow_keys += 1
        if self._slow_keys > _MOST_SLOW_KEYS:
            raise CorruptError(
                f"A stream has more than {_MOST_SLOW_KEYS:,} keys that are neither text nor small numbers."
            )
        if kind is tuple:
            try:
                _weigh(key, {}, DEEPEST // 10, _MOST_IN_KEY)
            except NotPlainError as reason:
                raise CorruptError(f"A key in a stream is no plain value: {reason}.") from None

    def a_set(self) -> None:
        self._stack.append(Unread("a set"))

    def add_items(self) -> None:
        self._to_mark()
        if not isinstance(self._stack[-1], Unread):
            raise TypeError

    def frozen_set(self) -> None:
        self._to_mark()
        self._stack.append(Unread("a frozenset"))

    # what would import, call or look for memory elsewhere

    def name(self) -> None:
        module, name = self._line(), self._line()
        self._stack.append(_named(module, name))

    def name_from_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(module) is not str or type(name) is not str:
            raise TypeError
        self._stack.append(_named(module, name))

    def call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(arguments) is not tuple or not isinstance(function, Unread):
            raise TypeError
        self._stack.append(self._called(function, arguments))

    def _called(self, function: Unread, arguments: tuple[Any, ...]) -> Any:
        name = function.name if isinstance(function, _Global) else ""
        if name == _STORAGE and len(arguments) == 1 and type(arguments[0]) is int:
            return _Storage(f"a call of {name}", arguments[0])
        if name in _PLACES:
            storage, *place = (arguments[at] for at in _PLACES[name])
            if isinstance(storage, _Storage):
                return self._tensors(storage.number, tuple(place))
        return Unread(f"made by {name}" if name else function.what)

    def new(self, operands: int) -> None:
        for _ in range(operands):
            self._stack.pop()
        cls = self._stack.pop()
        if not isinstance(cls, Unread):
            raise TypeError
        self._stack.append(Unread(f"made by {cls.name}" if isinstance(cls, _Global) else cls.what))

    def build(self) -> None:
        self._stack.pop()
        if type(self._stack[-1]) in (list, tuple, dict, str, bytes, int, float, bool, type(None)):
            raise TypeError

    def buffer(self) -> None:
        self._stack.append(Unread("memory beside the stream"))

    def read_only(self) -> None:
        if not isinstance(self._stack[-1], Unread):
            raise TypeError


def _named(module: str, name: str) -> _Global:
    full = f"{module}.{name}"
    return _Global(f"{full[:_LONGEST_NAME]}, which would be imported", full[:_LONGEST_NAME])


_STORAGE = "ipyrescue.pickling.placeholders.storage"
_PLACES = {
    "ipyrescue.pickling.tensors.rebuild_tensor": (1, 3, 4, 5),
    "ipyrescue.pickling.arrays.rebuild_array": (0, 4, 2, 3),
}
"""Where among the arguments storage, offset, shape and stride stand."""

_STOP = ord(".")


def _with(method: Callable[..., None], *arguments: Any) -> Callable[[_Reader], None]:
    return lambda reader: method(reader, *arguments)


_OPCODES: dict[int, Callable[[_Reader], None]] = {
    0x80: _Reader.protocol,
    0x95: _Reader.frame,
    ord("("): _Reader.mark,
    ord("0"): _Reader.pop,
    ord("1"): _Reader._to_mark,  # type: ignore[dict-item]
    ord("h"): _with(_Reader.get, 1),
    ord("j"): _with(_Reader.get, 4),
    ord("q"): _with(_Reader.put, 1),
    ord("r"): _with(_Reader.put, 4),
    0x94: _Reader.memoize,
    ord("N"): _with(_Reader.constant, None),
    0x88: _with(_Reader.constant, True),
    0x89: _with(_Reader.constant, False),
    ord("J"): _with(_Reader.integer, 4, True),
    ord("K"): _with(_Reader.integer, 1, False),
    ord("M"): _with(_Reader.integer, 2, False),
    0x8A: _with(_Reader.long, 1),
    0x8B: _with(_Reader.long, 4),
    ord("G"): _Reader.real,
    0x8C: _with(_Reader.text, 1),
    ord("X"): _with(_Reader.text, 4),
    0x8D: _with(_Reader.text, 8),
    ord("C"): _with(_Reader.data, 1),
    ord("B"): _with(_Reader.data, 4),
    0x8E: _with(_Reader.data, 8),
    0x96: _Reader.bytearray,
    ord("]"): _with(_Reader.empty, list),
    ord("}"): _with(_Reader.empty, dict),
    ord(")"): _with(_Reader.empty, tuple),
    0x85: _with(_Reader.tuple_of, 1),
    0x86: _with(_Reader.tuple_of, 2),
    0x87: _with(_Reader.tuple_of, 3),
    ord("t"): _Reader.tuple_to_mark,
    ord("a"): _Reader.append,
    ord("e"): _Reader.appends,
    ord("s"): _Reader.set_item,
    ord("u"): _Reader.set_items,
    0x8F: _Reader.a_set,
    0x90: _Reader.add_items,
    0x91: _Reader.frozen_set,
    ord("c"): _Reader.name,
    0x93: _Reader.name_from_stack,
    ord("R"): _Reader.call,
    0x81: _with(_Reader.new, 1),
    0x92: _with(_Reader.new, 2),
    ord("b"): _Reader.build,
    0x97: _Reader.buffer,
    0x98: _Reader.read_only,
}
