"""A hostile or damaged manifest ends in CorruptError or StoreFormatError, never in another exception."""

import random

import pytest
from torture.fuzzing import GOOD, mutated, problem

from ipyrescue.errors import CorruptError, StoreFormatError
from ipyrescue.manifest import Snapshot


def test_a_good_manifest_is_read():
    assert Snapshot.from_bytes(GOOD.to_bytes()) == GOOD


@pytest.mark.parametrize("seed", range(8))
def test_mutations_raise_nothing_else(seed):
    """What is accepted all the same is a manifest: written again, it reads the same."""
    rng = random.Random(seed)

    found = [problem(mutated(rng)) for _ in range(500)]

    assert set(found) <= {True, False}
    assert found.count(True) < 250


def test_every_truncation_is_noticed():
    raw = GOOD.to_bytes()

    for length in range(len(raw)):
        with pytest.raises(CorruptError):
            Snapshot.from_bytes(raw[:length])


def test_a_newer_format_says_so():
    with pytest.raises(StoreFormatError, match="pip install -U"):
        Snapshot.from_bytes(b'{"format": 2, "anything": ["else"]}')
