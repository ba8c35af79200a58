"""Which snapshots stay: the snapshots of one notebook to those that may be forgotten. Pure: no files, no clock.

What is wanted (`keep` the last, one an hour, one a day, a size) yields to what is promised: nothing goes unless two
newer snapshots were verified by reading, and the newest good one of a dead kernel stays until it was restored or
forgotten by hand, as does every label and every pin. A pin adds to what stays and costs no other its place: `keep` and
the hours count as if there were none; only a size limit counts its bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache

from ipyrescue.manifest import Snapshot

FLOOR = 2
"""So many newer snapshots must be verified before one goes."""

_LAST = 3


@dataclass(frozen=True)
class Retention:
    """How many stay: the last *keep* of a kernel, one for each of so many hours and days, at most so many bytes."""

    keep: int = 10
    hourly: int = 24
    daily: int = 7
    max_size_bytes: int | None = None


@dataclass(frozen=True)
class Policy:
    """What a person wants kept of a notebook, in the words of `restic forget`.

    The *last* so many, and the newest of each of the last so many hours and days (UTC) that have one: of consistent
    ones, whichever kernel made them.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0


def kept_because(
    snapshots: Sequence[Snapshot],
    policy: Policy,
    *,
    unrestored: AbstractSet[str],
    pinned: AbstractSet[str],
    verified: AbstractSet[str],
) -> dict[str, tuple[str, ...]]:
    """Why each snapshot of one notebook stays, by id, newest first; one without a reason may go.

    *unrestored* are the incarnations that live, or died and were not restored; the rest is as in `to_forget`.
    """
    newest_first = _ordered(snapshots)
    unrestored_good = {i for theirs in _by_kernel(newest_first, unrestored) for i in _newest_good(theirs)}
    reasons = (
        ("last", {s.id for s in _consistent(newest_first)[: policy.last]}),
        ("hourly", _newest_of_each(newest_first, "%Y-%m-%d %H", policy.hourly)),
        ("daily", _newest_of_each(newest_first, "%Y-%m-%d", policy.daily)),
        ("label", {s.id for s in newest_first if s.label is not None}),
        ("pinned", pinned),
        ("newest good one", _newest_good(newest_first)),
        ("newest good one of a kernel not restored yet", unrestored_good),
        ("newest interrupted one of a kernel", _interrupted(newest_first, policy.last, unrestored)),
        ("fewer than two newer ones were verified", _floor(newest_first, verified)),
    )
    return {s.id: tuple(reason for reason, ids in reasons if s.id in ids) for s in newest_first}


def _newest_of_each(newest_first: list[Snapshot], period: str, count: int) -> set[str]:
    """The newest consistent one of each of the last *count* periods that have one, by their own clocks."""
    newest: dict[str, str] = {}
    for snapshot in _consistent(newest_first):
        made = _time(snapshot.created)
        if made is not None:
            newest.setdefault(made.strftime(period), snapshot.id)
    return set(list(newest.values())[:count])


def to_forget(
    snapshots: Sequence[Snapshot],
    retention: Retention,
    *,
    current: str,
    unrestored: AbstractSet[str],
    pinned: AbstractSet[str],
    verified: AbstractSet[str],
    now: datetime,
) -> tuple[Snapshot, ...]:
    """The snapshots that may go now, oldest first.

    *snapshots* are all of one notebook; *current* is the living incarnation, *unrestored* are those that died and
    were not restored yet; every other one is finished. *pinned* are the ids of snapshots that go only by hand,
    *verified* those of snapshots read back whole.
    """
    newest_first = _ordered(snapshots)
    promised = _promised(newest_first, current, unrestored, pinned) | _floor(newest_first, verified)
    wanted = _wanted(newest_first, retention, current, unrestored, now)
    kept = _shrunk(newest_first, wanted | promised, promised, retention.max_size_bytes)
    return tuple(snapshot for snapshot in reversed(newest_first) if snapshot.id not in kept)


