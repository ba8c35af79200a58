"""What comes back is what went in, and what did not go in does not come back."""

import dataclasses
import errno
import os
import secrets

import pytest

from ipyrescue.errors import CorruptError, SnapshotNotFoundError, StoreError, UntrustedError
from ipyrescue.store import Store, signing
from ipyrescue.store.signing import Key


def flipped(data: bytes, position: int, mask: int = 0x01) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


@pytest.mark.parametrize("sizes", [[0], [1], [4096], [4095, 4097, 0, 1], [1 << 20] * 3, [3 << 20, 9 << 20, 17]])
def test_bytes_come_back_as_they_went_in(store, key, save, load, sizes):
    contents = [secrets.token_bytes(size) for size in sizes]

    snapshot = save(store, *[content[: 1 << 20] for content in contents])

    again = Store.open(store.root, key)
    assert again.snapshots() == [snapshot]
    assert load(again, again.load(snapshot.id)) == [content[: 1 << 20] for content in contents]


def test_views_of_any_format_are_bytes_to_the_store(store):
    numbers = memoryview(bytes(range(64))).cast("d", (2, 4))

    with store.writing():
        ref = store.put([numbers]).refs[0]

    into = bytearray(64)
    store.get([ref], [memoryview(into).cast("I")])
    assert into == bytes(range(64))


def test_put_writes_nothing_twice(store, save):
    """The same bytes cost nothing the second time, in one snapshot and in the next."""
    first = save(store, b"a" * 5000, b"b" * 5000, b"a" * 5000)

    second = save(store, b"b" * 5000, b"a" * 5000)

    assert first.new_bytes == 10000
    assert second.new_bytes == 0
    assert len(os.listdir(store.root / "packs")) == 1


def test_put_in_another_process_writes_nothing_twice(store, key, save):
    """A process that did not write the bytes reads them before it relies on them."""
    save(store, b"a" * 5000)

    assert save(Store.open(store.root, key), b"a" * 5000).new_bytes == 0


def test_rotten_bytes_are_not_used_again(store, key, save, load, rewrite):
    """A hit on a damaged blob would poison every later snapshot; it is written anew instead."""
    (blob,) = save(store, b"a" * 5000).blobs
    pack = store.root / "packs" / f"{blob.pack}.pack"
    rewrite(pack, flipped(pack.read_bytes(), 17))

    for opened in (store, Store.open(store.root, key)):
        snapshot = save(opened, b"a" * 5000)
        assert load(opened, snapshot) == [b"a" * 5000]


def test_every_flipped_byte_of_a_manifest_is_noticed(store, key, save, rewrite):
    """Nothing of a changed manifest is used: it is damaged, or somebody else's."""
    snapshot = save(store, b"stream", b"buffer")
    (path,) = (store.root / "snapshots").iterdir()
    good = path.read_bytes()

    for position in range(len(good)):
        rewrite(path, flipped(good, position))
        opened = Store.open(store.root, key)
        assert opened.snapshots() == []
        assert isinstance(opened.unreadable()[0].error, (CorruptError, UntrustedError))
        with pytest.raises((CorruptError, UntrustedError)):
            opened.find(snapshot.id[:4])


def test_every_flipped_byte_of_a_blob_is_noticed(store, key, save, load, rewrite):
    snapshot = save(store, b"stream" * 20, b"buffer" * 30)
    (path,) = (store.root / "packs").iterdir()
    good = path.read_bytes()
    used = [blob.offset + i for blob in snapshot.blobs for i in range(blob.size_bytes)]
    assert set(good) - set(b"streambufer") == {0}  # the gaps

    for position in used:
        rewrite(path, flipped(good, position, 0x80))
        with pytest.raises(CorruptError, match=snapshot.blobs[0].pack):
            load(Store.open(store.root, key), snapshot)


@pytest.mark.parametrize("damage", ["cut short", "missing", "a link", "a pipe"])
def test_a_broken_pack_is_noticed(store, save, load, damage):
    snapshot = save(store, b"a" * 9000)
    (path,) = (store.root / "packs").iterdir()
    content = path.read_bytes()
    path.unlink()
    if damage == "cut short":
        path.write_bytes(content[:4096])
    elif damage == "a link":
        (store.root / "elsewhere").write_bytes(content)
        path.symlink_to(store.root / "elsewhere")
    elif damage == "a pipe":
        os.mkfifo(path)

    with pytest.raises(CorruptError, match=path.stem):
        load(store, snapshot)


def test_a_manifest_cannot_take_a_newer_name(store, key, save):
    """An old snapshot replayed as the newest would be restored by default; its name is signed."""
    save(store, b"old")
    (path,) = (store.root / "snapshots").iterdir()
    path.rename(path.with_name("0000000009" + path.name[10:]))

    assert Store.open(store.root, key).snapshots() == []


