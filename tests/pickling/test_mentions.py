"""Which packages a stream names, read without unpickling it."""

import collections
import datetime
import fractions
import pickle
import random

import numpy as np
import pytest

from ipyrescue.pickling.mentions import packages


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"numpy": "pandas", "text": b"\x94\x93" * 5}, set()),
        (np.float32(1), {"numpy"}),
        ([fractions.Fraction(1, 3), datetime.date(2026, 1, 1)], {"fractions", "datetime"}),
        ({"deep": [(np.arange(3), collections.OrderedDict(a=np.random.default_rng()))]}, {"numpy", "collections"}),
        (fractions.Fraction, {"fractions"}),
    ],
)
def test_every_package_of_a_class_is_found(protocol, value, found):
    assert packages([pickle.dumps(value, protocol=protocol)]) == found


def test_several_streams_are_one_answer():
    streams = [pickle.dumps(value, protocol=5) for value in (np.float32(1), fractions.Fraction(1, 2), "x")]

    assert packages(streams) == {"numpy", "fractions"}
    assert packages([b"", b"\x94\x93", b"\x8c\x03abc\x94\x93"]) == set()


def test_what_only_looks_like_a_name_is_passed_over():
    """Binary data in a stream may hold the opcode anywhere."""
    noise = random.Random(7).randbytes(500_000).replace(b"\x00", b"\x94\x93")

    assert packages([noise]) == set()
