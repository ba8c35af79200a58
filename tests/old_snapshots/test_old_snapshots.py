"""What a released version wrote is read for ever; what a later one will write is refused with a sentence."""

from __future__ import annotations

import collections
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from namespaces import Life

from ipyrescue.errors import StoreFormatError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, layout, signing

FOLDER = Path(__file__).parent
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))


@pytest.fixture(params=VERSIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    with tarfile.open(FOLDER / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    key = tmp_path / "key"
    key.write_bytes((FOLDER / f"{request.param}.key").read_bytes())
    key.chmod(0o600)
    return Store.open(tmp_path / request.param, signing.load_key(key))


def test_there_is_a_store_of_every_format_version() -> None:
    assert VERSIONS == [f"format-{number}" for number in range(1, layout.STORE_FORMAT + 1)]
    assert sum(path.stat().st_size for path in FOLDER.glob("format-*")) < 20_000


def test_everything_in_it_comes_back(store: Store) -> None:
    life = Life(store, "old.ipynb")

    restored = life.restore()

    names = life.names
    assert restored.skipped == ()
    assert (names["step"], names["rate"], names["name"], names["nothing"]) == (7, 0.125, "a name", None)
    assert names["flags"] == {True, False}
    assert names["nested"] == {"list": [1, 2, [3]], (4, 5): b"bytes", "big": 1 << 70}
    assert names["shared"] is names["nested"]["list"]
    assert names["counts"] == collections.Counter("ipyrescue")
    assert np.array_equal(names["numbers"], np.arange(300.0).reshape(20, 15))
    assert torch.equal(names["weights"], torch.arange(400.0).reshape(20, 20))
    assert names["turned"].data_ptr() == names["weights"].data_ptr()


def test_what_stands_beside_the_values_is_read_too(store: Store) -> None:
    newest, oldest = store.snapshots()

    assert store.unreadable() == []
    assert (newest.sequence, oldest.sequence, oldest.label) == (2, 1, "first")
    assert store.find("first") == oldest
    assert store.pins() == {oldest.id}
    assert store.verify(newest) == store.verify(oldest) == []


def test_a_store_of_a_later_format_is_refused_with_a_sentence(store: Store) -> None:
    path = store.root / "format.json"
    path.write_text(json.dumps({"format": 2, "store_id": store.id}))

    with pytest.raises(StoreFormatError, match=r"store format 2; .* reads up to 1. Upgrade it: pip install -U"):
        Store.open(store.root, store.key)


def test_a_manifest_of_a_later_format_is_refused_with_a_sentence(store: Store) -> None:
    """Signed by our key: not damaged, but not ours to read; the others are."""
    snapshot = store.snapshots()[0]
    path = layout.snapshots(store.root) / layout.snapshot_name(snapshot.sequence, snapshot.id)
    body = snapshot.to_bytes().replace(b'"format":1', b'"format":2')
    path.write_bytes(signing.frame(store.key, store.id, path.name, body))

    (unreadable,) = Store.open(store.root, store.key).unreadable()

    assert isinstance(unreadable.error, StoreFormatError)
    assert "pip install -U" in str(unreadable.error)
    with pytest.raises(StoreFormatError):
        Snapshot.from_bytes(body)
    assert [found.label for found in Store.open(store.root, store.key).snapshots()] == ["first"]
