"""What is remembered of manifests makes lists quick, and is never needed, never believed where it matters."""

import dataclasses
import os
import random
import shutil
import stat
import time

import pytest

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.manifest import Frame, Import, Skipped, Snapshot, Variable
from ipyrescue.store import Store, layout
from ipyrescue.store.brief import FIELDS, Brief, brief, said_of
from ipyrescue.store.catalog import Catalog
from ipyrescue.store.index import Index, Record
from ipyrescue.store.pack import signature
from ipyrescue.store.prune import prune
from ipyrescue.store.signing import Key
from ipyrescue.store.verify import verify_store


@pytest.fixture
def opened_files(monkeypatch):
    """The names of all files that are opened from here on."""
    found, really = [], os.open

    def opening(path, *arguments, **options):
        found.append(os.path.basename(os.fspath(path)))
        return really(path, *arguments, **options)

    monkeypatch.setattr(os, "open", opening)
    return found


def index_of(store):
    return layout.index_path(store.root, "snapshots")


def path_of(store, snapshot):
    return store.catalog.path(layout.snapshot_name(snapshot.sequence, snapshot.id))


def ids(store):
    return [snapshot.id for snapshot in store.snapshots()]


def rot(store, key, snapshot, rewrite):
    """Damage a manifest as rot does, which leaves no time behind that an index could notice."""
    path = path_of(store, snapshot)
    rewrite(path, path.read_bytes().replace(b'"host":"here"', b'"host":"hexe"'))
    Index(store.root, store.id, key).add({path.name: Record(signature(path.lstat())[1:], said_of(snapshot))})


def test_a_list_reads_the_newest_manifests_and_no_pack(store, key, save, opened_files):
    saved = [save(store, b"%d" % number) for number in range(12)]
    opened_files.clear()

    listed = Store.open(store.root, key).snapshots()

    assert [(s.id, s.size_bytes, s.variable_count, s.packs) for s in listed] == [
        (s.id, s.size_bytes, s.variable_count, s.packs) for s in reversed(saved)
    ]
    assert sum(name.endswith(".json") and name != "format.json" for name in opened_files) == 3
    assert not any(name.endswith(".pack") for name in opened_files)
    assert listed == list(reversed(saved))


def test_a_list_says_what_the_manifest_says(make_snapshot, save, store):
    """Names, sums and packs; whatever else is asked for is read, and a copy of one is a whole snapshot."""
    plain = save(store, b"stream", b"weights", b"")
    odd = make_snapshot(
        plain.blobs,
        label="l\u202e\n",
        cut="interrupted",
        reason="KeyboardInterrupt",
        imports=(Import("np", "numpy"),),
        skipped=(Skipped("f", "file", "open"),),
        variables=(Variable("x", "Tensor", 3, None, None), Variable("f().step", "int", 1, None, None)),
        frames=(Frame("f", 3, 1, ("f().step",)),),
    )
    for whole in (plain, odd):
        listed = brief(said_of(whole), lambda whole=whole: whole)

        assert type(listed) is Brief
        assert listed == whole
        assert whole == listed
        sums = ("size_bytes", "packs", "devices", "variable_count", "import_count", "skipped_count", "consistent")
        assert [getattr(listed, name) for name in (*FIELDS, *sums)] == [
            getattr(whole, name) for name in (*FIELDS, *sums)
        ]
        every = (*(field.name for field in dataclasses.fields(Snapshot)), "names", "pseudo_names", "globals", "lost")
        assert [getattr(listed, name) for name in every] == [getattr(whole, name) for name in every]
        assert listed.to_bytes() == whole.to_bytes()
        copied = dataclasses.replace(listed, label="other")
        assert type(copied) is Snapshot
        assert copied == dataclasses.replace(whole, label="other")
        with pytest.raises(AttributeError):
            _ = listed.nothing
    assert brief(said_of(odd), lambda: odd) != plain
    assert odd.devices == frozenset({"cpu"})


