"""Snapshots to a list of what is damaged in them, by reading every byte. Mends nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
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


def verify(store: Store, snapshot: Snapshot, only: AbstractSet[str] | None = None) -> list[Damage]:
    """Read and hash every blob of *snapshot*, or those in the packs *only*.

    Good ones are remembered as read back while their pack stays as it is.
    """
    try:
        wanted = [blob for blob in snapshot.blobs if only is None or blob.pack in only]
    except CorruptError as error:
        return [Damage((), "", str(error))]
    distinct = list({(blob.hash, blob.pack, blob.offset): blob for blob in wanted}.values())
    with PackReader(store.root, direct=True) as reader:
        reasons = blobs.in_order(lambda blob: _reason(store, reader, blob), distinct, blobs.READERS)
        return [
            damage_of(snapshot, blob, reason)
            for blob, reason in zip(distinct, reasons, strict=True)
            if reason is not None
        ]


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
    found = tuple((snapshot, tuple(verify(store, snapshot))) for snapshot in store.snapshots())
    return Report(found, tuple(store.unreadable()))


def _reason(store: Store, reader: PackReader, blob: BlobRef) -> str | None:
    try:
        blobs.check(reader, blob, store.proofs)
    except StoreError as error:
        return str(error)
    return None


def _groups(snapshot: Snapshot, blob: BlobRef) -> tuple[tuple[str, ...], ...]:
    indices = {index for index, other in enumerate(snapshot.blobs) if other.hash == blob.hash}
    return tuple(group.names for group in snapshot.groups if indices & _used(group))


def _used(group: Group) -> set[int]:
    return set(group.stream.blobs).union(*(buffer.blobs for buffer in group.buffers))
