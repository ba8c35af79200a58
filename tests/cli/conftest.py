"""A store as the CLI meets it: made by hand, of bytes, without any object or kernel."""

import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ipyrescue.manifest import FORMAT_VERSION, Buffer, Group, Settings, Skipped, Snapshot, Storage, Stream, Variable
from ipyrescue.store import Store, signing

MakeSnapshot = Callable[..., Snapshot]


@pytest.fixture(autouse=True)
def _a_quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("IPYRESCUE_STORE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(store_root: Path) -> Store:
    """An empty store in ./.ipyrescue, where a command looks by default."""
    return Store.open(store_root, signing.load_key(create=True), create=True)


@pytest.fixture
def make(store: Store) -> MakeSnapshot:
    """Commit a snapshot of one variable, `weights`, whose bytes are *data*."""

    def commit(*, data: bytes | None = None, into: Store = store, **changes: object) -> Snapshot:
        data = os.urandom(5000) if data is None else data
        with into.writing():
            put = into.put([memoryview(b"a stream"), memoryview(data)])
            snapshot = a_snapshot(into.next_sequence(), put.refs, put.new_bytes, **changes)
            into.commit(snapshot)
        return snapshot

    return commit


@pytest.fixture
def other_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> signing.Key:
    """Somebody else's key; the environment keeps naming ours."""
    with monkeypatch.context() as patch:
        patch.setenv("IPYRESCUE_KEY_FILE", str(tmp_path / "their-key"))
        return signing.load_key(create=True)


def a_snapshot(sequence: int, blobs: tuple, new_bytes: int, **changes: object) -> Snapshot:
    size = blobs[1].size_bytes
    fields = {
        "format": FORMAT_VERSION,
        "id": os.urandom(8).hex(),
        "sequence": sequence,
        "notebook": "train.ipynb",
        "incarnation": "a" * 16,
        "created": datetime.now(timezone.utc).isoformat(),
        "label": None,
        "trigger": "schedule",
        "cut": "cell_end",
        "reason": None,
        "cell": 7,
        "host": "a-host",
        "settings": Settings(),
        "environment": {"python": "3.11"},
        "imports": (),
        "variables": (Variable("weights", "bytes", size, 3, None),),
        "skipped": (Skipped("gen", "generator", "a generator cannot be saved", 4),),
        "warnings": (),
        "groups": (
            Group(
                ("weights",), "data", "pickle", Stream((0,), 8, "raw"), (Buffer((1,), 0, size),),
                (Storage(0, 0, size, "bytes", "cpu"),), (0,), (), (),
            ),
        ),
        "blobs": tuple(blobs),
        "new_bytes": new_bytes,
        "pause_seconds": 0.02,
    }  # fmt: skip
    return Snapshot(**{**fields, **changes})