def test_a_manifest_that_was_changed_is_read_again(store, key, save, rewrite):
    saved = [save(store, b"%d" % number) for number in range(6)]
    path = path_of(store, saved[0])
    before = path.lstat()
    rewrite(path, path.read_bytes().replace(b'"host":"here"', b'"host":"hexe"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    opened = Store.open(store.root, key)

    assert ids(opened) == [s.id for s in reversed(saved[1:])]
    assert [item.name[11:27] for item in opened.unreadable()] == [saved[0].id]


def test_rot_is_seen_where_a_snapshot_is_used(store, key, save, rewrite):
    """A list may call it good; whoever loads, verifies or restores it reads the manifest itself."""
    saved = [save(store, b"%d" % number, label="warm" if number == 1 else None) for number in range(6)]
    rot(store, key, saved[1], rewrite)

    def fresh():
        return Store.open(store.root, key)

    assert saved[1].id in ids(fresh())
    for use in (
        lambda: fresh().load(saved[1].id),
        lambda: fresh().find(saved[1].id[:6]),
        lambda: fresh().snapshots()[-2].groups,
    ):
        with pytest.raises(CorruptError, match="does not fit its signature"):
            use()
    assert next(damage.reason for damage in fresh().verify(fresh().snapshots()[-2])).startswith("Snapshot")
    assert not fresh().verified(fresh().snapshots()[-2])
    assert [item.name[11:27] for item in verify_store(fresh()).unreadable] == [saved[1].id]
    opened = fresh()
    with pytest.raises(StoreError):
        opened.find("warm")
    assert saved[1].id not in ids(opened), "once it was seen, lists say so"
    assert prune(fresh()).packs == 0, "what it needs stays"


def test_rot_of_the_newest_is_seen_by_a_list(store, key, save, rewrite):
    saved = [save(store, b"%d" % number) for number in range(6)]
    rot(store, key, saved[-1], rewrite)

    opened = Store.open(store.root, key)

    assert ids(opened)[0] == saved[-2].id
    assert opened.find("latest").id == saved[-2].id


def test_no_byte_of_the_index_is_believed_unless_it_fits(store, key, save):
    """Flipped bits, cuts and lines in another order: lists say what the manifests say, or take it from elsewhere."""
    saved = [save(store, b"%d" % number) for number in range(5)]
    raw, path, draw = index_of(store).read_bytes(), index_of(store), random.Random(3)
    truth = [(s.id, s.size_bytes, s.packs, s.notebook) for s in reversed(saved)]
    broken = [raw[:cut] for cut in range(0, len(raw), 97)]
    for _ in range(150):
        at = draw.randrange(len(raw))
        broken.append(raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :])
    broken += [b"", b"\0" * 5000, raw * 2, b"\n".join(reversed(raw.split(b"\n"))), raw.replace(b'"here"', b'"gone"')]
    for data in broken:
        path.write_bytes(data)
        listed = Catalog(store.root, store.id, key).snapshots()
        assert [(s.id, s.size_bytes, s.packs, s.notebook) for s in listed] == truth


def test_what_was_torn_costs_no_later_record(store, key, save):
    """A writer that was killed within a write leaves half a line."""
    first = save(store, b"one")
    path = index_of(store)
    path.write_bytes(path.read_bytes()[:-30])
    second = save(Store.open(store.root, key), b"two")

    assert Index(store.root, store.id, key).read().keys() == {
        layout.snapshot_name(s.sequence, s.id) for s in (first, second)
    }


def test_an_index_of_another_key_or_store_says_nothing(store, key, save, tmp_path):
    save(store, b"one")
    other = Store.open(tmp_path / "other", key, create=True)
    shutil.copy(index_of(store), index_of(other))

    assert Index(store.root, store.id, key).read()
    assert not Index(other.root, other.id, key).read()
    assert not Index(store.root, store.id, Key(b"o" * 32)).read()
    assert not Index(store.root, store.id, Key(b"")).read(), "without a key everything could be forged"


@pytest.mark.skipif("older" not in Key.__dataclass_fields__, reason="a key is one key")
def test_what_a_key_signed_that_is_ours_no_more_is_not_remembered(store, key, save):
    for number in range(6):
        save(store, b"%d" % number)
    new = Key(b"n" * 32, (key,))
    save(Store.open(store.root, new), b"by the new key")

    assert len(ids(Store.open(store.root, new))) == 7
    assert len(ids(Store.open(store.root, Key(b"n" * 32)))) == 1


@pytest.mark.parametrize("name", ["snapshots", "blobs"])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder", "unwritable"])
def test_what_stands_in_its_place_stops_nothing(store, key, save, tmp_path, name, kind, monkeypatch):
    monkeypatch.setattr("ipyrescue.store.known._WORTH_WRITING", 0)
    path, secret = layout.index_path(store.root, name), tmp_path / "secret"
    secret.write_bytes(b"untouched")
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "unwritable":
        path.touch(mode=0o000)
    else:
        path.symlink_to(secret if kind == "link" else tmp_path / "nowhere")

    saved = [save(store, b"%d" % number) for number in range(2)]
    opened = Store.open(store.root, key)

    assert opened.snapshots() == list(reversed(saved))
    assert save(opened, b"1").new_bytes == 0
    assert secret.read_bytes() == b"untouched"
    assert not (tmp_path / "nowhere").exists()
    assert prune(opened) is not None


def test_readers_write_no_index(store, key, save):
    saved = [save(store, b"%d" % number) for number in range(3)]
    shutil.rmtree(layout.index(store.root))
    before = {path: path.lstat().st_mtime_ns for path in (store.root, *store.root.rglob("*"))}

    opened = Store.open(store.root, key)

    assert opened.snapshots() == list(reversed(saved))
    assert opened.verify(saved[0]) == []
    assert {path: path.lstat().st_mtime_ns for path in (store.root, *store.root.rglob("*"))} == before


def test_a_store_of_an_older_ipyrescue_gets_its_index_from_the_next_writer(store, key, save, opened_files):
    saved = [save(store, b"%d" % number) for number in range(12)]
    shutil.rmtree(layout.index(store.root))
    save(Store.open(store.root, key), b"no folder")  # saved even so
    saved.append(save(Store.open(store.root, key, create=True), b"new"))
    opened_files.clear()

    assert Store.open(store.root, key).snapshots()[0] == saved[-1]
    assert sum(name.endswith(".json") and name != "format.json" for name in opened_files) == 3
    assert stat.S_IMODE(index_of(store).lstat().st_mode) == 0o600


def test_a_copied_store_is_read_and_indexed_anew(store, key, save, tmp_path):
    saved = [save(store, b"%d" % number) for number in range(5)]
    copied = shutil.copytree(store.root, tmp_path / "copy")
    opened = Store.open(copied, key)

    assert opened.snapshots() == list(reversed(saved))
    saved.append(save(opened, b"new"))

    names = {path.name: signature(path.lstat())[1:] for path in layout.snapshots(copied).iterdir()}
    assert {name: record.file for name, record in Index(copied, store.id, key).read().items()} == names


def test_prune_keeps_the_index_small_and_sweeps_its_drafts(store, key, save, monkeypatch):
    monkeypatch.setattr("ipyrescue.store.index._SLACK", 2)
    saved = [save(store, b"%d" % number) for number in range(9)]
    for snapshot in saved[:-1]:
        store.forget(snapshot.id)
    old = layout.index(store.root) / ".snapshots.dead"
    old.touch()
    os.utime(old, (time.time() - 7200,) * 2)

    opened = Store.open(store.root, key)
    opened.snapshots()
    prune(opened)

    assert index_of(store).read_bytes().count(b"\n") == 1
    assert not old.exists()
    assert Store.open(store.root, key).snapshots() == [saved[-1]]


def test_the_next_number_reads_the_folder_only_when_it_changed(store, key, save, monkeypatch):
    save(store, b"one")
    really, listed = os.listdir, []
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or really(path))
    opened = Store.open(store.root, key)

    numbers = [opened.next_sequence() for _ in range(3)]
    save(store, b"two")

    assert (numbers, opened.next_sequence()) == ([2, 2, 2], 3)
    (layout.snapshots(store.root) / "zzz.json").touch()
    assert opened.next_sequence() == 3, "what is no manifest counts for nothing"
    assert sum(path == layout.snapshots(opened.root) for path in listed) < 8


def test_what_was_forgotten_meanwhile_is_said_so(store, key, save):
    snapshot = save(store, b"one")
    (listed,) = Store.open(store.root, key).snapshots()
    store.forget(snapshot.id)

    assert listed.id == snapshot.id
    with pytest.raises(CorruptError, match="forgotten meanwhile"):
        _ = listed.groups
    assert "forgotten meanwhile" in str(store.verify(listed)[0])
    assert not store.verified(listed)
    assert list(store.whole([listed])) == []
