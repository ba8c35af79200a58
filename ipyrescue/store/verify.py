"""Snapshots to a list of what is damaged in them, by reading every byte. Mends nothing.

A `Reading` is one run over many snapshots: what they share is read once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.manifest import BlobRef, Group, Snapshot
from ipyrescue.store import blobs, layout
from ipyrescue.store.catalog import Unreadable
from ipyrescue.store.pack import PackReader

if TYPE_CHECKING:
    from ipyrescue.store.store import Store


@dataclass(frozen=True)
class Damage:
    """A blob that cannot be read, and the names that are lost with it."""

    groups: tuple[tuple[str, ...], ...]
    blob: str
    reason: str

    def __str__(self) -> str:
        names = ", ".join(name for group in self.groups for name in group)
        return f"{names or 'no variable'}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """What `verify_store` found: damage by snapshot (an empty tuple means whole), and manifests not readable at all."""

    snapshots: tuple[tuple[Snapshot, tuple[Damage, ...]], ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.unreadable and not any(damage for _, damage in self.snapshots)


def verify(store: Store, snapshot: Snapshot) -> list[Damage]:
    """Read and hash every blob of *snapshot*. Good ones are remembered as read back while their pack stays as it is."""
    try:
        distinct = list(_distinct(snapshot).values())
    except CorruptError as error:
        return [Damage((), "", str(error))]
    reasons = _reasons(store, distinct, store.proofs)
    return [damage_of(snapshot, blob, reason) for blob, reason in reasons if reason is not None]


class Reading:
    """One run over snapshots of a store, in which each blob is read once, however many of them need it.

    What it found it keeps for its own length only: about 120 bytes for a good blob.
    """

    def __init__(
        self, store: Store, only: AbstractSet[str] | None = None, advance: Callable[[int], None] = lambda _: None
    ) -> None:
        """Read blobs in the packs *only*, or all; tell *advance* of so many more bytes that were read."""
        self.read_bytes = 0
        self._store, self._only, self._advance = store, only, advance
        self._good: dict[str, set[bytes]] = {}
        self._bad: dict[_Place, str] = {}

    def verify(self, snapshot: Snapshot) -> list[Damage]:
        """Read what no snapshot before this one needed; say what is damaged of all that it needs."""
        try:
            distinct = _distinct(snapshot, self._only)
        except CorruptError as error:
            return [Damage((), "", str(error))]
        self._read([blob for place, blob in distinct.items() if not self._known(place)])
        return [damage_of(snapshot, blob, self._bad[place]) for place, blob in distinct.items() if place in self._bad]

    def _read(self, new: Sequence[BlobRef]) -> None:
        for blob, reason in _reasons(self._store, new, blobs.Proofs()):
            if reason is None:
                self._good.setdefault(blob.pack, set()).add(_digest(_place(blob)))
            else:
                self._bad[_place(blob)] = reason
            self.read_bytes += blob.size_bytes
            self._advance(blob.size_bytes)

    def _known(self, place: _Place) -> bool:
        return _digest(place) in self._good.get(place[1], ()) or place in self._bad


_Place = tuple[str, str, int]
"""Hash, pack and offset of a blob."""


def _place(blob: BlobRef) -> _Place:
    return blob.hash, blob.pack, blob.offset


def _digest(place: _Place) -> bytes:
    """A place within its pack in 16 bytes: its offset, and 8 bytes of its hash."""
    return place[2].to_bytes(8, "big") + bytes.fromhex(place[0][:16])


def _distinct(snapshot: Snapshot, only: AbstractSet[str] | None = None) -> dict[_Place, BlobRef]:
    """Each blob of *snapshot* once, or each in the packs *only*. Raises CorruptError."""
    return {_place(blob): blob for blob in snapshot.blobs if only is None or blob.pack in only}


def damage_of(snapshot: Snapshot, blob: BlobRef, reason: str) -> Damage:
    """What is lost of *snapshot* with one of its blobs."""
    return Damage(_groups(snapshot, blob), blob.hash, reason)


def lengths(root: Path) -> dict[str, int]:
    """The length of every pack that is there, in bytes. Opens none."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(layout.packs(root)) as files:
        for file in files:
            pack = layout.parse_pack_name(file.name)
            with contextlib.suppress(FileNotFoundError):
                found[pack or ""] = file.stat(follow_symlinks=False).st_size
    return found


def incomplete(root: Path, snapshot: Snapshot, lengths_bytes: Mapping[str, int] | None = None) -> CorruptError | None:
    """What is wrong if the packs of *snapshot* are not all there at their full length. Reads no byte of them.

    *lengths_bytes* are those of all packs, where many snapshots are looked at.
    """
    if lengths_bytes is None:
        there = {pack: blobs.pack_signature(root, pack) for pack in snapshot.packs}
        lengths_bytes = {pack: signature[2] for pack, signature in there.items() if signature is not None}
    short = [pack for pack, end in snapshot.packs.items() if lengths_bytes.get(pack, -1) < end]
    for pack in sorted(short):
        what = "was cut short" if pack in lengths_bytes else "is missing"
        return CorruptError(f"Pack {layout.pack_path(root, pack)} {what}.")
    return None


def verify_store(store: Store) -> Report:
    """Verify every snapshot, and name every manifest that is not one."""
    store.read_all()
    reading = Reading(store)
    found = tuple((snapshot, tuple(reading.verify(snapshot))) for snapshot in store.snapshots())
    return Report(found, tuple(store.unreadable()))


def _reasons(store: Store, wanted: Sequence[BlobRef], proofs: blobs.Proofs) -> Iterator[tuple[BlobRef, str | None]]:
    """Read each blob, and say what is wrong with it; good ones are remembered in *proofs*."""
    with PackReader(store.root, direct=True) as reader:
        yield from zip(
            wanted,
            blobs.in_order(lambda blob: _reason(reader, blob, proofs), wanted, blobs.READERS),
            strict=True,
        )


def _reason(reader: PackReader, blob: BlobRef, proofs: blobs.Proofs) -> str | None:
    try:
        blobs.check(reader, blob, proofs)
    except StoreError as error:
        return str(error)
    return None


def _groups(snapshot: Snapshot, blob: BlobRef) -> tuple[tuple[str, ...], ...]:
    indices = {index for index, other in enumerate(snapshot.blobs) if other.hash == blob.hash}
    return tuple(group.names for group in snapshot.groups if indices & _used(group))


def _used(group: Group) -> set[int]:
    return set(group.stream.blobs).union(*(buffer.blobs for buffer in group.buffers))
