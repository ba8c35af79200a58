"""Hostile streams, read without unpickling, with the places of tensors in them: mutated bytes, and what is wrong."""

from __future__ import annotations

import pickle
import random
from functools import cache
from typing import Any

from ipyrescue.errors import CorruptError
from ipyrescue.manifest import Group, Storage, Stream, Tensor
from ipyrescue.pickling import opcodes, plain
from ipyrescue.pickling.plain import NotPlainError
from ipyrescue.safe_restoring import _Shown

FLAT, TABLE = (b"K\x06\x85", b"K\x04\x85"), (b"K\x02K\x03\x86", b"K\x0cK\x04\x86")
"""Shape and stride, as opcodes make them, of the two arrays that the group of `shown` describes."""

_GROUP = Group(
    ("x",), "data", "pickle", Stream((), 0, "raw"), (), (Storage(0, 0, 24, "numpy", "cpu"),), (),
    (Tensor("x.flat", 0, "float32", (6,), (4,), 0), Tensor("x.table", 0, "float32", (2, 3), (12, 4), 0)), (),
)  # fmt: skip


def named(name: str) -> bytes:
    """Look up a name of ipyrescue."""
    return b"c%s\n%s\n" % tuple(f"ipyrescue.pickling.{name}".encode().rsplit(b".", 1))


def array(shape: bytes, stride: bytes, *, offset: bytes = b"K\x00", before: bytes = b"") -> bytes:
    """A stream of one array; *before* are opcodes that leave nothing on the stack."""
    storage = named("placeholders.storage") + b"K\x00\x85R"
    call = named("arrays.rebuild_array") + b"(" + storage + b"N" + shape + stride + offset + b"tR"
    return b"\x80\x05" + before + call + b"\x85}\x86."


def doubled(levels: int) -> bytes:
    """Opcodes that put tuples into the memo, each of twice the one before; the number of the last is *levels*."""
    pairs = (b"h%ch%c\x86\x94" % (level, level) for level in range(levels))
    return b")\x94" + b"".join(pairs) + b"0" * (levels + 1)


GOOD = (
    pickle.dumps(((None, True, 255, -(2**2000), 0.5, "text", b"bytes", [1, (2,)], {"k": {(1, "a"): None}}), {}), 5),
    pickle.dumps(((print, {1, 2}, bytearray(b"x"), range(3)), {}), 5),
    array(*FLAT),
    array(*TABLE),
    array(b"K\x07\x85", b"K\x04\x85"),
    array(b"h\x05", b"K\x04\x85", before=doubled(5)),
    b"\x80\x05}" + doubled(5) + b"h\x05Ns\x85}\x86.",
)


@cache
def shown() -> _Shown:
    """A group with two arrays over the same 24 bytes."""
    import numpy as np

    return _Shown(_GROUP, (np.zeros(24, np.uint8),))


def read(raw: bytes) -> tuple[Any, ...]:
    """The values of a stream. Raises CorruptError, NotPlainError."""
    values, known = opcodes.read(raw, shown().at), {}
    for value in values:
        plain.check(value, known)
    return values


def code() -> list[object]:
    """The functions that read it, among much else."""
    return [f for kind in (opcodes, opcodes._Reader, plain, plain._Looked, _Shown) for f in vars(kind).values()]


def problem(raw: bytes) -> str | bool:
    """Whether all of *raw* is plain, or what is wrong: any exception but the two that say so."""
    try:
        read(raw)
    except (CorruptError, NotPlainError):
        return False
    except Exception as error:  # noqa: BLE001 - which other exception there is, is the question
        return f"{error!r} from {raw[:300]!r}"
    return True


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """*raw* with one to four places changed: bytes, opcodes, what stands elsewhere in it."""
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[at:at] = bytes(rng.choice(list(opcodes._OPCODES)) for _ in range(rng.randint(1, 5)))
            case 2:
                del changed[at : at + rng.randint(1, 20)]
            case _:
                start = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + rng.randint(0, 50)]
    return bytes(changed)
