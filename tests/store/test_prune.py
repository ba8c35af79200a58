"""Only bytes that no manifest names are freed, and none at all where a manifest cannot be read."""

import os
import time
from pathlib import Path

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.store import Store, filesystems, layout, lives, lock, trust
from ipyrescue.store.filesystems import FileSystem
from ipyrescue.store.prune import Pruned, hindrance, prune
from ipyrescue.store.signing import Key
from ipyrescue.store.upkeep import used_bytes


def pack_names(store):
    return set(os.listdir(store.root / "packs"))


def test_bytes_of_forgotten_snapshots_are_freed(store, save, load):
    one = save(store, b"1" * 5000)
    two = save(store, b"2" * 5000)
    store.forget(one.id)

    assert prune(store) == Pruned(packs=1, bytes=8192)
    assert prune(store) == Pruned(packs=0, bytes=0)
    assert load(store, two) == [b"2" * 5000]


def test_shared_bytes_stay(store, save, load):
    one = save(store, b"shared", b"1")
    two = save(store, b"shared")
    store.forget(one.id)

    prune(store)

    assert load(store, two) == [b"shared"]


def test_forgotten_bytes_are_not_used_again(store, save, load):
    """A pack that nothing names may vanish at any moment, so a later put may not rely on it."""
    store.forget(save(store, b"content").id)
    with store.writing():
        assert store.put([memoryview(b"content")]).new_bytes == 7

    prune(store)

    assert load(store, save(store, b"content")) == [b"content"]


def test_unfinished_work_is_swept(store):
    (store.root / "tmp" / "123-abc").write_bytes(b"x" * 10)

    assert prune(store) == Pruned(packs=0, bytes=10)


def test_prune_keeps_out_of_a_writers_way(store, save):
    store.forget(save(store, b"content").id)

    with store.writing():
        assert prune(store) is None
    assert prune(store) is not None


def test_where_nothing_can_be_locked_nothing_is_pruned(store, save, monkeypatch):
    store.forget(save(store, b"content").id)
    monkeypatch.setattr(lock, "fcntl", None)

    assert prune(store) is None
    assert len(pack_names(store)) == 1


@pytest.mark.parametrize("damage", [b"", b"rubbish\n{}", None])
def test_one_unreadable_manifest_stops_it(store, key, save, rewrite, damage):
    """It may need any pack; the message says how to give it up."""
    store.forget(save(store, b"garbage").id)
    broken = save(store, b"content")
    (path,) = (store.root / "snapshots").iterdir()
    rewrite(path, path.read_bytes().replace(b"a.ipynb", b"b.ipynb") if damage is None else damage)
    opened, before = Store.open(store.root, key), pack_names(store)

    with pytest.raises(StoreError, match=f"ipyrescue forget {broken.id}"):
        prune(opened)

    assert pack_names(store) == before
    opened.forget(broken.id)
    assert prune(opened) == Pruned(packs=2, bytes=8192)


def test_another_keys_snapshot_keeps_its_bytes(store, save, load):
    theirs = save(store, b"theirs")
    other = Store.open(store.root, Key(b"o" * 32))
    other.forget(save(other, b"ours").id)

    assert prune(other) == Pruned(packs=1, bytes=4096)
    assert load(store, theirs) == [b"theirs"]


def test_another_keys_manifest_is_not_parsed_whatever_its_size(store, save, monkeypatch):
    """What takes gigabytes to parse counts as unreadable: it keeps every pack, and is named."""
    theirs = save(store, *(b"%d" % n * 5000 for n in range(20)))
    other = Store.open(store.root, Key(b"o" * 32))
    other.forget(save(other, b"ours").id)
    before = pack_names(store)
    monkeypatch.setattr(trust, "FOREIGN_LIMIT_BYTES", 1000)

    with pytest.raises(StoreError, match=f"Nothing was pruned.*nobody whom you know.*ipyrescue forget {theirs.id}"):
        prune(other)

    assert pack_names(store) == before


def test_foreign_files_stay(store):
    (store.root / "packs" / "notes.txt").write_text("mine")

    prune(store)

    assert pack_names(store) == {"notes.txt"}


def test_life_records_stay_and_their_leftovers_go(store):
    old = store.root / "kernels" / ".0123456789abcdef.json.0a0a0a0a"
    new = store.root / "kernels" / ".0123456789abcdef.json.0b0b0b0b"
    for path in (old, new):
        path.write_text("{")
    os.utime(old, (time.time() - 7200,) * 2)

    prune(store)

    assert os.listdir(store.root / "kernels") == [new.name]
    assert lives.read_all(store.root) == []


def test_what_is_pruned_while_sizes_are_summed_counts_nothing(store, save, monkeypatch):
    """The writer prunes beside the kernel, which sums sizes for a forecast or a status."""
    save(store, b"1" * 5000)
    gone = store.root / "packs" / f"{'0' * 15}1.pack"
    gone.write_bytes(b"x" * 4096)
    lstat = Path.lstat

    def pruned_before(path):
        gone.unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", pruned_before)
    packs = sum(path.stat().st_size for path in (store.root / "packs").glob("*.pack") if path != gone)

    assert used_bytes(store.root) == packs == 8192


@pytest.fixture
def locks_are_local(monkeypatch):
    monkeypatch.setattr(filesystems, "of", lambda *_: FileSystem("virtiofs", "share", "/work"))


def a_life(store, **fields):
    life = lives.Life("b" * 16, "far.ipynb", "notebook", 1, 1, "another boot", "ns", "there", "2026-11-21", **fields)
    lives.write(store.root, life)
    return layout.life_path(store.root, life.incarnation)


@pytest.mark.usefixtures("locks_are_local")
def test_where_locks_hold_on_one_machine_only_another_one_is_waited_for(store, save):
    """Its kernel counts as gone an hour after its last sign of life, or when it said that it ended."""
    store.forget(save(store, b"1" * 5000).id)
    record = a_life(store)

    assert prune(store) is None
    assert prune(store, max_dead=0.0) is None
    assert "virtiofs locks hold on one machine only, and a kernel of there may be writing" in hindrance(store.root)
    ahead = time.time() + 1800  # its clock is half an hour before ours
    os.utime(record, (ahead, ahead))
    assert prune(store) is None
    old = time.time() - 3700
    os.utime(record, (old, old))
    assert hindrance(store.root) is None
    a_life(store, ended="shutdown")
    assert prune(store) == Pruned(packs=1, bytes=8192)


@pytest.mark.usefixtures("locks_are_local")
def test_a_person_may_know_better(store, save):
    store.forget(save(store, b"1" * 5000).id)
    a_life(store)

    assert prune(store, force=True) == Pruned(packs=1, bytes=8192)


def test_where_locks_hold_everywhere_nobody_is_asked(store, save):
    store.forget(save(store, b"1" * 5000).id)
    a_life(store)

    assert prune(store) == Pruned(packs=1, bytes=8192)


def test_a_clock_that_is_behind_makes_no_orphans(store):
    """A life record that is being written looks hours old where the file system's clock is hours behind."""
    kernels = layout.kernels(store.root)
    draft = kernels / f".{'c' * 16}.json.0000"
    draft.write_bytes(b"{")
    behind = time.time() - 3 * 3600
    for path in (draft, kernels):
        os.utime(path, (behind, behind))

    prune(store)

    assert draft.exists()