def test_a_manifest_cannot_move_into_another_store(store, key, save, tmp_path):
    save(store, b"old")
    other = Store.open(tmp_path / "other", key, create=True)
    for folder in ("packs", "snapshots"):
        for path in (store.root / folder).iterdir():
            (other.root / folder / path.name).write_bytes(path.read_bytes())

    assert other.snapshots() == []
    assert isinstance(other.unreadable()[0].error, CorruptError)


def test_a_whole_store_may_move(store, key, save, load, tmp_path):
    snapshot = save(store, b"content")
    store.root.rename(tmp_path / "moved")

    moved = Store.open(tmp_path / "moved", key)

    assert load(moved, moved.find("latest")) == [b"content"]
    assert moved.find("latest") == snapshot


def test_what_could_not_be_read_back_is_not_published(store, make_snapshot):
    with store.writing(), pytest.raises(CorruptError):
        store.commit(make_snapshot(cut="somewhere"))

    assert os.listdir(store.root / "snapshots") == []


def test_commit_refuses_bytes_that_are_gone(store, make_snapshot):
    """Had the lock been given up between put and commit, prune might have come between them."""
    with store.writing():
        refs = store.put([memoryview(b"x")]).refs
        (store.root / "packs" / f"{refs[0].pack}.pack").unlink()

        with pytest.raises(StoreError, match="gone"):
            store.commit(make_snapshot(refs))


def test_writing_needs_the_lock(store, make_snapshot):
    with pytest.raises(StoreError, match="writing"):
        store.put([memoryview(b"x")])
    with pytest.raises(StoreError, match="writing"):
        store.commit(make_snapshot())


def test_sequence_numbers_grow_over_all_notebooks(store, save):
    assert store.next_sequence() == 1
    save(store, b"1", notebook="a.ipynb")
    save(store, b"2", notebook="b.ipynb", sequence=41)

    assert store.next_sequence() == 42


def test_snapshots_are_those_of_the_notebook_newest_first(store, key, save):
    for number, notebook in enumerate("abaab"):
        save(store, bytes([number]), notebook=notebook)

    found = Store.open(store.root, key).snapshots("a")

    assert [snapshot.sequence for snapshot in found] == [4, 3, 1]


def test_what_another_process_saves_is_seen(store, key, save):
    other = Store.open(store.root, key)
    assert other.snapshots() == []
    snapshot = save(store, b"new")

    assert other.snapshots() == [snapshot]
    store.forget(snapshot.id)
    assert other.snapshots() == []


def test_asking_again_reads_no_file(store, key, save, monkeypatch):
    snapshot = save(store, b"content")
    opened = Store.open(store.root, key)
    opened.snapshots()
    monkeypatch.setattr("ipyrescue.store.atomic.read_file", None)

    assert opened.snapshots() == [snapshot]


def test_find_takes_prefix_label_and_latest(store, save):
    one = save(store, b"1", id="aa" + "0" * 14, label="warm")
    two = save(store, b"2", id="ab" + "0" * 14, label="warm")
    three = save(store, b"3", id="ba" + "0" * 14, notebook="b.ipynb")

    assert store.find("aa") == one
    assert store.find("warm", "a.ipynb") == two
    assert store.find("latest") == three
    assert store.find("latest", "a.ipynb") == two
    assert store.find("latest~1", "a.ipynb") == one
    assert store.find("ba", "a.ipynb") == three  # who types an id means it, whatever the notebook


@pytest.mark.parametrize("spec", ["a", "f", "latest~2", "cold", "", "../x", "latest~", "AA", "aa\n"])
def test_find_says_what_there_is(store, save, spec):
    """Ambiguous or unknown, the message lists what could be meant and what to type."""
    save(store, b"1", id="aa" + "0" * 14, label="warm")
    save(store, b"2", id="ab" + "0" * 14)

    with pytest.raises(SnapshotNotFoundError, match=r"(?s)aa000000 'warm'.*%snapshots"):
        store.find(spec, "a.ipynb")


def test_find_raises_the_error_of_the_unreadable_one_that_was_meant(store, save, rewrite):
    snapshot = save(store, b"1")
    (path,) = (store.root / "snapshots").iterdir()
    rewrite(path, path.read_bytes()[:-1])

    with pytest.raises(CorruptError, match="signature"):
        store.find(snapshot.id[:5])
    with pytest.raises(CorruptError, match="signature"):
        store.load(path.name)


