"""Room for the next snapshot: what it needs and what is free, into what goes for it; said before, then done.

Two things bound it: what is free on the disk, and what snapshots may take (`max_size`, or half of what is free). Older
ones go for either, never so that fewer than two verified ones stay. Where that is not enough nothing goes: with a full
disk no snapshot is made then; that snapshots take more than they may is what a promise costs.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipyrescue.manifest import Snapshot
from ipyrescue.settings import format_size
from ipyrescue.store import scrub
from ipyrescue.store.prune import prune
from ipyrescue.store.retention import Retention, expected_bytes, taken_bytes, to_make_room
from ipyrescue.store.store import Store
from ipyrescue.store.upkeep import unfinished, verify_for
from ipyrescue.wording import count

_MOST_DEAD = 0.1
_MOST_SNAPSHOTS = 500


@dataclass(frozen=True)
class Outlook:
    """The next snapshot needs *needed_bytes* and finds *free_bytes* on the disk, or, perhaps below 0, of *limit_bytes*.

    *going* are the ids of older ones that go for it, oldest first; None where not enough may go.
    """

    needed_bytes: int
    free_bytes: int
    limit_bytes: int | None
    going: tuple[str, ...] | None

    def __str__(self) -> str:
        whose = f"left of the {format_size(self.limit_bytes)} that snapshots may take" if self.limit_bytes else "free"
        needed, free = format_size(self.needed_bytes), format_size(max(0, self.free_bytes))
        return f"The next snapshot needs about {needed}, {free} are {whose}: {self._what_goes()}."

    def _what_goes(self) -> str:
        if self.going is not None:
            return f"{count(len(self.going), 'older one')} will go first"
        if self.limit_bytes is None:
            return "nothing older may go, since two verified ones stay, so saving stops unless it turns out smaller"
        return "nothing older may go, since two verified ones stay, so they will take more"


def outlook(store: Store, notebook: str, retention: Retention, *, free_bytes: int, current: str) -> Outlook | None:
    """What the next snapshot of the kernel *current* finds; None where there is room. Reads no pack.

    Of a notebook with very many snapshots nothing is foreseen: it would cost the kernel too much. Raises StoreError.
    """
    snapshots = store.snapshots(notebook)
    if len(snapshots) > _MOST_SNAPSHOTS:
        return None
    needed = expected_bytes(snapshots, current)
    bound = _tighter(snapshots, retention, needed, free_bytes)
    if bound is None:
        return None
    hoped = frozenset(s.id for s in snapshots if s.consistent) - scrub.read(store.root).damaged.keys()
    found = to_make_room(
        snapshots,
        needed - bound[0],
        current=current,
        unrestored=unfinished(store.root, current),
        pinned=store.pins(),
        verified=hoped,
    )
    return Outlook(needed, *bound, tuple(s.id for s in found) if found is not None else None)


def make_room(
    store: Store, notebook: str, retention: Retention, *, most_bytes: int, free_bytes: int, current: str
) -> tuple[Snapshot, ...]:
    """Do what the outlook said, before a snapshot of at most *most_bytes* is written; return what went.

    For a full disk what must be verified is read; for a mere limit only what is known already counts, since thinning
    can wait until the snapshot is safe. Raises StoreError.
    """
    snapshots = store.snapshots(notebook)
    needed = min(most_bytes, expected_bytes(snapshots, current))
    bound = _tighter(snapshots, retention, needed, free_bytes)
    if bound is None:
        return ()
    unrestored = unfinished(store.root, current)

    def going(verified: frozenset[str]) -> tuple[Snapshot, ...]:
        lacking, pinned = needed - bound[0], store.pins()
        return (
            to_make_room(snapshots, lacking, current=current, unrestored=unrestored, pinned=pinned, verified=verified)
            or ()
        )

    dropped = going(verify_for(store, snapshots, going, reads=bound[1] is None))
    for snapshot in dropped:
        store.forget(snapshot.id)
    if dropped:
        # What was forgotten may share its pack with small things that live: without holes nothing would be freed.
        prune(store, max_dead=_MOST_DEAD)
    return dropped


def _tighter(
    snapshots: list[Snapshot], retention: Retention, needed_bytes: int, free_bytes: int
) -> tuple[int, int | None] | None:
    """What is left for the next snapshot by the tighter of the two bounds, with the limit if it is that one."""
    limit = retention.max_size_bytes
    if free_bytes < needed_bytes:
        return free_bytes, None
    # Seldom so many that what they share must be known.
    if limit is None or sum(s.size_bytes for s in snapshots) + needed_bytes <= limit:
        return None
    left = limit - taken_bytes(snapshots)
    return (left, limit) if left < needed_bytes else None
