"""What the store holds of a run: its snapshots as the plan asks for them, one pin, and why its kernels died.

The snapshot of the last finished cell is pinned while the run goes on: inside a cell of nine hours retention would
drop it, and a cell that has to begin anew could not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path

from ipyrescue.errors import StoreError, UntrustedError
from ipyrescue.incarnations import witness
from ipyrescue.incarnations.witness import End
from ipyrescue.incarnations.writers import wait_for_writers
from ipyrescue.manifest import PROGRESS, Snapshot
from ipyrescue.runs.plan import Saved
from ipyrescue.runs.record import Death, Record
from ipyrescue.store import Store, layout, pins, signing
from ipyrescue.store.catalog import Unreadable
from ipyrescue.store.lives import Cause, Life
from ipyrescue.store.signing import Key

_BETWEEN_CELLS = "cell_end"


class Holdings:
    """The store at *root*, for one run of *notebook*."""

    def __init__(self, root: Path, notebook: str) -> None:
        self._root = root
        self._notebook = notebook
        self._pinned: str | None = None

    def saved(self, record: Record) -> list[Saved]:
        """The snapshots of the run that a kernel can go on from, once nobody writes one any more.

        Raises StoreError where they cannot be told, and UntrustedError where another key signed what is done: a plan
        would take either for snapshots that are gone.
        """
        wait_for_writers(self._root, self._notebook, "")
        store = self._open() if record.done or signing.key_path().exists() else None
        if store is None:
            return []
        snapshots, unreadable = store.everything()
        _refuse_another_key({one.snapshot for one in record.done} - {one.id for one in snapshots}, unreadable)
        return [_saved(one) for one in snapshots if one.incarnation in record.incarnations and one.consistent]

    def newest_sequence(self) -> int:
        """The highest sequence number in the store, of whatever key; 0 where there is none. Raises StoreError."""
        store = self._open() if signing.key_path().exists() else self._open(signing.nobodys_key())
        return store.next_sequence() - 1 if store is not None else 0

    def pin(self, snapshot_id: str, former: str | None) -> None:
        """Keep this snapshot, and no more the *former* one, if it was kept for the run. Raises StoreError."""
        store = self._open()
        if store is None:
            return
        before = self._pinned or former
        by_hand = snapshot_id in store.pins()
        store.pin(snapshot_id)
        self._pinned = None if by_hand else snapshot_id
        if before is not None and before != snapshot_id:
            store.unpin(before)

    def unpin(self, snapshot_id: str | None) -> None:
        """Leave it to retention. Raises nothing."""
        with contextlib.suppress(StoreError):
            store = self._open()
            if store is not None and snapshot_id is not None:
                store.unpin(snapshot_id)
        self._pinned = None

    def _open(self, key: Key | None = None) -> Store | None:
        there = (self._root / "format.json").exists()
        return Store.open(self._root, key or signing.load_key()) if there else None


def let_go(root: Path, record: Record) -> None:
    """Of a run that is removed: leave the snapshot that it had pinned to retention. Raises StoreError."""
    if record.done and record.state != "finished":
        pins.remove(root, [record.done[-1].snapshot])


def bury(root: Path, notebook: str, end: End, cell: int | None) -> Death:
    """What a run notes of a kernel that died; the kernel's own life record says the same from now on."""
    life = witness.attest(root, end)
    told: tuple[Life, Cause | None] = (life, life.cause) if life is not None else witness.cause_of(end, notebook)
    life, cause = told
    text = f"{cause.verb} ({cause.text})" if cause is not None else "died"
    return Death(end.died_at, cell, text, end.exit_code, life.incarnation or None)


def _refuse_another_key(missing: Collection[str], unreadable: Iterable[Unreadable]) -> None:
    for one in unreadable:
        _, snapshot = layout.parse_snapshot_name(one.name) or (0, "")
        if snapshot in missing and isinstance(one.error, UntrustedError):
            raise one.error


def _saved(snapshot: Snapshot) -> Saved:
    return Saved(
        snapshot.id,
        snapshot.sequence,
        inside=snapshot.cut != _BETWEEN_CELLS,
        progress=any(variable.name == PROGRESS for variable in snapshot.variables),
    )
