"""What is kept is read again before it is needed; damage makes retention keep more, and no record is ever trusted."""

from __future__ import annotations

import json
import os
import time

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.store import Store, atomic, blobs, prune, scrub
from ipyrescue.store.retention import Retention
from ipyrescue.store.scrub import Finding, Record, due, finding, note, read, read_back, sharing, tally
from ipyrescue.store.upkeep import forget_by
from tests.store.conftest import snapshot_of

DAY = 86_400.0
NOW = 1_800_000_000.0


def rot(store, snapshot, index=0):
    """Flip a bit as a disk does, which leaves no trace in the file's times: what was proved is believed as before."""
    blob = snapshot.blobs[index]
    path = store.root / "packs" / f"{blob.pack}.pack"
    known = [b for s in store.snapshots() for b in s.blobs if b.pack == blob.pack]
    before = blobs.pack_signature(store.root, blob.pack)
    proved = [(b, store.proofs.read_at(b, before)) for b in known if store.proofs.has(b, before)]
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(blob.offset)
        byte = file.read(1)[0]
        file.seek(blob.offset)
        file.write(bytes([byte ^ 1]))
    os.chmod(path, 0o400)
    now = blobs.pack_signature(store.root, blob.pack)
    for b, at in proved:
        store.proofs.add(b, now, read=at is not None)


def reread(store, snapshot, **how):
    how = {"older_than": float("inf")} | how
    return read_back(store, snapshot, lambda some: scrub.look(store.root, some), **how)


def look(store, snapshot):
    """Scrub one snapshot as the kernel does, and write down what came of it."""
    there = {s.id for s in store.snapshots()}
    damage = reread(store, snapshot)
    for other, lost in sharing(store.snapshots(), damage):
        note(store.root, there, other.id, finding(store.root, other, lost, time.time()))
    if not damage:
        note(store.root, there, snapshot.id, store.verified_at(snapshot))
    return damage


def test_rot_in_what_was_proved_is_found_and_proves_nothing_any_more(store, save):
    """The damaged blob is written anew by the next snapshot, whose deduplication believed in it until then."""
    first = save(store, b"stream" * 1000, b"weights" * 9000)
    assert look(store, first) == []
    assert read(store.root).verified[first.id] == pytest.approx(time.time(), abs=60)
    rot(store, first, 1)
    assert store.verified(first), "nothing of it shows in the file's times"

    (damage,) = look(store, first)

    assert damage.groups == (("x",),)
    assert not store.verified(first)
    assert read(store.root).damaged[first.id].names == ("x",)
    assert first.id not in read(store.root).verified
    second = save(store, b"stream" * 1000, b"weights" * 9000)
    assert second.new_bytes == 9000 * 7
    assert look(store, second) == []


def test_a_prune_does_not_sweep_the_record_that_is_being_written(store, save, monkeypatch):
    snapshot, write_all = save(store, b"a"), atomic.write_all
    pruned = []

    def written_beside_a_prune(fd, data):
        write_all(fd, data)
        pruned.append(prune.prune(store))

    monkeypatch.setattr(atomic, "write_all", written_beside_a_prune)
    note(store.root, {snapshot.id}, snapshot.id, NOW)

    assert pruned == [None], "a writer is busy"
    assert read(store.root).verified == {snapshot.id: NOW}


def test_damage_of_a_blob_is_damage_of_all_that_hold_it(store, save):
    first, second = save(store, b"a", b"shared" * 999), save(store, b"b", b"shared" * 999)
    third = save(store, b"c", b"other")
    rot(store, first, 1)

    look(store, second)

    assert read(store.root).damaged.keys() == {first.id, second.id}
    counted = tally(store.root, [third, second, first])
    assert (counted.total, counted.unread, counted.newest) == (3, 1, None)
    assert [identifier for identifier, _ in counted.damaged] == [second.id, first.id]


def test_damaged_snapshots_do_not_count_for_the_floor(store, save):
    """The newest two are rotten: of the older three, two whole ones stay, whatever is wanted."""
    made = [save(store, b"%d" % n * 5000) for n in range(5)]
    for snapshot in made[3:]:
        store.verify(snapshot)
        rot(store, snapshot)
        look(store, snapshot)

    gone = forget_by(store, "a.ipynb", Retention(keep=1, hourly=0, daily=0), current="1" * 16)

    assert [s.id for s in gone] == [made[0].id]
    assert {s.id for s in store.snapshots()} == {s.id for s in made[1:]}


def test_damage_that_a_child_did_not_see_is_not_proved_away_by_it(store, save):
    snapshot = save(store, b"stream" * 999)
    store.verify(snapshot)
    store.proofs.forget_news()
    news = store.proofs.news() or [
        [b.pack, list(blobs.pack_signature(store.root, b.pack)), [[b.hash, b.offset, time.time()]]]
        for b in snapshot.blobs
    ]
    rot(store, snapshot)
    reread(store, snapshot)

    store.proofs.learn(json.loads(json.dumps(news)))

    assert not store.verified(snapshot)


def test_a_pack_that_was_put_back_is_damaged_no_more(store, save, tmp_path):
    snapshot = save(store, b"stream" * 999)
    (path,) = (store.root / "packs").iterdir()
    good = path.read_bytes()
    path.unlink()
    look(store, snapshot)
    assert read(store.root).damaged[snapshot.id].signature is None

    path.write_bytes(good)

    assert read(store.root).damaged == {}
    assert look(store, snapshot) == []


