"""Elements that lie in memory by strides, to the same elements in C order. Pure; knows no dtypes, only sizes.

Strided slices of memoryviews are copied by C, so the work in Python is one step for each run of elements along one
axis. A block of that axis is copied for all places on the others before the next one, so that it stays in the cache;
nothing is taken beside the result but one block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Literal

_BLOCK_UNITS = 8192
_WORTH_A_STEP_BYTES = 4096
"""Rows of so many bytes are copied one by one, where they stand together, even if there are many of them."""
_FORMATS: dict[int, Literal["Q", "I", "H", "B"]] = {8: "Q", 4: "I", 2: "H", 1: "B"}


@dataclass(frozen=True)
class _Axis:
    """So many elements, and how many units lie between two of them: where they are, and where they go."""

    length: int
    source: int
    target: int


def in_c_order(
    memory: memoryview, shape: Sequence[int], strides: Sequence[int], *, item_bytes: int, offset: int
) -> bytearray:
    """The elements of *memory* from the byte *offset* on, whose strides count bytes. All of them must be in it."""
    copied = bytearray(math.prod(shape) * item_bytes)
    jumps = [(length, stride) for length, stride in zip(shape, strides, strict=True) if length != 1]
    unit = math.gcd(8, item_bytes, *(stride for _, stride in jumps))
    lowest = offset + sum(min(0, (length - 1) * stride) for length, stride in jumps)
    span = item_bytes + sum((length - 1) * abs(stride) for length, stride in jumps)
    source, target = memory[lowest : lowest + span].cast(_FORMATS[unit]), memoryview(copied).cast(_FORMATS[unit])
    along, others = _split(_merged(jumps, item_bytes, unit), unit)
    first = (offset - lowest) // unit
    for start in range(0, along.length, _BLOCK_UNITS):
        length = min(_BLOCK_UNITS, along.length - start)
        for from_unit, to_unit in _places(others):
            at = to_unit + start * along.target
            run = _run(source, first + from_unit + start * along.source, along.source, length, unit)
            target[at : at + length * along.target : along.target] = run
    return copied


def _merged(jumps: Sequence[tuple[int, int]], item_bytes: int, unit: int) -> list[_Axis]:
    """The axes with the units of one element as the last; those that are one run of memory count as one."""
    axes = [_Axis(item_bytes // unit, 1, 1)]
    for length, stride in reversed(jumps):
        inner = axes[0]
        if inner.length == 1:
            axes[0] = _Axis(length, stride // unit, inner.target)
        elif stride // unit == inner.length * inner.source:
            axes[0] = _Axis(length * inner.length, inner.source, inner.target)
        else:
            axes.insert(0, _Axis(length, stride // unit, inner.length * inner.target))
    return axes


def _split(axes: list[_Axis], unit: int) -> tuple[_Axis, list[_Axis]]:
    """The axis along which is copied, and the others: the longest, so that there are the fewest steps."""
    last = axes[-1]
    along = last if last.source == 1 and last.length * unit >= _WORTH_A_STEP_BYTES else max(axes, key=_length)
    return along, [axis for axis in axes if axis is not along]


def _length(axis: _Axis) -> int:
    return axis.length


def _places(axes: Sequence[_Axis]) -> Iterator[tuple[int, int]]:
    """Every place on *axes*, in units from the first: where it is, and where it goes."""
    sources, targets = [axis.source for axis in axes], [axis.target for axis in axes]
    for place in itertools.product(*(range(axis.length) for axis in axes)):
        yield sum(map(mul, place, sources)), sum(map(mul, place, targets))


def _run(source: memoryview, start: int, step: int, length: int, unit: int) -> memoryview:
    """So many units of *source*; a step of none is the same one again and again."""
    if step == 0:
        return memoryview(bytes(source[start : start + 1]) * length).cast(_FORMATS[unit])
    stop = start + length * step
    return source[start : stop if stop >= 0 else None : step]
