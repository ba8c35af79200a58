"""Memory at rest: what was copied is taken from the copies, and all else is referred to where it is."""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ipyrescue.addresses import address_of
from ipyrescue.capture.staging import StagingArea
from ipyrescue.pickling.buffers import Copies, References, overlapping

MEMORY_BYTES = 300
RANGES = st.tuples(st.integers(0, MEMORY_BYTES - 1), st.integers(1, MEMORY_BYTES)).map(
    lambda cut: (cut[0], min(cut[1], MEMORY_BYTES - cut[0]))
)
AREA = StagingArea()


def references(address, ranges, owner=None):
    known = References()
    for start, size_bytes in ranges:
        known.refer((start, size_bytes), "numpy", address + start, size_bytes, owner)
    return known.ranges()


@given(copied=st.lists(RANGES, max_size=5), wanted=st.lists(RANGES, min_size=1, max_size=5))
def test_what_overlaps_copies_is_put_together(copied, wanted):
    """Also of copies that overlap each other; what was copied may have changed since, or be gone."""
    before = bytes((7 * n) % 251 for n in range(MEMORY_BYTES))
    memory = bytearray(before)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    AREA.reset()
    copies = Copies(AREA)
    copies.take_all(references(address, copied))
    for start, size_bytes in copied:
        memory[start : start + size_bytes] = b"\xff" * size_bytes
    copies.rest()

    for cluster in overlapping(references(address, wanted)):
        start, end = cluster[0].start - address, max(r.end for r in cluster) - address
        assert copies.take_cluster(cluster) == before[start:end]


def test_memory_at_rest_is_not_copied():
    numbers = np.arange(1000)
    copies = Copies(AREA)
    copies.rest()

    view = copies.take(references(numbers.ctypes.data, [(0, 8000)], numbers)[0])

    assert address_of(view) == numbers.ctypes.data
    assert view.readonly
    assert copies.take(references(numbers.ctypes.data, [(0, 8000)], numbers)[0]) is view


def test_a_view_of_memory_at_rest_keeps_all_its_owners():
    """An object may make an array only to be pickled with it: nobody else keeps its memory."""
    first, second = np.arange(1000), np.arange(5)
    gone = [weakref.ref(first), weakref.ref(second)]
    cluster = references(first.ctypes.data, [(0, 4000)], first) + references(first.ctypes.data, [(2000, 6000)], second)
    copies = Copies(AREA)
    copies.rest()
    view = copies.take_cluster(cluster)[10:]
    del copies, cluster, first, second
    gc.collect()

    assert [one() is None for one in gone] == [False, False]
    del view
    gc.collect()
    assert [one() is None for one in gone] == [True, True]


def test_what_is_seen_at_rest_is_not_searched_again():
    """Among a hundred thousand arrays each would be compared with all that were met before."""
    numbers = [np.zeros(10) for _ in range(50)]
    AREA.reset()
    copies = Copies(AREA)
    copies.take_all(references(numbers[0].ctypes.data, [(0, 80)], numbers[0]))
    copies.rest()

    for array in numbers[1:]:
        copies.take(references(array.ctypes.data, [(0, 80)], array)[0])

    assert len(copies._at_rest._ranges) == 1
