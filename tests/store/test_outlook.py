"""Room for the next snapshot: what is said before is what is done then, and two verified ones always stay."""

from __future__ import annotations

import os
import sys

import pytest

from ipyrescue.store import Store
from ipyrescue.store.outlook import Outlook, make_room, outlook
from ipyrescue.store.retention import Retention, expected_bytes
from ipyrescue.store.upkeep import tidy, used_bytes
from tests.store.conftest import snapshot_of

KERNEL = "1" * 16
SIZE = 100_000
MUCH = 10**12


@pytest.fixture
def five(store, save):
    return [save(store, os.urandom(SIZE)) for _ in range(5)]


@pytest.mark.parametrize(
    ("free", "limit", "going", "text"),
    [
        (MUCH, None, "room", None),
        (SIZE, 6 * SIZE, "room", None),
        (SIZE - 1, None, 1, "needs about 100 kB, 100 kB are free: 1 older one will go first."),
        (SIZE // 2, 9 * SIZE, 1, "50 kB are free: 1 older one will go first."),
        (MUCH, 4 * SIZE, 2, "0 B are left of the 400 kB that snapshots may take: 2 older ones will go first."),
        (MUCH, 3 * SIZE, 3, "3 older ones will go first."),
        (MUCH, 2 * SIZE, None, "nothing older may go, since two verified ones stay, so they will take more."),
    ],
)
def test_what_is_said_is_what_is_done(store, five, free, limit, going, text):
    for snapshot in five:
        store.verify(snapshot)
    retention = Retention(max_size_bytes=limit)

    said = outlook(store, "a.ipynb", retention, free_bytes=free, current=KERNEL)
    gone = make_room(store, "a.ipynb", retention, most_bytes=MUCH, free_bytes=free, current=KERNEL)

    if going == "room":
        assert (said, gone) == (None, ())
        return
    assert said is not None
    assert str(said).endswith(text)
    assert said.going == (tuple(s.id for s in five[:going]) if going is not None else None)
    assert tuple(s.id for s in gone) == (said.going or ())
    assert {s.id for s in store.snapshots()} == {s.id for s in five[going or 0 :]}
    assert len(os.listdir(store.root / "packs")) == len(store.snapshots())


def test_a_full_disk_takes_no_unverified_word_for_it(store, five, rewrite):
    """The newest is rotten, which nobody knows yet: reading finds it, and one more stays."""
    pack = store.root / "packs" / f"{five[4].blobs[0].pack}.pack"
    rewrite(pack, b"\0" + pack.read_bytes()[1:])
    needs_three = 3 * SIZE - SIZE // 2

    def go(most_bytes):
        return make_room(store, "a.ipynb", Retention(), most_bytes=most_bytes, free_bytes=0, current=KERNEL)

    assert go(2 * SIZE) == (five[0],)
    assert outlook(store, "a.ipynb", Retention(), free_bytes=-needs_three, current=KERNEL).going is None
    assert [s.id for s in store.snapshots()] == [s.id for s in reversed(five[1:])]


def test_for_a_limit_nothing_is_read_before_the_snapshot_is_safe(store, key, five):
    opened = Store.open(store.root, key)
    how = {"most_bytes": MUCH, "free_bytes": MUCH, "current": KERNEL}

    assert make_room(opened, "a.ipynb", Retention(max_size_bytes=3 * SIZE), **how) == ()
    assert not any(map(opened.verified, five))


def test_what_is_pinned_or_labelled_makes_no_room(store, five):
    for snapshot in five:
        store.verify(snapshot)
        store.pin(snapshot.id)

    said = outlook(store, "a.ipynb", Retention(), free_bytes=0, current=KERNEL)

    assert said == Outlook(SIZE, 0, None, None)
    assert "so saving stops" in str(said)


def test_what_goes_frees_what_was_lacking(store, five):
    for snapshot in five:
        store.verify(snapshot)
    before = used_bytes(store.root)

    make_room(store, "a.ipynb", Retention(), most_bytes=MUCH, free_bytes=0, current=KERNEL)

    assert before - used_bytes(store.root) >= SIZE


@pytest.mark.skipif(sys.platform != "linux", reason="holes are made on Linux")
@pytest.mark.parametrize("by", ["make_room", "tidy"])
def test_one_small_thing_that_lives_on_keeps_no_room_taken(store, save, by):
    """As the random streams of a session do, that are in the pack of its first snapshot, and in every later one."""
    made = [save(store, b"small" * 100, os.urandom(SIZE)) for _ in range(4)]
    for snapshot in made:
        store.verify(snapshot)
    before = used_bytes(store.root)

    if by == "make_room":
        make_room(store, "a.ipynb", Retention(), most_bytes=MUCH, free_bytes=0, current=KERNEL)
    else:
        tidy(store, "a.ipynb", Retention(max_size_bytes=3 * SIZE + 1000), current=KERNEL)

    assert [s.id for s in store.snapshots()] == [s.id for s in reversed(made[1:])]
    assert before - used_bytes(store.root) >= SIZE // 4096 * 4096
    assert [store.verify(s) for s in store.snapshots()] == [[], [], []]


@pytest.mark.parametrize(
    ("new_bytes", "expected"),
    [([], 0), ([900], 900), ([900, 5], 5), ([900, 5, 7, 6, 4, 3], 6), ([900, 50, 7, 6, 4], 7)],
)
def test_what_the_next_one_will_need(new_bytes, expected):
    """The most of the last three; the first of a kernel brings all, and says nothing of the next once there is one."""
    made = [snapshot_of((), sequence=n + 1, new_bytes=size) for n, size in enumerate(new_bytes)]

    assert expected_bytes(made, KERNEL) == expected


def test_of_a_kernel_that_saved_nothing_yet_the_notebook_tells():
    assert expected_bytes([snapshot_of((), sequence=1, new_bytes=70)], "2" * 16) == 70
