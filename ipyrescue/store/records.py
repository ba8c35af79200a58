"""Dataclasses to JSON and back, for records that are never trusted: known fields of the right types, and no others.

Knows texts, numbers, truths, literals, tuples and dataclasses of those; what it reads is bounded.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from functools import cache
from typing import Any, TypeVar

LONGEST_TEXT = 4096
"""In characters."""

_LARGEST_NUMBER = (1 << 63) - 1

Record = TypeVar("Record")


def encoded(record: Any) -> bytes:
    """A record as a JSON object, in ASCII."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True, indent=1).encode("ascii")


def parse(kind: type[Record], data: bytes) -> Record:
    """Read a record of this dataclass. Fields that it does not know are ignored, so that versions live side by side.

    Raises TypeError, ValueError, RecursionError.
    """
    return typing.cast("Record", _build(kind, json.loads(data)))


def _build(kind: Any, fields: Any) -> Any:
    if type(fields) is not dict:
        raise TypeError("not an object")
    hints = _hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in fields.items() if name in hints})


def _value(hint: Any, value: Any) -> Any:
    """*value* as *hint* wants it: the first of its alternatives that takes it."""
    for kind in _alternatives(hint):
        origin = typing.get_origin(kind) or kind
        if origin is typing.Literal and type(value) is str and value in typing.get_args(kind):
            return value
        if origin is tuple and type(value) is list:
            return _items(typing.get_args(kind), value)
        if dataclasses.is_dataclass(origin) and type(value) is dict:
            return _build(origin, value)
        if type(value) is origin or (origin is float and type(value) is int):
            return _plain(origin, value)
    raise TypeError("not of the types of a record")


def _items(hints: tuple[Any, ...], values: list[Any]) -> tuple[Any, ...]:
    if hints[1:] == (...,):
        return tuple(_value(hints[0], value) for value in values)
    return tuple(_value(hint, value) for hint, value in zip(hints, values, strict=True))


def _plain(kind: Any, value: Any) -> Any:
    if kind in (int, float) and not abs(value) <= _LARGEST_NUMBER:
        raise ValueError("a number that no record holds")
    if kind is str and len(value) > LONGEST_TEXT:
        raise ValueError("a text that no record holds")
    return float(value) if kind is float else value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@cache
def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
