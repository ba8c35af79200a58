"""Manifests to what takes the space: by notebook, by name. Pure; opens no pack.

*Logical* bytes are what restores of all snapshots would read, *stored* ones are counted once for the same contents:
the difference is what deduplication saves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ipyrescue.manifest import Buffer, Group, Snapshot

Piece = tuple[str, int, int]
"""A part of a blob: its hash, where the part begins, and where it ends."""


@dataclass(frozen=True)
class Holding:
    """What snapshots hold together. *own_bytes* are stored for them alone."""

    snapshots: int
    logical_bytes: int
    stored_bytes: int
    own_bytes: int

    @property
    def shared_bytes(self) -> int:
        """What they would take more if nothing was stored once for several of them."""
        return self.logical_bytes - self.stored_bytes


@dataclass(frozen=True)
class Held:
    """What one name takes in all snapshots of a notebook: a tensor by its dotted name, or the rest of a group.

    *contents* is how many different ones there are; what several have in common is counted once.
    """

    notebook: str
    name: str
    stored_bytes: int
    contents: int


def by_notebook(snapshots: Iterable[Snapshot]) -> dict[str, Holding]:
    """What the snapshots of each notebook hold, by its name."""
    found: dict[str, list[Snapshot]] = defaultdict(list)
    for snapshot in snapshots:
        found[snapshot.notebook].append(snapshot)
    blobs = {notebook: _blobs(theirs) for notebook, theirs in found.items()}
    users = Counter(digest for held in blobs.values() for digest in held)
    return {
        notebook: Holding(
            len(theirs),
            sum(snapshot.size_bytes for snapshot in theirs),
            sum(blobs[notebook].values()),
            sum(size for digest, size in blobs[notebook].items() if users[digest] == 1),
        )
        for notebook, theirs in sorted(found.items())
    }


def in_all(snapshots: Sequence[Snapshot]) -> Holding:
    """What all of them hold together."""
    stored = sum(_blobs(snapshots).values())
    return Holding(len(snapshots), sum(snapshot.size_bytes for snapshot in snapshots), stored, stored)


def largest(snapshots: Iterable[Snapshot]) -> list[Held]:
    """What each name takes, the largest first. Bytes that two names refer to count for both."""
    contents: dict[tuple[str, str], set[tuple[Piece, ...]]] = defaultdict(set)
    for snapshot in snapshots:
        for group in snapshot.groups:
            together: dict[str, tuple[Piece, ...]] = defaultdict(tuple)
            for name, pieces in _of_group(snapshot, group):
                together[name] += pieces
            for name, pieces in together.items():
                contents[snapshot.notebook, name].add(pieces)
    found = [
        Held(notebook, name, _size_bytes(different), len(different)) for (notebook, name), different in contents.items()
    ]
    return sorted(found, key=lambda held: (-held.stored_bytes, held.notebook, held.name))


def _blobs(snapshots: Iterable[Snapshot]) -> dict[str, int]:
    return {blob.hash: blob.size_bytes for snapshot in snapshots for blob in snapshot.blobs}


def _of_group(snapshot: Snapshot, group: Group) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """The named tensors of a group, then all else of it under the group's names."""
    named = {tensor.storage for tensor in group.tensors if tensor.name}
    for tensor in group.tensors:
        if tensor.name:
            yield tensor.name, _pieces_of_storage(snapshot, group, tensor.storage)
    rest = [piece for i in group.stream.blobs for piece in _pieces(snapshot, Buffer((i,), 0, _size(snapshot, i)))]
    for index in range(len(group.storages)):
        if index not in named:
            rest += _pieces_of_storage(snapshot, group, index)
    yield ", ".join(group.names) or f"({group.kind})", tuple(rest)


def _pieces_of_storage(snapshot: Snapshot, group: Group, index: int) -> tuple[Piece, ...]:
    storage = group.storages[index]
    buffer = group.buffers[storage.buffer]
    return _pieces(snapshot, Buffer(buffer.blobs, buffer.offset + storage.offset, storage.size_bytes))


def _pieces(snapshot: Snapshot, part: Buffer) -> tuple[Piece, ...]:
    """Where *part* of its blobs joined stands in each of them."""
    sizes = [_size(snapshot, index) for index in part.blobs]
    starts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
    pieces = []
    for index, start, size in zip(part.blobs, starts, sizes, strict=True):
        first, last = max(part.offset - start, 0), min(part.offset + part.size_bytes - start, size)
        if first < last:
            pieces.append((snapshot.blobs[index].hash, first, last))
    return tuple(pieces)


def _size(snapshot: Snapshot, index: int) -> int:
    return snapshot.blobs[index].size_bytes


def _size_bytes(contents: Iterable[tuple[Piece, ...]]) -> int:
    return sum(end - start for _, start, end in {piece for pieces in contents for piece in pieces})
