"""What is pinned stays until a person says otherwise, and a pin is nothing but an empty file."""

import os
import stat

import pytest

from ipyrescue.errors import SnapshotNotFoundError, StoreError
from ipyrescue.store import Store, layout
from ipyrescue.store.prune import prune
from ipyrescue.store.retention import Retention
from ipyrescue.store.signing import Key
from ipyrescue.store.upkeep import tidy


def test_a_pin_is_an_empty_file_that_another_process_sees(store, key, save):
    snapshot = save(store, b"content")

    store.pin(snapshot.id)
    store.pin(snapshot.id)

    path = store.root / "pins" / snapshot.id
    assert (path.read_bytes(), stat.S_IMODE(path.lstat().st_mode)) == (b"", 0o600)
    assert os.listdir(store.root / "tmp") == []
    assert Store.open(store.root, key).pins() == {snapshot.id}


def test_unpinning_is_idempotent(store, save):
    snapshot = save(store, b"content")
    store.pin(snapshot.id)

    store.unpin(snapshot.id)
    store.unpin(snapshot.id)

    assert store.pins() == frozenset()


def test_what_is_not_there_is_not_pinned(store):
    with pytest.raises(SnapshotNotFoundError, match="to pin"):
        store.pin("0" * 16)

    assert os.listdir(store.root / "pins") == []


def test_what_is_forgotten_while_it_is_pinned_is_not_called_pinned(store, save, monkeypatch):
    """Another process may let it go between the look and the pin."""
    from ipyrescue.store import pins

    snapshot, add = save(store, b"content"), pins.add
    monkeypatch.setattr(pins, "add", lambda *a: (store.forget(snapshot.id), add(*a)))

    with pytest.raises(SnapshotNotFoundError):
        store.pin(snapshot.id)


def test_a_store_from_before_there_were_pins(store, key, save):
    """It reads, writes and prunes without the folder; the first pin makes it."""
    (store.root / "pins").rmdir()
    opened = Store.open(store.root, key)

    snapshot = save(opened, b"content")
    assert prune(opened) is not None
    assert opened.pins() == frozenset()
    assert not (store.root / "pins").exists()
    opened.pin(snapshot.id)

    assert opened.pins() == {snapshot.id}


def test_a_folder_of_pins_that_others_can_write_stops_writing(store, save):
    (store.root / "pins").chmod(0o770)

    with pytest.raises(StoreError, match="can be written by others"):
        save(store, b"content")


def test_names_that_are_no_ids_are_no_pins(store):
    (store.root / "pins" / "notes.txt").write_text("mine")

    assert store.pins() == frozenset()


def test_what_is_pinned_is_forgotten_only_after_it_is_unpinned(store, save):
    snapshot = save(store, b"content")
    store.pin(snapshot.id)

    with pytest.raises(StoreError, match=f"%snapshots unpin {snapshot.id[:8]}"):
        store.forget(snapshot.id)
    assert store.snapshots() == [snapshot]

    store.unpin(snapshot.id)
    store.forget(snapshot.id)
    assert store.snapshots() == []


def test_one_that_is_pinned_while_it_is_about_to_go_stays(store, key, save, monkeypatch):
    """A person presses the pin while another process is about to forget."""
    snapshot, look = save(store, b"content"), layout.check_writable

    def pinned_meanwhile(root):
        monkeypatch.setattr(layout, "check_writable", look)
        Store.open(root, key).pin(snapshot.id)

    monkeypatch.setattr(layout, "check_writable", pinned_meanwhile)

    with pytest.raises(StoreError, match="is pinned"):
        store.forget(snapshot.id)

    assert store.snapshots() == [snapshot]


def test_retention_lets_no_pinned_one_go(store, save):
    """Its bytes stay too; another one of the same age goes."""
    old = [save(store, bytes([n]) * 5000, created="2026-01-01T00:00:00+00:00") for n in range(3)]
    store.pin(old[0].id)
    for n in range(3, 7):
        save(store, bytes([n]) * 5000, created="2026-01-02T00:00:00+00:00")

    gone = tidy(store, "a.ipynb", Retention(keep=2), current="1" * 16)

    assert old[0] not in gone
    assert old[1] in gone
    assert store.verify(old[0]) == []


def test_one_that_is_pinned_while_retention_reads_stays(store, save, monkeypatch):
    """Verifying takes long enough for a person to press the pin."""
    old = save(store, b"0" * 5000, created="2026-01-01T00:00:00+00:00")
    newer = [save(store, bytes([n]) * 5000, created="2026-01-02T00:00:00+00:00") for n in range(1, 5)]
    opened, verify = Store.open(store.root, store.key), Store.verify
    monkeypatch.setattr(Store, "verify", lambda self, s: (store.pin(old.id), verify(self, s))[1])

    gone = tidy(opened, "a.ipynb", Retention(keep=2), current="1" * 16)

    assert old not in gone
    assert newer[0] in gone


def test_pins_of_what_is_gone_are_swept(store, save):
    kept, lost = save(store, b"kept"), save(store, b"lost")
    for snapshot in (kept, lost):
        store.pin(snapshot.id)
    store.catalog.forget(f"{lost.sequence:010d}-{lost.id}.json")

    prune(store)

    assert store.pins() == {kept.id}


def test_a_pin_goes_with_a_snapshot_that_becomes_ours(store, save):
    """--trust gives a new id; what was pinned in another home stays pinned in this one."""
    theirs = save(store, b"content")
    store.pin(theirs.id)
    opened = Store.open(store.root, Key(b"o" * 32))

    ours = opened.trust(opened.untrusted(theirs.id))

    assert opened.pins() == {ours.id}
