"""Every byte is read, damage is told by the names it costs, and what was read is remembered."""

from ipyrescue.errors import UntrustedError
from ipyrescue.store import Store, blobs
from ipyrescue.store.signing import Key
from ipyrescue.store.verify import Reading, verify_store


def rot(store, rewrite, offset, pack=""):
    (path,) = (store.root / "packs").glob(f"{pack}*")
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    rewrite(path, bytes(data))


def test_a_whole_snapshot_is_verified_by_reading(store, save):
    """Having written it is no proof of what stands on the disk."""
    snapshot = save(store, b"stream", b"buffer", b"")
    assert not store.verified(snapshot)

    assert store.verify(snapshot) == []
    assert store.verified(snapshot)


def test_restoring_verifies(store, key, save, load):
    snapshot = save(store, b"stream", b"buffer")
    opened = Store.open(store.root, key)

    load(opened, snapshot)

    assert opened.verified(snapshot)


def test_damage_is_told_by_names(store, save, rewrite):
    snapshot = save(store, b"stream", b"buffer")
    rot(store, rewrite, 4096)

    (damage,) = store.verify(snapshot)

    assert damage.groups == (("x",),)
    assert damage.blob == snapshot.blobs[1].hash
    assert str(damage).startswith("x: Blob")
    assert not store.verified(snapshot)


def test_a_pack_that_changed_is_no_longer_verified(store, save, rewrite):
    snapshot = save(store, b"stream", b"buffer")
    store.verify(snapshot)

    rot(store, rewrite, 0)

    assert not store.verified(snapshot)


def test_a_missing_pack_is_damage(store, save):
    snapshot = save(store, b"stream", b"buffer")
    (path,) = (store.root / "packs").iterdir()
    path.unlink()

    assert len(store.verify(snapshot)) == 2
    assert "missing" in store.verify(snapshot)[0].reason


def test_what_many_snapshots_share_is_read_once_and_lost_to_all_of_them(store, save, rewrite, monkeypatch):
    read, real = [], blobs.read_checked
    monkeypatch.setattr(
        blobs, "read_checked", lambda reader, blob, *rest: read.append(blob) or real(reader, blob, *rest)
    )
    shared, rotten = b"s" * 10_000, b"r" * 9_000
    three = [save(store, bytes([n]), shared, rotten) for n in range(3)]
    rot(store, rewrite, 4096 + 12_288, pack=three[0].blobs[2].pack)
    reading, read[:] = Reading(store), []

    found = [[(d.blob, d.groups) for d in reading.verify(snapshot)] for snapshot in three]

    assert found == [[(three[0].blobs[2].hash, (("x",),))]] * 3
    assert sorted(blob.size_bytes for blob in read) == [1, 1, 1, 9_000, 10_000]
    assert reading.read_bytes == 19_003
    read.clear()
    assert [len(damage) for _, damage in verify_store(store).snapshots] == [1, 1, 1]
    assert len(read) == 5


def test_a_whole_store_is_verified(store, save, rewrite):
    good = save(store, b"stream", b"buffer")
    save(Store.open(store.root, Key(b"o" * 32)), b"theirs")

    report = verify_store(store)

    assert report.snapshots == ((good, ()),)
    assert isinstance(report.unreadable[0].error, UntrustedError)
    assert not report.whole
