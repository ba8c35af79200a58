"""What the store holds of a run: its snapshots as the plan asks for them, one pin, and why its kernels died.

The snapshot of the last finished cell is pinned while the run goes on: inside a cell of nine hours retention would
drop it, and a cell that has to begin anew could not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ipyrescue.errors import RescueError, StoreError
from ipyrescue.incarnations import witness
from ipyrescue.incarnations.witness import End
from ipyrescue.incarnations.writers import wait_for_writers
from ipyrescue.manifest import PROGRESS, Snapshot
from ipyrescue.runs.plan import Saved
from ipyrescue.runs.record import Death, Record
from ipyrescue.store import Store, pins
from ipyrescue.store.lives import Cause, Life
from ipyrescue.store.signing import load_key

_BETWEEN_CELLS = "cell_end"


class Holdings:
    """The store at *root*, for one run of *notebook*."""

    def __init__(self, root: Path, notebook: str) -> None:
        self._root = root
        self._notebook = notebook
        self._pinned: str | None = None

    def saved(self, record: Record) -> list[Saved]:
        """The snapshots of the run that a kernel can go on from, once nobody writes one any more."""
        wait_for_writers(self._root, self._notebook, "")
        return [_saved(one) for one in self._snapshots() if one.incarnation in record.incarnations and one.consistent]

    def newest_sequence(self) -> int:
        """The highest sequence number in the store; 0 where there is none."""
        return max((snapshot.sequence for snapshot in self._snapshots()), default=0)

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

    def _snapshots(self) -> list[Snapshot]:
        with contextlib.suppress(RescueError):
            store = self._open()
            return store.snapshots() if store is not None else []
        return []

    def _open(self) -> Store | None:
        return Store.open(self._root, load_key()) if (self._root / "format.json").exists() else None


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


def _saved(snapshot: Snapshot) -> Saved:
    return Saved(
        snapshot.id,
        snapshot.sequence,
        inside=snapshot.cut != _BETWEEN_CELLS,
        progress=any(variable.name == PROGRESS for variable in snapshot.variables),
    )
