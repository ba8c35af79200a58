"""What the writer does after a snapshot: forget what retention lets go of, then free what nobody references."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from ipyrescue.manifest import Snapshot
from ipyrescue.store import atomic, layout, scrub
from ipyrescue.store.lives import FROM_OUTSIDE, Life, is_answer, last_seen, read_all, state
from ipyrescue.store.prune import prune
from ipyrescue.store.retention import FLOOR, Policy, Retention, kept_because, to_forget, to_verify
from ipyrescue.store.store import Store
from ipyrescue.store.usage import disk_bytes

_MOSTLY_DEAD = 0.5
_BURY_SECONDS = 7 * 86_400.0


def tidy(store: Store, notebook: str, retention: Retention, *, current: str) -> tuple[Snapshot, ...]:
    """Apply *retention* to one notebook's snapshots and prune; return those that were forgotten.

    *current* is the incarnation that is writing. What must be verified by reading before something older may go
    is verified here. Raises `StoreError`. Where packs take more than they may, those that are mostly dead are freed of
    that: one small thing that lives on would keep all that was forgotten of its pack.
    """
    forgotten = forget_by(store, notebook, retention, current=current)
    limit = retention.max_size_bytes
    prune(store, max_dead=_MOSTLY_DEAD if limit is not None and used_bytes(store.root) > limit else None)
    bury(store)
    return forgotten


def forget_by(store: Store, notebook: str, retention: Retention, *, current: str) -> tuple[Snapshot, ...]:
    """Forget what *retention* drops, without freeing its bytes."""
    snapshots = store.snapshots(notebook)
    situation: dict[str, Any] = {
        "current": current,
        "unrestored": unfinished(store.root, current),
        "now": datetime.now(timezone.utc),
    }

    def unread(verified: frozenset[str], damaged: frozenset[str]) -> tuple[Snapshot, ...]:
        pinned = store.pins()
        return to_verify(snapshots, retention, **situation, pinned=pinned, verified=verified, damaged=damaged)

    verified = _verify(store, snapshots, unread)
    # Reading takes long enough for somebody to pin one.
    dropped = to_forget(snapshots, retention, **situation, pinned=store.pins(), verified=verified)
    for snapshot in dropped:
        store.forget(snapshot.id)
    return dropped


def _verify(
    store: Store,
    snapshots: list[Snapshot],
    unread: Callable[[frozenset[str], frozenset[str]], tuple[Snapshot, ...]],
) -> frozenset[str]:
    """Read what *unread* asks for until that is nothing new; return the ids of what is whole.

    A damaged one counts for nothing, whoever found it, so the next older one is asked for.
    """
    damaged, asked = frozenset(scrub.read(store.root).damaged), frozenset[str]()
    while True:
        verified = _verified(store, snapshots) - damaged
        wanted = [snapshot for snapshot in unread(verified, damaged) if snapshot.id not in asked]
        if not wanted:
            return verified
        asked |= {snapshot.id for snapshot in wanted}
        damaged |= {snapshot.id for snapshot in wanted if store.verify(snapshot)}


def verify_for(
    store: Store,
    snapshots: list[Snapshot],
    going: Callable[[frozenset[str]], tuple[Snapshot, ...]],
    *,
    reads: bool,
) -> frozenset[str]:
    """Verify what must be so that what *going* says, of verified ones, may go; return the ids of what is whole.

    Unless it *reads*, only what is known already counts.
    """

    def unread(verified: frozenset[str], damaged: frozenset[str]) -> tuple[Snapshot, ...]:
        whole = [s for s in snapshots if s.consistent and s.id not in damaged]
        enough = not reads or going(verified) == going(frozenset(s.id for s in whole))
        return () if enough else tuple(s for s in whole[:FLOOR] if s.id not in verified)

    return _verify(store, snapshots, unread)


def sort_out(store: Store, notebook: str, policy: Policy) -> dict[str, tuple[str, ...]]:
    """Why each snapshot of *notebook* stays under *policy*, by id, newest first; those without a reason may go.

    Where some may, the newest are read until two were found whole. Forgets nothing. Raises `StoreError`.
    """
    snapshots = store.snapshots(notebook)
    unrestored, pinned = unfinished(store.root, ""), store.pins()
    believed = frozenset(s.id for s in snapshots if s.consistent)
    hoped = kept_because(snapshots, policy, unrestored=unrestored, pinned=pinned, verified=believed)
    if all(hoped.values()):
        return hoped
    verified = _read_until_two_are_whole(store, snapshots)
    return kept_because(snapshots, policy, unrestored=unrestored, pinned=store.pins(), verified=verified)


def _read_until_two_are_whole(store: Store, newest_first: Iterable[Snapshot]) -> frozenset[str]:
    whole: set[str] = set()
    for snapshot in newest_first:
        if len(whole) < FLOOR and snapshot.consistent and (store.verified(snapshot) or not store.verify(snapshot)):
            whole.add(snapshot.id)
    return frozenset(whole)


def awaiting_restore(root: Path, current: str) -> frozenset[str]:
    """The incarnations that died in the store at *root* and were neither restored nor dismissed.

    What died before its user went on from later on waits no more.
    """
    known = read_all(root)
    answered = {life.notebook: number for number, life in enumerate(known) if is_answer(life)}
    return frozenset(
        life.incarnation
        for number, life in enumerate(known)
        if life.incarnation != current
        and number > answered.get(life.notebook, -1)
        and life.restored is None
        and not life.dismissed
        and state(life, last_seen_at=last_seen(root, life)) == "died"
    )


class Attempt(NamedTuple):
    """A way to restore: which snapshot, and the device that its tensors are forced to."""

    snapshot: str
    device: str | None = None


def attempts(root: Path) -> frozenset[Attempt]:
    """The restores in whose midst a kernel of the store at *root* died, unless something outside ended it."""
    return frozenset(
        Attempt(life.restoring, life.restoring_device)
        for life in read_all(root)
        if life.restoring is not None
        and life.ended is None
        and (life.cause is None or life.cause.kind not in FROM_OUTSIDE)
        and state(life, last_seen_at=last_seen(root, life)) == "died"
    )


def unfinished(root: Path, current: str) -> frozenset[str]:
    """The other incarnations that did not end cleanly, as far as one can tell, and were not restored or dismissed.

    One that may still live counts as well: what it saved last is all that there will be of it.
    """
    return frozenset(
        life.incarnation
        for life in read_all(root)
        if life.incarnation != current and life.ended is None and life.restored is None and not life.dismissed
    )


def used_bytes(root: Path) -> int:
    """What all packs of the store at *root* take on disk. A pack that the writer prunes meanwhile counts nothing."""
    return sum(map(_size_bytes, layout.packs(root).glob("*.pack")))


def _size_bytes(path: Path) -> int:
    try:
        return disk_bytes(path.lstat())
    except FileNotFoundError:
        return 0


def bury(store: Store) -> None:
    """Remove the records of lives that are over, when a week has passed and no snapshot of theirs is left."""
    remembered = {snapshot.incarnation for snapshot in store.snapshots()}
    _bury(store.root, (life for life in read_all(store.root) if life.incarnation not in remembered))
    _sweep(store.root)


def bury_unsaved(root: Path) -> None:
    """The same for those who never saved anything: where nobody makes snapshots, nobody else would.

    Raises OSError, StoreError.
    """
    _bury(root, (life for life in read_all(root) if life.saved_at is None))


def _bury(root: Path, lives: Iterable[Life]) -> None:
    for life in lives:
        over = life.ended is not None or life.restored is not None or life.dismissed
        if over and time.time() - last_seen(root, life) > _BURY_SECONDS:
            _remove(root, layout.life_path(root, life.incarnation))


def _sweep(root: Path) -> None:
    """Remove what dead kernels left beside their records: traces without one or without a word, requests, answers."""
    known = {life.incarnation: life for life in read_all(root)}
    for path, incarnation in layout.traces(root):
        life = known.get(incarnation)
        with contextlib.suppress(OSError):
            if life is None or (path.lstat().st_size == 0 and _is_over(root, life)):
                _remove(root, path)
    for path, incarnation in layout.mail(root):
        life = known.get(incarnation)
        with contextlib.suppress(OSError):
            if life is None or _is_over(root, life):
                _remove(root, path)


def _remove(root: Path, path: Path) -> None:
    """Unlink what stands in kernels/, where that may be written to. Raises OSError, StoreError."""
    layout.check_folder_writable(path.parent)
    atomic.unlink_below(root, path)


def _is_over(root: Path, life: Life) -> bool:
    return state(life, last_seen_at=last_seen(root, life)) in ("died", "ended")


def _verified(store: Store, snapshots: Iterable[Snapshot]) -> frozenset[str]:
    return frozenset(snapshot.id for snapshot in snapshots if store.verified(snapshot))
