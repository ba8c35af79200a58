"""A stream to the plain values in it, without unpickling: nothing is imported, nothing is called, no class is made.

A strict reader of the opcodes that build None, bool, int, float, str, bytes, list, tuple and dict (`pickletools` of the
standard library describes all of them; protocol 5). Where a stream would import or call something stands an `Unread`.
Whoever wrote the stream may be an enemy: opcodes, depth and what a value unfolds to are bounded, and so is the time
that keys of a dict take. Nothing that was read is hashed or compared before it is known to be small and flat: C code
would do it without end, or recurse until the process dies.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ipyrescue.errors import CorruptError
from ipyrescue.pickling.plain import Unread

MOST_OPCODES = 10_000_000
_MOST_SLOW_KEYS = 2_000
_DEEPEST_KEY = 20
_MOST_IN_KEY = 64 << 10
_MOST_KEY_WORK = 1 << 28
_LONGEST_FAST_KEY = 1_000
_MOST_AXES = 64
_MOST_IN_PLACE = (1 << 63) - 1
_MOST_INTEGER_BYTES = 64 << 10
_LARGEST_FAST_KEY = 1 << 60
_LONGEST_NAME = 100
_PROTOCOL = 5

Tensors = Callable[[int, tuple[Any, ...]], Any]
"""A storage's number and the place in it (`offset`, `shape`, `stride`) to a tensor or array; else an `Unread`."""


@dataclass(frozen=True, eq=False, slots=True)
class _Global(Unread):
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class _Storage(Unread):
    number: int


@dataclass
class Budget:
    """How many *opcodes* may still make something, in all streams together that are read with it to their ends."""

    opcodes: int


def read(stream: bytes, tensors: Tensors, budget: Budget | None = None) -> tuple[Any, ...]:
    """The values of a group's names; in place of each tensor what *tensors* makes of it. Raises CorruptError."""
    try:
        content = _Reader(stream, tensors).run(budget or Budget(MOST_OPCODES))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise CorruptError(f"A stream is none that ipyrescue writes: {type(error).__name__}.") from error
    if type(content) is not tuple or len(content) != 2 or type(content[0]) is not tuple:
        raise CorruptError("A stream does not hold the values of a group.")
    return content[0]


def _size_of_key(key: Any, deepest: int = _DEEPEST_KEY) -> int:
    """About how many bytes are hashed of a key, each as often as it is referred to. Raises CorruptError."""
    if type(key) is int:
        return 1 + key.bit_length() // 8
    if type(key) in (str, bytes):
        return 1 + len(key)
    size = 1
    for item in key if type(key) is tuple else ():
        size += _size_of_key(item, deepest - 1) if deepest else _MOST_IN_KEY
        if size > _MOST_IN_KEY:
            raise CorruptError("A key in a stream is nested too deep, or unfolds to more than it is.")
    return size


def _is_place(offset: Any, shape: Any, stride: Any) -> bool:
    """Whether these can be those of a tensor: an enemy's may be such as nothing can hash."""
    return _is_number(offset) and all(
        type(axes) is tuple and len(axes) <= _MOST_AXES and all(map(_is_number, axes)) for axes in (shape, stride)
    )


def _is_number(value: Any) -> bool:
    return type(value) is int and abs(value) <= _MOST_IN_PLACE


class _Reader:
    """One stream. Each opcode is a method that takes its arguments from the stream and its operands from the stack."""

    def __init__(self, stream: bytes, tensors: Tensors) -> None:
        self._stream, self._at = stream, 0
        self._tensors = tensors
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._slow_keys = 0
        self._key_work = 0

    def run(self, budget: Budget) -> Any:
        stream, opcodes, most = self._stream, _OPCODES, min(budget.opcodes, MOST_OPCODES)
        for count in range(most):
            code = stream[self._at]
            self._at += 1
            if code == _STOP:
                (content,) = self._stack
                budget.opcodes -= count
                return content
            opcodes[code](self)
        raise CorruptError(f"A stream has more than {most:,} opcodes, which is all that memory and time are for.")

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
        if kind is str or kind is bytes:
            if len(key) > _LONGEST_FAST_KEY:
                self._work(len(key))
            return
        if kind is int and abs(key) < _LARGEST_FAST_KEY:
            return
        self._slow_keys += 1
        if self._slow_keys > _MOST_SLOW_KEYS:
            raise CorruptError(
                f"A stream has more than {_MOST_SLOW_KEYS:,} keys that are neither text nor small numbers."
            )
        self._work(_size_of_key(key) * self._slow_keys)

    def _work(self, most_bytes: int) -> None:
        """Count what hashing a key, and comparing it with those that it may fall on, takes at most."""
        self._key_work += most_bytes
        if self._key_work > _MOST_KEY_WORK:
            raise CorruptError("A stream has keys that take too long to tell apart.")

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
        if name == _STORAGE and len(arguments) == 1 and _is_number(arguments[0]):
            return _Storage(f"a call of {name}", arguments[0])
        if name in _PLACES:
            storage, *place = (arguments[at] for at in _PLACES[name])
            if isinstance(storage, _Storage) and _is_place(*place):
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
    full = f"{module[:_LONGEST_NAME]}.{name[:_LONGEST_NAME]}"[:_LONGEST_NAME]
    return _Global(f"{full}, which would be imported", full)


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
