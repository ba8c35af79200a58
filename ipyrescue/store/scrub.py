"""Scrubbing: what is kept is read again, a little at a time, before it is needed. Mends nothing.

ZFS and Ceph do it to find rot while there is still another copy; here, while the session still lives that can be saved
again. What was read when stands in a record beside the snapshots: `scrub.json`, unsigned and never trusted. It says
what is to be read next and what a person is shown, and its damage makes retention keep more; that a snapshot is whole
counts, where something may go for it, only if this process has had it read.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.manifest import BlobRef, Snapshot
from ipyrescue.store import atomic, blobs, layout, lock
from ipyrescue.store.pack import PackReader, Signature
from ipyrescue.store.store import Store
from ipyrescue.store.verify import Damage, damage_of

RECORD_LIMIT_BYTES = 4 << 20
PORTION_BYTES = 4 << 20
"""So much is read between two moments at which a scrub may be held up."""

_LOCK_SECONDS = 1.0
_NAMES = 20
_NAME_CHARACTERS = 100
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Finding:
    """Damage of one snapshot: when it was found, what it costs, and in which pack, as that was then (None: missing)."""

    at: float
    names: tuple[str, ...]
    pack: str
    signature: Signature | None


@dataclass(frozen=True)
class Record:
    """What is known of the snapshots of a store by their ids: since when each was read whole, and what is damaged."""

    verified: Mapping[str, float] = field(default_factory=dict)
    damaged: Mapping[str, Finding] = field(default_factory=dict)


def read(root: Path) -> Record:
    """The record of the store at *root*, without damage of packs that have changed since it was found.

    An empty one where there is none, or none that can be read.
    """
    try:
        found = _record(json.loads(atomic.read_file(layout.scrub_file(root), RECORD_LIMIT_BYTES)))
    except (OSError, StoreError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Record()
    return replace(found, damaged={key: bad for key, bad in found.damaged.items() if stands(root, bad)})


def stands(root: Path, found: Finding) -> bool:
    """Whether damage may still be there: its pack is what it was when that was found."""
    return blobs.pack_signature(root, found.pack) == found.signature


def note(root: Path, there: AbstractSet[str], snapshot_id: str, found: float | Finding) -> None:
    """Write down what was found of one snapshot: since when it was read whole, or its damage. Raises StoreError.

    *there* are the ids of all snapshots; of others nothing is kept. Two who write at once may lose one entry of the
    two, which is read again then.
    """
    before = read(root)
    verified = {key: at for key, at in before.verified.items() if key in there and key != snapshot_id}
    bad = {key: damage for key, damage in before.damaged.items() if key in there and key != snapshot_id}
    if isinstance(found, Finding):
        bad[snapshot_id] = found
    else:
        verified[snapshot_id] = found
    data = json.dumps({"verified": verified, "damaged": {key: vars(damage) for key, damage in bad.items()}}).encode()
    layout.check_writable(root)
    with (
        lock.shared(root, _LOCK_SECONDS),
        atomic.explained("write", layout.scrub_file(root)),
        atomic.Draft(layout.temporary(root)) as draft,
    ):
        atomic.write_all(draft.fd, data)
        atomic.rename(draft.path, layout.scrub_file(root))


def due(
    snapshots: Sequence[Snapshot], record: Record, *, first: str, every_seconds: float, now: float
) -> list[Snapshot]:
    """The snapshots to be read, in order: those that never were, newest first, then the ones read longest ago.

    Those of the notebook *first* come before all others. What was read within *every_seconds* is left alone; a moment
    that lies ahead of this clock counts as none.
    """
    wanted = []
    for snapshot in snapshots:
        bad = record.damaged.get(snapshot.id)
        at = bad.at if bad is not None else record.verified.get(snapshot.id, 0.0)
        at = at if at <= now else 0.0
        if now - at >= every_seconds:
            wanted.append((snapshot.notebook != first, at, -snapshot.sequence, snapshot.id, snapshot))
    return [entry[-1] for entry in sorted(wanted, key=lambda entry: entry[:-1])]


class Looked(NamedTuple):
    """What came of reading some blobs of one pack: what the pack was then, and for each blob what is wrong with it."""

    signature: Signature | None
    reasons: tuple[str | None, ...]


Look = Callable[[Sequence[BlobRef]], "Looked | None"]


def look(root: Path, some: Sequence[BlobRef]) -> Looked:
    """Read blobs of one pack past the page cache, or leaving no page in it, and compare them with their hashes."""
    proofs = blobs.Proofs()
    with PackReader(root, direct=True) as reader:
        reasons = tuple(_reason(reader, blob, proofs) for blob in some)
        try:
            return Looked(reader.signature(some[0].pack), reasons)
        except StoreError:
            return Looked(None, reasons)


def _reason(reader: PackReader, blob: BlobRef, proofs: blobs.Proofs) -> str | None:
    try:
        blobs.check(reader, blob, proofs)
    except StoreError as error:
        return str(error)
    return None


def read_back(store: Store, snapshot: Snapshot, look: Look, *, older_than: float) -> list[Damage] | None:
    """Have every blob of *snapshot* read that this process has not read since *older_than*; return what is damaged.

    *look* is given blobs of one pack, a few MB at a time, and waits as long as it likes; where it returns None nothing
    more is read, and None returned. Damage is looked at twice, with the file opened anew.
    """
    damage = []
    for some in _portions(store, snapshot, older_than):
        looked = look(some)
        if looked is None:
            return None
        for blob, reason in zip(some, looked.reasons, strict=True):
            if reason is None and looked.signature is not None:
                store.proofs.add(blob, looked.signature, read=True)
            elif (again := look([blob])) is None:
                return None
            elif again.reasons[0] is not None:
                store.proofs.withdraw(blob)
                damage.append(damage_of(snapshot, blob, again.reasons[0]))
    return damage


def _portions(store: Store, snapshot: Snapshot, older_than: float) -> Iterator[list[BlobRef]]:
    """The blobs to be read, each once, in the order in which they stand on the disk."""
    distinct = {(blob.pack, blob.offset, blob.hash): blob for blob in snapshot.blobs if blob.size_bytes}
    for pack, members in groupby([distinct[place] for place in sorted(distinct)], key=lambda blob: blob.pack):
        signature = blobs.pack_signature(store.root, pack)
        some: list[BlobRef] = []
        for blob in members:
            if (store.proofs.read_at(blob, signature) or 0.0) <= older_than:
                some.append(blob)
            if sum(b.size_bytes for b in some) >= PORTION_BYTES:
                yield some
                some = []
        if some:
            yield some


def sharing(snapshots: Sequence[Snapshot], damage: Sequence[Damage]) -> list[tuple[Snapshot, list[Damage]]]:
    """All of *snapshots* that hold a blob that was just found damaged, and what each of them loses with it."""
    reasons, sharers = {found.blob: found.reason for found in damage}, []
    for snapshot in snapshots if damage else ():
        with contextlib.suppress(CorruptError):  # its manifest is damaged too, which says so itself
            bad = {blob.hash: blob for blob in snapshot.blobs if blob.hash in reasons}
            sharers.append((snapshot, [damage_of(snapshot, blob, reasons[h]) for h, blob in bad.items()]))
    return [(snapshot, lost) for snapshot, lost in sharers if lost]


def finding(root: Path, snapshot: Snapshot, damage: Sequence[Damage], now: float) -> Finding:
    """What to write down of damage that was just found."""
    names = dict.fromkeys(name[:_NAME_CHARACTERS] for d in damage for group in d.groups for name in group)
    bad = {d.blob for d in damage}
    pack = next(blob.pack for blob in snapshot.blobs if blob.hash in bad)
    return Finding(now, tuple(names)[:_NAMES], pack, blobs.pack_signature(root, pack))


def _record(fields: Any) -> Record:
    verified = {_checked(key): float(at) for key, at in fields["verified"].items() if 0 <= at <= 1e12}
    return Record(verified, {_checked(key): _finding(found) for key, found in fields["damaged"].items()})


def _finding(fields: Any) -> Finding:
    names = tuple(str(name)[:_NAME_CHARACTERS] for name in fields["names"][:_NAMES])
    signature = fields["signature"]
    if signature is not None:
        device, inode, size, mtime, ctime = map(int, signature)
        signature = (device, inode, size, mtime, ctime)
    return Finding(float(fields["at"]), names, _checked(fields["pack"]), signature)


def _checked(identifier: str) -> str:
    if not _ID.fullmatch(identifier):
        raise ValueError("not an id")
    return identifier


@dataclass(frozen=True)
class Tally:
    """How far the reading has come with some snapshots: the one *newest* and the one *oldest* read, with the moments.

    *unread* were never read whole, *damaged* are those that cannot be.
    """

    total: int
    unread: int
    newest: tuple[str, float] | None
    oldest: tuple[str, float] | None
    damaged: tuple[tuple[str, Finding], ...] = ()


def tally(root: Path, snapshots: Sequence[Snapshot], record: Record | None = None) -> Tally:
    """Count, of *snapshots*, newest first: the newest snapshot that was read whole, and the one read longest ago."""
    known = record or read(root)
    bad = known.damaged
    found = tuple((s.id, bad[s.id]) for s in snapshots if s.id in bad)
    read_whole = [(s.id, known.verified[s.id]) for s in snapshots if s.id in known.verified and s.id not in bad]
    return Tally(
        total=len(snapshots),
        unread=len(snapshots) - len(read_whole) - len(found),
        newest=read_whole[0] if read_whole else None,
        oldest=min(read_whole, key=lambda entry: entry[1]) if read_whole else None,
        damaged=found,
    )