def test_forget_also_takes_what_cannot_be_read(store, save, rewrite):
    snapshot = save(store, b"1")
    (path,) = (store.root / "snapshots").iterdir()
    rewrite(path, b"rubbish")

    store.forget(snapshot.id)

    assert store.unreadable() == []
    with pytest.raises(SnapshotNotFoundError):
        store.forget(snapshot.id)


def test_another_keys_snapshot_is_refused_and_shown(store, save):
    snapshot = save(store, b"theirs")

    ours = Store.open(store.root, Key(b"o" * 32))

    (item,) = ours.unreadable()
    assert ours.snapshots() == []
    assert isinstance(item.error, UntrustedError)
    assert store.key.fingerprint in str(item.error)
    assert f"uid {os.geteuid()}" in str(item.error)
    foreign = ours.untrusted(snapshot.id[:6])
    assert (foreign.snapshot, foreign.host, foreign.fingerprint) == (snapshot, "here", store.key.fingerprint)


def test_trust_signs_again(store, save, load):
    theirs = save(store, b"theirs")
    newer = Store.open(store.root, Key(b"o" * 32))

    ours = newer.trust(newer.untrusted(theirs.id[:6]))

    again = Store.open(store.root, Key(b"o" * 32))
    assert again.snapshots() == [ours]
    assert again.unreadable() == []
    assert load(again, ours) == [b"theirs"]
    assert (ours.sequence, ours.created) == (theirs.sequence, theirs.created)
    assert ours.id != theirs.id


def test_trust_signs_what_was_shown_and_nothing_else(store, save, key):
    """Who can write into the store must not have another snapshot signed than the one that a person saw and named."""
    theirs, other = save(store, b"theirs"), save(store, b"other")
    ours = Store.open(store.root, Key(b"o" * 32))
    shown = ours.untrusted(theirs.id)
    body = dataclasses.replace(other, id=theirs.id, sequence=theirs.sequence).to_bytes()
    shown.path.chmod(0o600)
    shown.path.write_bytes(signing.frame(key, store.id, shown.path.name, body))

    with pytest.raises(UntrustedError, match="not signed: it is not what was shown"):
        ours.trust(shown)

    assert ours.snapshots() == []
    assert shown.path.exists()


def test_trust_refuses_damaged_bytes(store, save, rewrite):
    theirs = save(store, b"theirs")
    (path,) = (store.root / "packs").iterdir()
    rewrite(path, flipped(path.read_bytes(), 0))
    ours = Store.open(store.root, Key(b"o" * 32))

    with pytest.raises(CorruptError, match="not signed"):
        ours.trust(ours.untrusted(theirs.id))

    assert ours.snapshots() == []
    assert len(ours.unreadable()) == 1


def test_a_read_only_store_restores(store, key, save, load):
    """The reader creates, locks and writes nothing, so `chmod -w` and a read-only mount are no obstacle."""
    snapshot = save(store, b"content")
    (store.root / "lock").unlink()
    folders = [store.root, *(path for path in store.root.iterdir() if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    before = {path: path.lstat().st_mtime_ns for path in store.root.rglob("*")}

    reader = Store.open(store.root, key)

    assert load(reader, reader.find(snapshot.id[:4])) == [b"content"]
    assert reader.verify(snapshot) == []
    assert {path: path.lstat().st_mtime_ns for path in store.root.rglob("*")} == before
    for folder in folders:
        folder.chmod(0o700)


def test_reading_is_allowed_where_writing_is_not(store, key, save, load):
    snapshot = save(store, b"content")
    store.root.chmod(0o777)

    opened = Store.open(store.root, key)

    assert load(opened, snapshot) == [b"content"]
    with pytest.raises(StoreError, match="chmod -R go="), opened.writing():
        pass


def test_no_store_is_said_so(tmp_path, key):
    with pytest.raises(StoreError, match="no ipyrescue store"):
        Store.open(tmp_path, key)

    assert os.listdir(tmp_path) == []


def test_two_processes_may_forget_the_same(store, key, save, monkeypatch):
    snapshot = save(store, b"content")
    other = Store.open(store.root, key)
    (name,) = os.listdir(store.root / "snapshots")
    monkeypatch.setattr(other.catalog, "names_of", lambda _: [name])
    store.forget(snapshot.id)

    other.forget(snapshot.id)

    assert store.snapshots() == []


def test_a_disk_error_is_not_held_against_a_manifest_for_ever(store, key, save, monkeypatch):
    snapshot = save(store, b"content")
    opened = Store.open(store.root, key)

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("ipyrescue.store.atomic.os.fdopen", fail)
        (item,) = opened.unreadable()
    assert type(item.error) is StoreError

    assert opened.snapshots() == [snapshot]