def to_make_room(
    snapshots: Sequence[Snapshot],
    lacking_bytes: int,
    *,
    current: str,
    unrestored: AbstractSet[str],
    pinned: AbstractSet[str],
    verified: AbstractSet[str],
) -> tuple[Snapshot, ...] | None:
    """The oldest that may go so that so many bytes become free, oldest first; None where not so many can.

    What is wanted (`keep`, hours, days) yields; what is promised does not. The rest is as in `to_forget`.
    """
    newest_first = _ordered(snapshots)
    promised = _promised(newest_first, current, unrestored, pinned) | _floor(newest_first, verified)
    allowed_bytes = taken_bytes(newest_first) - lacking_bytes
    kept = _shrunk(newest_first, {s.id for s in newest_first}, promised, allowed_bytes)
    if taken_bytes(s for s in newest_first if s.id in kept) > allowed_bytes:
        return None
    return tuple(s for s in reversed(newest_first) if s.id not in kept)


def taken_bytes(snapshots: Iterable[Snapshot]) -> int:
    """What the blobs of *snapshots* take, each counted once."""
    return sum({blob.hash: blob.size_bytes for s in snapshots for blob in s.blobs}.values())


def expected_bytes(snapshots: Sequence[Snapshot], current: str) -> int:
    """About how many new bytes the next snapshot of the kernel *current* will bring: the most of its last three.

    A kernel's first one brings all that there is, so it counts only while there is no other. 0: nobody knows.
    """
    newest_first = _ordered(snapshots)
    mine = _of(newest_first, current) or newest_first[:1]
    return max((s.new_bytes for s in (mine[:-1] or mine)[:_LAST]), default=0)


def to_verify(
    snapshots: Sequence[Snapshot],
    retention: Retention,
    *,
    current: str,
    unrestored: AbstractSet[str],
    pinned: AbstractSet[str],
    verified: AbstractSet[str],
    now: datetime,
    damaged: AbstractSet[str] = frozenset(),
) -> tuple[Snapshot, ...]:
    """The snapshots to verify so that what is wanted gone may go: of the newest two whole ones, those not yet read."""
    whole = [s for s in _ordered(snapshots) if s.consistent and s.id not in damaged]
    believed = frozenset(s.id for s in whole)

    def forgotten(trusted: AbstractSet[str]) -> tuple[Snapshot, ...]:
        return to_forget(
            snapshots, retention, current=current, unrestored=unrestored, pinned=pinned, verified=trusted, now=now
        )

    if forgotten(believed) == forgotten(verified):
        return ()
    return tuple(s for s in whole[:FLOOR] if s.id not in verified)