def test_it_stops_when_it_is_told_to_and_reads_no_blob_twice(store, save, monkeypatch):
    monkeypatch.setattr(scrub, "PORTION_BYTES", 10_000)
    snapshot = save(store, *(b"%d" % n * 5000 for n in range(6)))
    asked = []

    def twice(some):
        asked.append(len(some))
        return scrub.look(store.root, some) if len(asked) <= 2 else None

    began = time.time()
    assert read_back(store, snapshot, twice, older_than=began) is None
    assert asked == [2, 2, 2]

    asked.clear()
    assert read_back(store, snapshot, twice, older_than=began) == []
    assert asked == [2]
    assert store.verified_at(snapshot) >= began


def test_what_is_read_next():
    """First what never was, newest first; then what was read longest ago; the own notebook before all others."""
    mine = [snapshot_of((), sequence=n, id=f"{n:016x}") for n in range(1, 6)]
    theirs = [snapshot_of((), sequence=n, id=f"{n:016x}", notebook="b.ipynb") for n in (6, 7)]
    ages = {1: 3 * DAY, 2: 2 * DAY, 3: DAY / 2, 6: 9 * DAY, 4: -DAY}
    record = Record({f"{n:016x}": NOW - age for n, age in ages.items()})

    order = due([*theirs, *mine], record, first="a.ipynb", every_seconds=DAY, now=NOW)

    assert [s.sequence for s in order] == [5, 4, 1, 2, 7, 6]


def test_damage_is_looked_at_again_no_more_often_than_anything_else():
    snapshot = snapshot_of((), sequence=1)
    bad = Finding(NOW - DAY / 2, ("x",), "a" * 16, None)
    record = Record({}, {snapshot.id: bad})

    assert due([snapshot], record, first="a.ipynb", every_seconds=DAY, now=NOW) == []
    assert due([snapshot], record, first="a.ipynb", every_seconds=DAY, now=NOW + DAY) == [snapshot]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"verified": 1, "damaged": {}}',
        '{"verified": {"../../etc/passwd": 1}, "damaged": {}}',
        '{"verified": {}, "damaged": {"aaaaaaaaaaaaaaaa": {"at": 1, "names": [], "pack": "../x", "signature": null}}}',
        '{"verified": {}, "damaged": {"aaaaaaaaaaaaaaaa": {"at": "x", "names": 3, "pack": 1, "signature": [1]}}}',
        '{"verified": {"aaaaaaaaaaaaaaaa": "then"}, "damaged": {}}',
        "[" * 100_000,
    ],
)
def test_a_record_that_is_none_counts_as_none(store, text):
    (store.root / "scrub.json").write_text(text)

    assert read(store.root) == Record()


def test_a_record_is_no_proof(store, save, key):
    """Whoever may write there may claim that all is whole: nothing goes for that, and it may claim that nothing is."""
    made = [save(store, b"%d" % n * 5000) for n in range(4)]
    there = {s.id for s in made}
    opened = Store.open(store.root, key)
    for snapshot in made:
        note(store.root, there, snapshot.id, time.time())
    assert not any(map(opened.verified, made))

    pack = made[0].blobs[0].pack
    for snapshot in made:
        note(store.root, there, snapshot.id, Finding(1.0, (), pack, blobs.pack_signature(store.root, pack)))
    assert forget_by(opened, "a.ipynb", Retention(keep=1, hourly=0, daily=0), current="1" * 16) == ()


def test_of_what_is_gone_nothing_is_kept(store):
    here, gone = "a" * 16, "b" * 16
    note(store.root, {here, gone}, gone, 1.0)
    note(store.root, {here}, here, 2.0)

    assert read(store.root) == Record({here: 2.0})
    assert os.listdir(store.root / "tmp") == []


def test_nothing_is_noted_where_others_may_write(store):
    store.root.chmod(0o777)

    with pytest.raises(StoreError, match="can be written by others"):
        note(store.root, set(), "a" * 16, 1.0)
    assert not (store.root / "scrub.json").exists()


def test_the_page_cache_is_left_as_it_was(store, save):
    """Otherwise a scrub of 20 GB would cost training the pages of its data."""
    snapshot = save(store, os.urandom(1 << 20), os.urandom(1 << 20))
    path = store.root / "packs" / f"{snapshot.blobs[0].pack}.pack"
    if resident(path) is None:
        pytest.skip("no mincore here")
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    if resident(path):
        pytest.skip("on this file system pages always stay")

    assert reread(store, snapshot) == []

    assert resident(path) == 0


def resident(path):
    """How many pages of a file are in memory; None where that cannot be asked."""
    import ctypes
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore"):
        return None
    size = path.stat().st_size
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m,
    ):
        first = ctypes.c_char.from_buffer(m)
        pages = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), pages)
        del first
    return None if failed else sum(page & 1 for page in pages)


def test_names_are_shortened_before_they_are_kept(store, save):
    snapshot = save(store, b"x" * 5000)
    long = snapshot_of(snapshot.blobs, groups=(), id=snapshot.id)
    damage = [scrub.Damage((tuple(f"{n}" * 500 for n in range(50)),), snapshot.blobs[0].hash, "rot")]

    found = finding(store.root, long, damage, NOW)

    assert len(found.names) == 20
    assert {len(name) for name in found.names} == {100}
