"""What the writer does after a snapshot: forget what retention lets go of, then free what nobody references."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from ipyrescue.manifest import Snapshot
from ipyrescue.store.lives import last_seen, read_all, state
from ipyrescue.store.prune import prune
from ipyrescue.store.retention import Retention, to_forget, to_verify
from ipyrescue.store.store import Store


def tidy(store: Store, notebook: str, retention: Retention, *, current: str) -> tuple[Snapshot, ...]:
    """Apply *retention* to one notebook's snapshots and prune; return those that were forgotten.

    *current* is the incarnation that is writing. What must be verified by reading before something older may go
    is verified here. Raises `StoreError`.
    """
    forgotten = forget_by(store, notebook, retention, current=current)
    prune(store)
    return forgotten


def forget_by(store: Store, notebook: str, retention: Retention, *, current: str) -> tuple[Snapshot, ...]:
    """Forget what *retention* drops, without freeing its bytes."""
    snapshots = store.snapshots(notebook)
    unrestored = awaiting_restore(store.root, current)
    now = datetime.now(timezone.utc)
    known = _verified(store, snapshots)
    for snapshot in to_verify(
        snapshots, retention, current=current, unrestored=unrestored, verified=known, now=now
    ):  # fmt: skip
        store.verify(snapshot)
    known = _verified(store, snapshots)
    dropped = to_forget(snapshots, retention, current=current, unrestored=unrestored, verified=known, now=now)
    for snapshot in dropped:
        store.forget(snapshot.id)
    return dropped


def awaiting_restore(root: Path, current: str) -> frozenset[str]:
    """The incarnations that died in the store at *root* and were neither restored nor dismissed."""
    return frozenset(
        life.incarnation
        for life in read_all(root)
        if life.incarnation != current
        and life.restored is None
        and not life.dismissed
        and state(life, last_seen_at=last_seen(root, life)) == "died"
    )


def _verified(store: Store, snapshots: Iterable[Snapshot]) -> frozenset[str]:
    return frozenset(snapshot.id for snapshot in snapshots if store.verified(snapshot))
