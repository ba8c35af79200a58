"""Deduplication finds what manifests name, in a table that is small, remembered, and never believed by itself."""

import hashlib
import json
import random

import pytest

from ipyrescue.manifest import BLOB_SIZE_BYTES, BlobRef
from ipyrescue.store import Store, known, layout
from ipyrescue.store.brief import said_of
from ipyrescue.store.known import Hints, KnownBlobs
from ipyrescue.store.prune import prune


@pytest.fixture(autouse=True)
def remembered_at_once(monkeypatch):
    monkeypatch.setattr(known, "_WORTH_WRITING", 1)


def hints_of(store):
    return layout.index_path(store.root, "blobs")


def remembered(store):
    store.catalog.known_blobs()
    store.catalog.remember()


def digest(number):
    return hashlib.sha256(b"%d" % number).digest()


def place(number):
    return known._PLACE.pack(b"%08d" % (number % 97), number * 4096, number % BLOB_SIZE_BYTES + 1)


@pytest.mark.parametrize("most_fresh", [0, 7, 1000])
def test_the_table_is_a_dictionary(most_fresh, monkeypatch):
    """Whatever is merged when, and however often it is written and read."""
    monkeypatch.setattr(known, "_MOST_FRESH", most_fresh)
    draw, hints, model = random.Random(5), Hints(), {}
    for round_ in range(30):
        places = {digest(draw.randrange(300)): place(draw.randrange(1000)) for _ in range(20)}
        hints.add(str(round_), places)
        model.update(places)
        if round_ % 7 == 0:
            packs = frozenset(value[:8] for value in model.values())
            hints = Hints.from_bytes(b"k" * 32, hints.to_bytes(b"k" * 32, packs))
    asked = [digest(number) for number in range(400)]
    assert list(map(hints.get, asked)) == list(map(model.get, asked))
    assert hints.names == set(map(str, range(30)))


def test_a_new_process_finds_blobs_without_reading_every_manifest(store, key, save, monkeypatch):
    saved = [save(store, b"constant", b"step %d" % number) for number in range(8)]
    remembered(store)
    opened, read, body = Store.open(store.root, key), [], store.catalog.body
    monkeypatch.setattr(opened.catalog._known, "_body", lambda name: read.append(name) or body(name)[0].body)

    again = save(opened, b"constant", b"step 7")

    assert (again.new_bytes, again.blobs) == (0, saved[-1].blobs)
    assert len(set(read)) == 1, "two threads may read the same one at once"
    assert save(opened, b"step 0").new_bytes == 0, "what only the oldest names is found as well"


def test_what_no_manifest_names_any_more_is_not_used_again(store, key, save, make_snapshot):
    """Its pack is still there, and the table knows it yet: a repacking could take it at any time."""
    both = save(store, b"kept", b"dropped")
    with store.writing():
        store.commit(make_snapshot(both.blobs[:1], sequence=store.next_sequence()))
    store.forget(both.id)
    opened = Store.open(store.root, key)

    again = save(opened, b"kept", b"dropped")

    assert again.blobs[0] == both.blobs[0]
    assert again.blobs[1].pack != both.blobs[1].pack
    assert again.new_bytes == len(b"dropped")


def test_what_an_older_manifest_names_is_found_when_the_newer_is_gone(store, key, save):
    saved = [save(store, b"constant", b"step %d" % number) for number in range(4)]
    for snapshot in saved[1:]:
        store.forget(snapshot.id)

    assert save(Store.open(store.root, key), b"constant").new_bytes == 0
    assert save(store, b"constant").new_bytes == 0


def test_no_byte_of_the_table_is_believed_unless_it_fits(store, key, save):
    saved = save(store, b"one", b"two")
    remembered(store)
    raw, draw = hints_of(store).read_bytes(), random.Random(4)
    assert len(raw) > 100
    for broken in [raw[:cut] for cut in range(0, len(raw), 29)] + [
        raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :] for at in draw.sample(range(len(raw)), 40)
    ]:
        hints_of(store).write_bytes(broken)
        assert not Hints.from_bytes(store.catalog._known._key, broken).names
        found = Store.open(store.root, key).catalog.known_blobs()
        assert [found.get(blob.hash) for blob in saved.blobs] == list(saved.blobs)
        assert found.get("0" * 64) is None


def test_a_table_of_another_store_or_key_says_nothing(store, key, save, tmp_path):
    save(store, b"one")
    remembered(store)
    other = Store.open(tmp_path / "other", key, create=True)

    raw = hints_of(store).read_bytes()

    assert Hints.from_bytes(store.catalog._known._key, raw).names
    assert not Hints.from_bytes(other.catalog._known._key, raw).names
    assert not Hints.from_bytes(b"o" * 32, raw).names


def test_no_text_of_a_user_is_taken_for_a_blob(store, save):
    """Every quote in a text is escaped, so it cannot look like a blob of the manifest."""
    claimed = BlobRef("a" * 64, "b" * 16, 0, 5)
    text = json.dumps(vars(claimed), separators=(",", ":"))
    saved = save(store, b"one", label=text, environment={text: text, "hash": claimed.hash}, warnings=(text,))

    found = store.catalog.known_blobs()

    assert found.get(claimed.hash) is None
    assert found.get(saved.blobs[0].hash) == saved.blobs[0]


def test_however_many_there_are_one_snapshot_does_not_wait_for_all(store, key, save, monkeypatch):
    """The newest manifests are looked at first; the rest the next time."""
    saved = [save(store, b"%d" % number) for number in range(6)]
    remembered(store)
    hints_of(store).unlink()
    monkeypatch.setattr(known, "MOST_AT_ONCE", 2)
    opened = Store.open(store.root, key)

    found = opened.catalog.known_blobs()
    at_first = [found.get(snapshot.blobs[0].hash) is not None for snapshot in saved]
    for _ in range(3):
        found = opened.catalog.known_blobs()

    assert at_first == [False, False, False, True, True, True]
    assert all(found.get(snapshot.blobs[0].hash) for snapshot in saved)


def test_the_table_drops_what_is_gone(store, key, save):
    for number in range(9):
        snapshot = save(store, bytes([number]) * 50)
        remembered(store)
        store.forget(snapshot.id)
    prune(store)
    save(store, b"last")
    remembered(store)

    hints = Hints.from_bytes(store.catalog._known._key, hints_of(store).read_bytes())

    assert len(hints) <= 2
    assert len(hints.names) <= 2


def test_a_manifest_that_cannot_be_read_names_nothing():
    blobs = KnownBlobs(layout.Path("nowhere"), None, lambda name: (_ for _ in ()).throw(FileNotFoundError(name)))

    blobs.follow({"0000000001-1111111111111111.json": "b" * 32})

    assert blobs.get("a" * 64) is None
    blobs.remember()


def test_packs_of_a_list_are_those_that_deduplication_looks_for(save, store):
    saved = save(store, b"one", b"two")

    assert said_of(saved)["packs"] == f"{saved.blobs[0].pack}{4096 + 3:016x}"