def _ordered(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    return sorted(snapshots, key=lambda s: (s.sequence, s.id), reverse=True)


def _floor(newest_first: list[Snapshot], verified: AbstractSet[str]) -> set[str]:
    """Those with fewer than two newer consistent snapshots that were verified."""
    kept, seen = set(), 0
    for snapshot in newest_first:
        if seen < FLOOR:
            kept.add(snapshot.id)
        seen += snapshot.consistent and snapshot.id in verified
    return kept


def _promised(
    newest_first: list[Snapshot], current: str, unrestored: AbstractSet[str], pinned: AbstractSet[str]
) -> set[str]:
    """Labels, pins, the newest good one of the notebook, of the living kernel and of every dead one not restored."""
    kept = {s.id for s in newest_first if s.label is not None or s.id in pinned}
    kept |= _newest_good(newest_first)
    return kept.union(*map(_newest_good, _by_kernel(newest_first, {current, *unrestored})))


def _wanted(
    newest_first: list[Snapshot], retention: Retention, current: str, unrestored: AbstractSet[str], now: datetime
) -> set[str]:
    """What `keep`, `hourly` and `daily` ask for, size aside."""
    dead = [s.incarnation for s in newest_first if s.incarnation in unrestored and s.incarnation != current]
    wanted: set[str] = set()
    for incarnation in {current, *dead[:1]}:
        consistent = _consistent(_of(newest_first, incarnation))
        wanted |= {s.id for s in consistent[: retention.keep]} | _thinned(consistent, retention, now)
    live = {current, *unrestored}
    wanted |= _thinned(_consistent(s for s in newest_first if s.incarnation not in live), retention, now)
    return wanted | _interrupted(newest_first, retention.keep, live)


def _interrupted(newest_first: list[Snapshot], keep: int, live: AbstractSet[str]) -> set[str]:
    """The newest interrupted one of each incarnation, until *keep* newer consistent ones made it pointless.

    They are counted in its own incarnation; in all of the notebook for one that is finished and makes no more.
    """
    newest: dict[str, str] = {}
    consistent: Counter[str] = Counter()
    for snapshot in newest_first:
        kernel = snapshot.incarnation
        if snapshot.consistent:
            consistent[kernel] += 1
        elif kernel not in newest:
            newer = consistent[kernel] if kernel in live else sum(consistent.values())
            newest[kernel] = snapshot.id if newer < max(1, keep) else ""
    return set(filter(None, newest.values()))


def _thinned(consistent: list[Snapshot], retention: Retention, now: datetime) -> set[str]:
    """The newest of each of the last hours and days, by the calendar in UTC."""
    kept: dict[str, str] = {}
    for snapshot in consistent:
        made = _time(snapshot.created)
        if made is not None and now - made < timedelta(hours=retention.hourly):
            kept.setdefault(made.strftime("hour %Y-%m-%d %H"), snapshot.id)
        if made is not None and now - made < timedelta(days=retention.daily):
            kept.setdefault(made.strftime("day %Y-%m-%d"), snapshot.id)
    return set(kept.values())


def _shrunk(newest_first: list[Snapshot], kept: set[str], promised: set[str], max_size_bytes: int | None) -> set[str]:
    """Give up the oldest that may go until the blobs of the rest, each counted once, fit."""
    if max_size_bytes is None:
        return kept
    if sum(s.size_bytes for s in newest_first if s.id in kept) <= max_size_bytes:
        return kept
    kept, blobs = set(kept), {s.id: {b.hash: b.size_bytes for b in s.blobs} for s in newest_first if s.id in kept}
    users = Counter(digest for held in blobs.values() for digest in held)
    size_bytes = sum({digest: size for held in blobs.values() for digest, size in held.items()}.values())
    for snapshot in reversed(newest_first):
        if size_bytes <= max_size_bytes:
            break
        if snapshot.id in kept and snapshot.id not in promised:
            kept.remove(snapshot.id)
            users.subtract(blobs[snapshot.id].keys())
            size_bytes -= sum(size for digest, size in blobs[snapshot.id].items() if not users[digest])
    return kept


def _newest_good(newest_first: list[Snapshot]) -> set[str]:
    """The newest consistent one's id; an interrupted one's where there is no other."""
    good = _consistent(newest_first) or newest_first
    return {s.id for s in good[:1]}


def _by_kernel(newest_first: list[Snapshot], kernels: AbstractSet[str]) -> Iterable[list[Snapshot]]:
    """Those of each of *kernels*."""
    found: dict[str, list[Snapshot]] = defaultdict(list)
    for snapshot in newest_first:
        if snapshot.incarnation in kernels:
            found[snapshot.incarnation].append(snapshot)
    return found.values()


def _of(newest_first: list[Snapshot], incarnation: str) -> list[Snapshot]:
    return [s for s in newest_first if s.incarnation == incarnation]


def _consistent(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    return [s for s in snapshots if s.consistent]


@lru_cache(1 << 15)
def _time(created: str) -> datetime | None:
    """The moment that *created* names, in UTC, also where it names no zone; None where no calendar has it."""
    try:
        moment = datetime.fromisoformat(created.replace("Z", "+00:00"))
        return moment.astimezone(timezone.utc) if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None
