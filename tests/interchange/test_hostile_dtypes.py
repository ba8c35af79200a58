"""Types of elements that no manifest of ours says: known or not known, and nothing else."""

from __future__ import annotations

import random

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.interchange import dtypes

HOSTILE = (
    "",
    "f" + "9" * 5000,
    "<f99999999999999999999",
    "[('a', '<f4', -5)]",
    "[('a', '<f4', (2, -3))]",
    "[('a', '<f4', 'x')]",
    "[('a', '<f4', 1.5)]",
    "[('a',)]",
    "['a']",
    "[[]]",
    "[" * 5000,
    "[" * 100_000,
    "-" * 100_000 + "1",
    "(" * 100_000,
    "[('a', __import__('os').system('true'))]",
    "datetime64[" + "9" * 5000 + "]",
    "object",
    "\x00",
    "b'x'",
    "[(b'a', b'<f4')]",
    "[1]",
    "{}",
)


@pytest.mark.parametrize("dtype", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_type_has_a_size_or_is_refused(dtype: str) -> None:
    assert size(dtype) is None or size(dtype) >= 0


def test_no_mutation_of_a_type_is_anything_else() -> None:
    chance, seeds = (
        random.Random(3),
        ("float32", "<U12", "datetime64[ns]", "[('a', '<f4', (2, 3)), ('b', '|S3')]", "<M8[D]"),
    )
    alphabet = "abfiuUSVmM<>|=[](),'0123456789-. \x00"
    for _ in range(20_000):
        text = list(chance.choice(seeds))
        for _ in range(chance.randint(1, 5)):
            text.insert(chance.randrange(len(text) + 1), chance.choice(alphabet))
            del text[chance.randrange(len(text))]
        found = size("".join(text))
        assert found is None or found >= 0


def size(dtype: str) -> int | None:
    try:
        return dtypes.item_bytes(dtype)
    except StoreError:
        return None
