"""Packs that no manifest names, to free bytes, and pins of what is gone. Knows no retention.

What is to go was forgotten before.

The order that makes it safe: a manifest is unlinked and its folder synced first (`Store.forget`), then, under the
exclusive lock, every manifest is read, and only then packs go. If one manifest cannot be read, none goes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ipyrescue.errors import RescueError, StoreBusyError, StoreError, UntrustedError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import atomic, layout, lock, pins

if TYPE_CHECKING:
    from ipyrescue.store.store import Store

_ORPHAN_SECONDS = 3600.0


@dataclass(frozen=True)
class Pruned:
    """What was freed."""

    packs: int
    bytes: int


def prune(store: Store) -> Pruned | None:
    """Delete whole packs that nothing references, and all unfinished work; None when a writer is busy.

    Raises StoreError, having deleted no pack, when a manifest cannot be read: it may need any of them.
    """
    with atomic.explained("prune", store.root):
        layout.check_writable(store.root)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(lock.exclusive(store.root))
            except StoreBusyError:
                return None
            return _prune(store)


def _prune(store: Store) -> Pruned:
    # A process that was killed inside `forget` may have unlinked without syncing.
    atomic.sync_folder(layout.snapshots(store.root))
    needed = _referenced(store)
    dead = [path for path in _packs(store.root) if layout.parse_pack_name(path.name) not in needed]
    drafts = [*_plain_files(layout.temporary(store.root)), *_orphans(layout.kernels(store.root))]
    freed = sum(_remove(path) for path in [*dead, *drafts])
    atomic.sync_folder(layout.packs(store.root))
    pins.remove(store.root, store.pins() - {name[11:27] for name in store.catalog.names()})
    return Pruned(len(dead), freed)


def _referenced(store: Store) -> set[str]:
    """The packs of every manifest, of whoever signed it. Raises StoreError when one cannot be read."""
    foreign = [_foreign(store, item.name, item.error) for item in store.unreadable()]
    return {blob.pack for snapshot in [*store.snapshots(), *foreign] for blob in snapshot.blobs}


def _foreign(store: Store, name: str, error: RescueError) -> Snapshot:
    """Another key's snapshot, if it can be parsed. What our own key signed and does not fit may name any pack."""
    try:
        if not isinstance(error, UntrustedError):
            raise error
        return Snapshot.from_bytes(store.catalog.body(name)[0].body)
    except (RescueError, FileNotFoundError) as reason:
        raise StoreError(
            f"Nothing was pruned: {store.catalog.path(name)} cannot be read, and it may need any pack ({reason}) "
            f"To give it up: ipyrescue forget {name[11:27]}"
        ) from reason


def _packs(root: Path) -> Iterator[Path]:
    return (path for path in _plain_files(layout.packs(root)) if layout.parse_pack_name(path.name))


def _plain_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False))


def _orphans(folder: Path) -> Iterator[Path]:
    """Life records that were never finished; they are written without a lock, so age must tell."""
    oldest = time.time() - _ORPHAN_SECONDS
    return (path for path in _plain_files(folder) if path.name.startswith(".") and _changed(path) < oldest)


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _remove(path: Path) -> int:
    """Unlink and return the bytes freed."""
    try:
        size_bytes = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size_bytes
