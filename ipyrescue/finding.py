"""find: which snapshot a restore takes, and which part of it.

The first stage of a restore. Order is by sequence number, never by clock.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ipyrescue.errors import RestoreError, SnapshotNotFoundError
from ipyrescue.manifest import Group, Snapshot
from ipyrescue.store import Store
from ipyrescue.store.upkeep import Attempt, attempts, awaiting_restore


@dataclass(frozen=True)
class Scope:
    """Which part of a snapshot is wanted: *names* (all when empty), sparing names that exist if *keep_existing*.

    With *device* `cpu` all tensors are wanted there, wherever they were.
    """

    names: tuple[str, ...] = ()
    keep_existing: bool = False
    device: Literal["cpu"] | None = None

    def wanted(self, snapshot: Snapshot, namespace: Collection[str]) -> frozenset[str]:
        """The names of *snapshot* to bind."""
        names = frozenset(self.names or snapshot.names)
        return names - frozenset(namespace) if self.keep_existing else names

    def moves(self, groups: Iterable[Group]) -> tuple[str, ...]:
        """The devices whose tensors *groups* hold and that *device* replaces."""
        devices = {storage.device for group in groups for storage in group.storages}
        return tuple(sorted(devices - {self.device})) if self.device is not None else ()


def candidates(snapshots: Sequence[Snapshot], unrestored: Collection[str], notebook: str) -> list[Snapshot]:
    """The snapshots that a plain restore may take, best first.

    The newest consistent one of the incarnation that died and was not restored yet; when there is none, the newest
    consistent one of this notebook. Behind it stand the others, for when the first is damaged.
    *snapshots* are newest first; order is by sequence number, never by clock. *unrestored* are the incarnations
    that died and await a restore.
    """
    mine = [s for s in snapshots if s.notebook == notebook and s.consistent]
    newest_dead = next((s.incarnation for s in mine if s.incarnation in unrestored), None)
    return sorted(mine, key=lambda s: s.incarnation != newest_dead)


def find(
    store: Store, spec: str | None, *, notebook: str, incarnation: str, device: str | None = None
) -> list[Snapshot]:
    """Find what a user means: an id prefix, a label or `latest~N`; without a word, what died here.

    What a kernel died of while it restored it, to this *device*, is taken only by its name.
    """
    if spec:
        return [store.find(spec, notebook)]
    found = candidates(store.snapshots(notebook), awaiting_restore(store.root, incarnation), notebook)
    if not found:
        raise SnapshotNotFoundError(_nothing_to_restore(store, notebook))
    deadly = attempts(store.root)
    harmless = [snapshot for snapshot in found if Attempt(snapshot.id, device) not in deadly]
    if not harmless:
        raise SnapshotNotFoundError(
            f"A kernel died while it restored {found[0].id[:8]}, and there is no other snapshot of {notebook}. "
            f"To try again: %restore_vars from={found[0].id[:8]}"
        )
    return harmless


def _nothing_to_restore(store: Store, notebook: str) -> str:
    others = sorted({s.notebook for s in store.snapshots()} - {notebook})
    unreadable = [str(u.error) for u in store.unreadable()]
    sentences = [f"There is no snapshot of {notebook} in {store.root}."]
    if unreadable:
        sentences.append(f"{len(unreadable)} cannot be read; the first: {unreadable[0]}")
    if others:
        sentences.append(f"It holds snapshots of {', '.join(others)}: %snapshots --all")
    return " ".join(sentences)


def refuse_to_separate(snapshot: Snapshot, scope: Scope) -> None:
    """Refuse names that the snapshot does not hold, and names that live together with others (an optimizer's model)."""
    unknown = [name for name in scope.names if name not in snapshot.names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], snapshot.names, 1)
        hint = f"Did you mean {near[0]}?" if near else f"It holds: {', '.join(snapshot.names)}."
        raise RestoreError(f"Snapshot {snapshot.id[:8]} has no variable {', '.join(unknown)}. {hint}")
    for group in snapshot.groups:
        torn = set(group.names) - set(scope.names)
        if group.kind == "data" and torn and set(scope.names) & set(group.names):
            together = [*scope.names, *(n for n in group.names if n in torn)]
            raise RestoreError(
                f"{', '.join(sorted(set(group.names) & set(scope.names)))} shares objects with "
                f"{', '.join(sorted(torn))}; restoring one without the other would separate them. "
                f"Together: %restore_vars {' '.join(together)}"
            )
