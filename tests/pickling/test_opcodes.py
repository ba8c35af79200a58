"""Streams read without unpickling: plain values come, nothing runs, no enemy takes time or memory."""

from __future__ import annotations

import math
import pickle
import random
import struct
from typing import Any

import pytest
from torture import streams
from torture.streams import read

from ipyrescue.errors import CorruptError
from ipyrescue.pickling import opcodes
from ipyrescue.pickling.plain import NotPlainError, Unread

pytest.importorskip("numpy")

PLAIN = (
    None,
    True,
    False,
    0,
    -1,
    255,
    65535,
    -(2**31),
    2**63,
    -(2**2000),
    0.5,
    math.inf,
    "",
    "text \u202e \ud800",
    "x" * 70_000,
    b"",
    b"bytes" * 100,
    b"x" * 70_000,
    [],
    [1, [2, [3]]],
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    {},
    {"lr": 0.1, 3: None, (1, "a"): [b"c"], None: True, 1.5: 2, b"k": {}},
    list(range(3000)),
    {str(n): n for n in range(3000)},
)


def no_tensor(storage: int, place: tuple[Any, ...]) -> Any:
    return Unread("a tensor")


def stream(*values: Any, protocol: int = 5) -> bytes:
    return pickle.dumps((values, {}), protocol)


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20].encode("unicode_escape").decode())
def test_plain_values_come_as_they_were(value: Any) -> None:
    (found,) = read(stream(value))

    assert found == value
    assert repr(found) == repr(value)


def test_what_is_shared_stays_shared() -> None:
    shared = [1]

    first, second, both = read(stream(shared, shared, {"a": shared, "b": shared}))

    assert first is second is both["a"] is both["b"]


def test_the_pickler_in_python_is_understood_too() -> None:
    """Dill is one: its opcodes are the same."""
    values = (PLAIN[26], [PLAIN[26]])

    assert read(_python_pickle((values, {}))) == values


def _python_pickle(content: Any) -> bytes:
    import io

    file = io.BytesIO()
    pickle._Pickler(file, 5).dump(content)  # type: ignore[attr-defined]
    return file.getvalue()


class Canary:
    """Sings when it is unpickled."""

    songs = 0

    def __repr__(self) -> str:
        return "canary"

    def __reduce__(self) -> Any:
        return Canary.sing, ()

    @classmethod
    def sing(cls) -> None:
        cls.songs += 1


@pytest.mark.parametrize(
    "value",
    [Canary(), [1, Canary()], {"a": {"b": (Canary(),)}}, {1, 2}, frozenset({1}), bytearray(b"x"), 1j, print, range(3)],
    ids=str,
)
def test_what_needs_code_is_named_and_not_made(value: Any) -> None:
    with pytest.raises(NotPlainError, match=r"made by|imported|a set|a frozenset|a bytearray"):
        read(stream(value))

    assert Canary.songs == 0


def test_what_is_plain_beside_it_comes() -> None:
    canary, kept = opcodes.read(stream(Canary(), {"kept": 1}), no_tensor)

    assert isinstance(canary, Unread)
    assert kept == {"kept": 1}


def nested(depth: int, one: bytes) -> bytes:
    return b"\x80\x05" + b"]" + one * depth + b"\x85}\x86."


def billion_laughs() -> bytes:
    """Each list holds the one before ten times: 10^30 elements in 600 bytes."""
    levels = b"".join(b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9 + b"e\x94" for n in range(30))
    return b"\x80\x05](K\x01e\x94" + levels + b"\x85}\x86."


def colliding_keys() -> bytes:
    """Numbers that hash to one place."""
    keys = b"".join(b"\x8a\x0c" + ((2**61 - 1) * n).to_bytes(12, "little", signed=True) + b"N" for n in range(1, 3_000))
    return b"\x80\x05}(" + keys + b"u\x85}\x86."


def long_keys() -> bytes:
    """Two equal texts of a megabyte under one key after another: each look at it compares them."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)
    return b"\x80\x05" + text + b"\x940" + text + b"\x940}h\x00Ns(" + b"h\x01N" * 300_000 + b"u\x85}\x86."


DEEP = b")" + b"\x85" * 200_000
ENEMIES = {
    "nested lists": nested(100_000, b"\x85"),
    "nested tuple as a key": b"\x80\x05}" + DEEP + b"Ns\x85}\x86.",
    "nested tuple as a shape": streams.array(DEEP, streams.FLAT[1]),
    "nested tuple in a shape": streams.array(DEEP + b"\x85", streams.FLAT[1]),
    "tuple that doubles as a shape": streams.array(b"h\x3c", streams.FLAT[1], before=streams.doubled(60)),
    "many axes": streams.array(b"(" + b"K\x01" * 100_000 + b"t", streams.FLAT[1]),
    "long text twice as a key": long_keys(),
    "billion laughs": billion_laughs(),
    "colliding keys": colliding_keys(),
    "text that claims a terabyte": b"\x80\x05\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytes that claim more than there are": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 63) + b"x.",
    "a frame beyond the end": b"\x80\x05\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "a list in itself": b"\x80\x05]\x94h\x00a\x85}\x86.",
    "memo out of nothing": b"\x80\x05j\xff\xff\xff\xff.",
    "memo far away": b"\x80\x05Nr\xff\xff\xff\xff\x85}\x86",
    "nothing": b"",
    "no end": b"\x80\x05",
    "marks": b"\x80\x05" + b"(" * 100_000,
    "pops": b"\x80\x050.",
    "an older protocol": pickle.dumps(((1,), {}), 2),
    "persistent id": b"\x80\x05X\x01\x00\x00\x00aQ\x85}\x86.",
    "an extension": b"\x80\x05\x82\x01\x85}\x86.",
    "text of protocol 0": b"\x80\x05I1\n\x85}\x86.",
    "a call of a number": b"\x80\x05K\x01)R\x85}\x86.",
    "a state for a list": b"\x80\x05]}b\x85}\x86.",
    "an endless line": b"\x80\x05cos" + b"x" * 100_000,
    "a list as a key": b"\x80\x05}]Ns\x85}\x86.",
    "half an item": b"\x80\x05}(Nu\x85}\x86.",
    "not a pair": b"\x80\x05N.",
    "no tuple": b"\x80\x05]}\x86.",
}


@pytest.mark.parametrize("raw", ENEMIES.values(), ids=ENEMIES)
def test_an_enemy_is_refused(raw: bytes) -> None:
    with pytest.raises((CorruptError, NotPlainError)):
        read(raw)


def test_a_tuple_that_doubles_is_no_key() -> None:
    """Its hash would take 2^60 steps."""
    doubled = b")" + b"".join(b"q" + bytes([n]) + b"0h" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))

    with pytest.raises(CorruptError, match="key"):
        read(b"\x80\x05}" + doubled + b"Ns\x85}\x86.")


def test_no_mutation_of_a_stream_does_anything_else() -> None:
    """CorruptError, NotPlainError or plain values: nothing else, whatever the bytes are; and nothing runs."""
    seeds = [stream(*PLAIN[:14], PLAIN[19], PLAIN[26]), stream(Canary(), [PLAIN[26]], {1, 2}, print), *streams.GOOD]
    seeds += ENEMIES.values()
    chance, ended = random.Random(7), []
    for _ in range(1_500):
        raw = streams.mutated(chance, chance.choice(seeds)[:4000])
        try:
            read(raw)
        except (CorruptError, NotPlainError) as error:
            ended.append(type(error))
        else:
            ended.append(None)

    assert Canary.songs == 0
    assert set(ended) == {CorruptError, NotPlainError, None}
