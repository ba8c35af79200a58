"""A store to test, and snapshots to put into it."""

import itertools
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ipyrescue.manifest import BlobRef, Buffer, Group, Settings, Snapshot, Storage, Stream, Tensor, Variable
from ipyrescue.store import Store
from ipyrescue.store.signing import Key

Make = Callable[..., Snapshot]


@pytest.fixture
def key() -> Key:
    return Key(b"k" * 32)


@pytest.fixture
def store(store_root: Path, key: Key) -> Store:
    return Store.open(store_root, key, create=True)


@pytest.fixture
def make_snapshot() -> Make:
    """A snapshot whose one group `x` has the first blob as its stream and the others as one buffer."""
    return snapshot_of


@pytest.fixture
def save() -> Callable[..., Snapshot]:
    """Save the given bytes by put and commit, each as one blob."""
    return save_to


_sequences = itertools.count(1)


def snapshot_of(refs: Sequence[BlobRef] = (), **fields: object) -> Snapshot:
    """A whole snapshot; *fields* replace what is not given otherwise."""
    defaults: dict[str, object] = {
        "format": 1,
        "id": secrets.token_hex(8),
        "sequence": next(_sequences),
        "notebook": "a.ipynb",
        "incarnation": "1" * 16,
        "created": "2026-11-21T10:00:00+00:00",
        "label": None,
        "trigger": "manual",
        "cut": "cell_end",
        "reason": None,
        "cell": 3,
        "host": "here",
        "settings": Settings(),
        "environment": {"python": "3.11"},
        "imports": (),
        "variables": (Variable("x", "Tensor", sum(ref.size_bytes for ref in refs), 3, None),),
        "skipped": (),
        "warnings": (),
        "groups": (group_of(refs),) if refs else (),
        "blobs": tuple(refs),
        "new_bytes": 0,
        "pause_seconds": 0.0,
    }
    return Snapshot(**{**defaults, **fields})  # type: ignore[arg-type]


def group_of(refs: Sequence[BlobRef]) -> Group:
    rest = sum(ref.size_bytes for ref in refs[1:])
    return Group(
        names=("x",),
        kind="data",
        encoder="pickle",
        stream=Stream((0,), refs[0].size_bytes, "raw"),
        buffers=(Buffer(tuple(range(1, len(refs))), 0, rest),),
        storages=(Storage(0, 0, rest, "torch", "cpu"),),
        out_of_band=(),
        tensors=(Tensor("x", 0, "float32", (rest // 4,), (1,), 0),),
        depends=(),
    )


def save_to(store: Store, *contents: bytes, **fields: object) -> Snapshot:
    with store.writing():
        put = store.put([memoryview(content) for content in contents])
        snapshot = snapshot_of(put.refs, **{"sequence": store.next_sequence(), "new_bytes": put.new_bytes, **fields})
        store.commit(snapshot)
    return snapshot


@pytest.fixture
def load() -> Callable[[Store, Snapshot], list[bytes]]:
    """The bytes of every blob of a snapshot, checked."""
    return load_from


def load_from(store: Store, snapshot: Snapshot) -> list[bytes]:
    into = [bytearray(blob.size_bytes) for blob in snapshot.blobs]
    store.get(snapshot.blobs, [memoryview(view) for view in into])
    return [bytes(view) for view in into]


@pytest.fixture
def rewrite() -> Callable[[Path, bytes], None]:
    """Change a file behind the store's back, as rot would: in place, past its mode."""

    def rewriting(path: Path, data: bytes) -> None:
        os.chmod(path, 0o600)
        path.write_bytes(data)
        os.chmod(path, 0o400)

    return rewriting
