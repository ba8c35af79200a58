"""Bytes that no manifest names, to free space, and pins of what is gone. Knows no retention.

What is to go was forgotten before. Packs go whole; on request the dead bytes of a pack that still has living ones
become a hole (see `ipyrescue.store.holes`), which moves and rewrites nothing.

The order that makes it safe: a manifest is unlinked and its folder synced first (`Store.forget`), then, under the
exclusive lock, every manifest is read, and only then bytes go. If one manifest cannot be read, none goes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ipyrescue.errors import RescueError, StoreBusyError, StoreError, UntrustedError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import atomic, filesystems, holes, layout, lives, lock, pins, trust, usage
from ipyrescue.store.usage import PackUse

if TYPE_CHECKING:
    from ipyrescue.store.store import Store

_ORPHAN_SECONDS = 3600.0
_SILENT_SECONDS = 3600.0
"""So long after its last sign of life a kernel of another machine writes no more, also where clocks differ."""

Advance = Callable[[int], None]
"""Told of so many more bytes that are free now."""


@dataclass(frozen=True)
class Pruned:
    """What was freed: whole *packs*, and *bytes* in all; *repacked* are the packs that were freed of dead bytes.

    *left* are those that keep dead bytes they should not have kept, by the reason.
    """

    packs: int
    bytes: int
    repacked: int = 0
    left: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What may be freed: whole packs, unfinished files, and packs of which dead bytes are given back."""

    dead: tuple[PackUse, ...]
    drafts: tuple[Path, ...]
    sparse: tuple[PackUse, ...]

    @property
    def bytes(self) -> int:
        """What carrying it out would free."""
        freed = sum(use.disk_bytes for use in self.dead) + sum(use.dead_bytes for use in self.sparse)
        return freed + sum(map(_size_bytes, self.drafts))


def prune(
    store: Store,
    *,
    max_dead: float | None = None,
    wait_seconds: float = 0.0,
    force: bool = False,
    advance: Advance = lambda freed: None,
) -> Pruned | None:
    """Delete whole packs that nothing references, and all unfinished work; None when a writer is busy.

    With *max_dead* (0 to 1) also the dead bytes of packs of which a larger share is dead. A writer is waited for as
    long as *wait_seconds*. None as well where one might be busy that no lock tells of (`hindrance`), unless *force*.
    Raises StoreError, having freed nothing, when a manifest cannot be read: it may need any.
    """
    with atomic.explained("prune", store.root):
        layout.check_writable(store.root)
        if not force and hindrance(store.root):
            return None
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(lock.exclusive(store.root, wait_seconds))
            except StoreBusyError:
                return None
            return _prune(store, max_dead, advance)


def hindrance(root: Path) -> str | None:
    """Why the lock of the store at *root* is not enough, as a sentence; None where it is.

    On some file systems a lock holds on one machine only, and a kernel of another one may be writing there.
    """
    system = filesystems.of(root)
    if system is None or not system.locks_are_local:
        return None
    here, silent_since = lives.process_facts(os.getpid()).boot_id, time.time() - _SILENT_SECONDS
    for life in lives.read_all(root):
        if life.ended is None and life.boot_id != here and lives.last_seen(root, life) > silent_since:
            return (
                f"On {system.name} locks hold on one machine only, and a kernel of {life.host} may be writing to "
                f"{root} ({life.notebook}); it counts as gone an hour after its last sign of life."
            )
    return None


def plan(store: Store, max_dead: float | None = None) -> Plan:
    """What `prune` would free now. Locks and writes nothing. Raises StoreError as it does."""
    with atomic.explained("examine", store.root):
        packs = (usage.unnamed if max_dead is None else usage.packs)(store.root, referencing(store))
        folders = (layout.kernels(store.root), layout.index(store.root))
        drafts = [*_plain_files(layout.temporary(store.root)), *chain.from_iterable(map(_orphans, folders))]
    return Plan(
        tuple(use for use in packs if not use.named),
        tuple(drafts),
        tuple(use for use in packs if max_dead is not None and use.living and use.dead_share > max_dead),
    )


def _prune(store: Store, max_dead: float | None, advance: Advance) -> Pruned:
    # A process that was killed inside `forget` may have unlinked without syncing.
    atomic.sync_folder(layout.snapshots(store.root))
    planned = plan(store, max_dead)
    freed = sum(
        _told(advance, _remove(store.root, path)) for path in [*(use.path for use in planned.dead), *planned.drafts]
    )
    atomic.sync_folder(layout.packs(store.root))
    pins.remove(store.root, store.pins() - {name[11:27] for name in store.catalog.names()})
    store.catalog.compact()
    repacked, left = _repack(planned.sparse, advance)
    return Pruned(len(planned.dead), freed + sum(repacked), len(repacked), left)


def _repack(sparse: tuple[PackUse, ...], advance: Advance) -> tuple[list[int], dict[str, int]]:
    """Give dead bytes of packs back; return how many of each, and how many packs keep theirs for which reason."""
    freed: list[int] = []
    left: dict[str, int] = {}
    for use in sparse:
        # The drafts are gone by now, so a second name is somebody else's: a backup made of hard links.
        if use.path.lstat().st_nlink > 1:
            reason = "has a second name (a backup by hard links?), in which bytes would be lost"
        elif holes.are_refused(use.path.lstat()):
            reason = "was written by another member of the group, who can repack it"
        elif not holes.punch(use.path, use.dead()):
            reason = "is on a file system that cannot make holes"
        else:
            freed.append(_told(advance, use.disk_bytes - usage.disk_bytes(use.path.lstat())))
            continue
        left[reason] = left.get(reason, 0) + 1
    return freed, left


def _told(advance: Advance, freed_bytes: int) -> int:
    advance(freed_bytes)
    return freed_bytes


def referencing(store: Store) -> list[Snapshot]:
    """The snapshots of every manifest, of whoever signed it. Raises StoreError when one cannot be read."""
    ours, others = store.everything()
    return [*ours, *(_foreign(store, item.name, item.error) for item in others)]


def _foreign(store: Store, name: str, error: RescueError) -> Snapshot:
    """Another key's snapshot, if it can be parsed. What our own key signed and does not fit may name any pack."""
    try:
        if not isinstance(error, UntrustedError):
            raise error
        return trust.described(store.catalog.path(name), store.catalog.body(name)[0].body)
    except (RescueError, FileNotFoundError) as reason:
        raise StoreError(
            f"Nothing was pruned: {store.catalog.path(name)} cannot be read, and it may need any pack ({reason}) "
            f"To give it up: ipyrescue forget {name[11:27]}"
        ) from reason


def _plain_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False))


def _orphans(folder: Path) -> Iterator[Path]:
    """What was replacing a file and never finished; life records are written without a lock, so age must tell.

    The folder has changed no earlier than the newest of them was made, by the clock that gave that its time.
    """
    if not folder.is_dir():
        return iter(())
    oldest = min(time.time(), _changed(folder)) - _ORPHAN_SECONDS
    return (path for path in _plain_files(folder) if path.name.startswith(".") and _changed(path) < oldest)


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _size_bytes(path: Path) -> int:
    try:
        return usage.disk_bytes(path.lstat())
    except FileNotFoundError:
        return 0


def _remove(root: Path, path: Path) -> int:
    """Unlink and return the bytes freed."""
    size_bytes = _size_bytes(path)
    atomic.unlink_below(root, path)
    return size_bytes
