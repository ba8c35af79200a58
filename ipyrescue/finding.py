"""find: which snapshot a restore takes, and which part of it.

The first stage of a restore. Order is by sequence number, never by clock.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import dropwhile
from typing import Literal

from ipyrescue.errors import RestoreError, SnapshotNotFoundError, StoreError
from ipyrescue.manifest import Group, Snapshot
from ipyrescue.store import Store
from ipyrescue.store.upkeep import Attempt, attempts, awaiting_restore


@dataclass(frozen=True)
class Scope:
    """Which part of a snapshot is wanted: *names* and globs, all when empty; with *keep_existing* those not there yet.

    With *device* `cpu` all tensors are wanted there, wherever they were. Each name is bound behind *prefix*. *force*
    separates names that share objects; with *keep_classes* a live class stands for the snapshot's of the same name.
    """

    names: tuple[str, ...] = ()
    keep_existing: bool = False
    device: Literal["cpu"] | None = None
    prefix: str = ""
    force: bool = False
    keep_classes: bool = False

    def chosen(self, snapshot: Snapshot) -> tuple[str, ...]:
        """The names of *snapshot* that are meant, in the order in which they were said."""
        if not self.names:
            return snapshot.names
        said = [name for pattern in self.names for name in snapshot.names if fnmatchcase(name, pattern)]
        return tuple(dict.fromkeys(said))

    def wanted(self, snapshot: Snapshot, namespace: Collection[str]) -> frozenset[str]:
        """The names of *snapshot* to bind."""
        names = frozenset(self.chosen(snapshot))
        return frozenset(n for n in names if self.prefix + n not in namespace) if self.keep_existing else names

    @property
    def is_everything(self) -> bool:
        """Whether all names are wanted, each in its place: what else a snapshot holds comes back with them only."""
        return not (self.names or self.keep_existing or self.prefix)

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


def can_be_read(snapshot: Snapshot) -> bool:
    """Whether its manifest is whole: a list may have been remembered, and say nothing of damage since."""
    try:
        return bool(snapshot.id) and snapshot.groups is not None
    except StoreError:
        return False


def find(
    store: Store, spec: str | None, *, notebook: str, incarnation: str, device: str | None = None
) -> list[Snapshot]:
    """Find what a user means: an id prefix, a label or `latest~N`; without a word, what died here.

    What a kernel died of while it restored it, to this *device*, is taken only by its name.
    """
    if spec:
        return [store.find(spec, notebook)]
    ranked = candidates(store.snapshots(notebook), awaiting_restore(store.root, incarnation), notebook)
    found = list(dropwhile(lambda snapshot: not can_be_read(snapshot), ranked))
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
    """Refuse names that the snapshot does not hold, and names that live together with others (an optimizer's model).

    The second is what *force* allows.
    """
    for name in scope.names:
        if not any(fnmatchcase(held, name) for held in snapshot.names):
            raise RestoreError(f"Snapshot {snapshot.id[:8]} has no variable {name}. {_instead(name, snapshot)}")
    if scope.force:
        return
    chosen, pseudo_names = dict.fromkeys(scope.chosen(snapshot)), snapshot.pseudo_names
    for group in snapshot.groups:
        torn = set(group.names) - chosen.keys() - pseudo_names
        if group.kind == "data" and torn and chosen.keys() & set(group.names):
            together = [*chosen, *(n for n in group.names if n in torn)]
            raise RestoreError(
                f"{', '.join(sorted(chosen.keys() & set(group.names)))} shares objects with "
                f"{', '.join(sorted(torn))}; restoring one without the other would separate them. "
                f"Together: %restore_vars {' '.join(together)}   Nevertheless: --force"
            )


def _instead(name: str, snapshot: Snapshot) -> str:
    """What to do about a name that *snapshot* does not hold."""
    left_out = [skipped for skipped in snapshot.skipped if fnmatchcase(skipped.name, name)]
    if left_out:
        return f"It was left out: {left_out[0]}."
    near = difflib.get_close_matches(name, snapshot.names, 1)
    return f"Did you mean {near[0]}?" if near else f"It holds: {', '.join(snapshot.names)}."
