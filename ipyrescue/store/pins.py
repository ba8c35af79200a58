"""Ids of snapshots that a person wants kept, as empty files: retention lets none of them go.

A pin says nothing about contents, so nothing signs it: who may write here may unpin, and could as well delete the
snapshot. Where its folder is missing, as in an older store or in a copy that lost empty folders, nothing is pinned.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from ipyrescue.store import atomic, layout


def read(root: Path) -> frozenset[str]:
    """The ids that are pinned in the store at *root*. Writes nothing. Raises StoreError."""
    try:
        with atomic.explained("read", layout.pins(root)), os.scandir(layout.pins(root)) as entries:
            names = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return frozenset()
    return frozenset(filter(None, map(layout.parse_pin_name, names)))


def add(root: Path, snapshot_id: str) -> None:
    """Pin, durably; what is pinned stays so. Needs the shared lock. Raises StoreError."""
    layout.create(root)
    with atomic.explained("pin", layout.pin_path(root, snapshot_id)), contextlib.suppress(FileExistsError):
        atomic.publish(layout.temporary(root), layout.pin_path(root, snapshot_id), b"", mode=0o600)


def remove(root: Path, snapshot_ids: Iterable[str]) -> None:
    """Unpin, durably; what is not pinned stays so. Raises StoreError."""
    pinned = read(root).intersection(snapshot_ids)
    if not pinned:
        return
    with atomic.explained("change", layout.pins(root)):
        layout.check_writable(root)
        for snapshot_id in pinned:
            atomic.unlink_below(root, layout.pin_path(root, snapshot_id))
        atomic.sync_folder(layout.pins(root))
