"""Memory that streams refer to: ranges of addresses become the storages and buffers of a group.

An object that lives on raw memory (a tensor, an array) is pickled as a `Reference` to a range of addresses.
Ranges that overlap are one buffer, so that views go on sharing memory after a restore, whichever library
made them. Copies are taken while the range is alive; nothing later touches a live object.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

from ipyrescue.addresses import address_of
from ipyrescue.manifest import Storage
from ipyrescue.pickling import placeholders
from ipyrescue.pickling.sharing import SharedMappings


@dataclass(eq=False)
class Reference:
    """A range of memory that a stream refers to by *key*; pickled once a group, however many views there are."""

    key: int
    kind: str
    start: int
    size_bytes: int
    device: str
    owner: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return placeholders.storage, (self.key,)

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.start + self.size_bytes


@dataclass
class References:
    """The memory that one stream refers to, each range once, in the order in which it was met."""

    by_identity: dict[Any, Reference] = field(default_factory=dict)
    out_of_band: list[int] = field(default_factory=list)

    def refer(
        self, identity: Any, kind: str, start: int, size_bytes: int, owner: Any, device: str = "cpu"
    ) -> Reference:
        """Return the one reference for *identity*, keeping *owner* alive as long as its memory is needed."""
        known = self.by_identity.get(identity)
        if known is None:
            known = Reference(len(self.by_identity), kind, start, size_bytes, device, owner)
            self.by_identity[identity] = known
        return known

    def leave_out(self, view: memoryview, kind: str, owner: Any) -> None:
        """Take a buffer that `pickle` hands out of band (PEP 574)."""
        start = address_of(view)
        reference = self.refer((kind, start, view.nbytes), kind, start, view.nbytes, owner)
        self.out_of_band.append(reference.key)

    def ranges(self) -> list[Reference]:
        """Every reference by key."""
        return list(self.by_identity.values())


Where = tuple[str, int, int]
"""A range of memory: its device, its start and its size in bytes."""


class Area(Protocol):
    """Where copies of live memory go; see `ipyrescue.capture.staging`."""

    def reset(self) -> None:
        """Forget the copies of the snapshot before."""

    def hold_all(self, spans: Iterable[tuple[int, int]], owners: Iterable[Any]) -> list[memoryview]:
        """Copy ranges of raw memory, (address, size_bytes), to where user code cannot change them.

        Views of the memory itself, if they are as good as copies, keep the range's owner alive.
        """

    def hold_from_devices(self, storages: list[Any]) -> list[memoryview]:
        """Copy the memory of torch storages that lie on devices."""

    def hold_apart(self, address: int, size_bytes: int) -> memoryview | None:
        """Copy raw memory to where no other process sees it; None where there is no memory for that."""

    def spans(self) -> list[tuple[int, int]]:
        """The memory of the area itself, (address, size_bytes)."""


class OnDevice(Exception):  # noqa: N818 - not an error: only this process cannot do it
    """Memory of a device was met where it cannot be copied: in a child, whose parent's CUDA context is not its own."""


class Copies:
    """Copies of live memory, each range once a snapshot, in an *area* that user code cannot reach."""

    def __init__(self, area: Area) -> None:
        self._area = area
        self._at_rest: _Copied | None = None
        self._shared: SharedMappings | None = None
        self._late: list[Where] = []
        self.in_child = False
        self._held: dict[Where, memoryview] = {}

    def take(self, reference: Reference) -> memoryview:
        """Copy the range now, or return the copy that was already taken."""
        return self._take(reference.device, reference.start, reference.size_bytes, [reference.owner])

    def take_all(self, references: Iterable[Reference]) -> None:
        """Copy many ranges at once, which is faster than one by one."""
        wanted = {(r.device, r.start, r.size_bytes): r for r in references}
        fresh = {where: r for where, r in wanted.items() if where not in self._held and r.size_bytes}
        on_host = [where for where in fresh if where[0] == "cpu"]
        elsewhere = [where for where in fresh if where[0] != "cpu"]
        views = [
            *self._area.hold_all([where[1:] for where in on_host], [fresh[where].owner for where in on_host]),
            *self._area.hold_from_devices([fresh[where].owner for where in elsewhere]),
        ]
        self._held.update(zip([*on_host, *elsewhere], views, strict=True))

    def take_cluster(self, cluster: list[Reference]) -> memoryview:
        """Copy ranges that overlap, sorted by address, as one."""
        first = cluster[0]
        size_bytes = max(r.end for r in cluster) - first.start
        return self._take(first.device, first.start, size_bytes, [r.owner for r in cluster])

    def rest(self) -> None:
        """Copy no more: this is a forked child, whose memory nobody changes. What was copied may be absent here.

        Memory that processes share does change. What of it was not copied before the fork is copied when it is met, so
        that what is hashed is what is written.
        """
        self._at_rest, self._shared, self.in_child = _Copied(self._held), SharedMappings(), True

    def is_late(self, reference: Reference) -> bool:
        """Whether its bytes were copied after the fork, when they may have been others already."""
        return any(
            device == reference.device and start <= reference.start < start + size_bytes
            for device, start, size_bytes in self._late
        )

    def spans(self) -> list[tuple[int, int]]:
        """The memory of this process that was copied: (address, size_bytes)."""
        return [(start, size_bytes) for device, start, size_bytes in self._held if device == "cpu"]

    def taken(self) -> dict[int, Where]:
        """Where each copy was taken from, by the identity of its view."""
        return {id(view): where for where, view in self._held.items()}

    def at(self, where: Where) -> memoryview:
        """The copy that was taken from there."""
        return self._held[where]

    def _take(self, device: str, start: int, size_bytes: int, owners: list[Any]) -> memoryview:
        where = (device, start, size_bytes)
        if where not in self._held:
            self._held[where] = self._copy(device, start, size_bytes, owners)
        return self._held[where]

    def _copy(self, device: str, start: int, size_bytes: int, owners: list[Any]) -> memoryview:
        if size_bytes == 0:
            return memoryview(b"")
        if device == "cpu" and self._at_rest is not None:
            copied = self._at_rest.overlapping(start, start + size_bytes)
            late = self._copy_late(start, size_bytes) if not copied else None
            return late or _gathered(copied, start, size_bytes, owners)
        if device == "cpu":
            return self._area.hold_all([(start, size_bytes)], [owners])[0]
        if self.in_child:
            raise OnDevice(device)
        return self._area.hold_from_devices(owners[:1])[0]

    def _copy_late(self, start: int, size_bytes: int) -> memoryview | None:
        """A copy of what processes share; None of what stands still, or where there is no memory for a copy."""
        if self._shared is None or not self._shared.touch(start, start + size_bytes):
            return None
        self._late.append(("cpu", start, size_bytes))
        return self._area.hold_apart(start, size_bytes)


class _Copied:
    """What of the host's memory was copied before it came to rest, by address."""

    def __init__(self, held: Mapping[Where, memoryview]) -> None:
        ranges = ((at, at + size, view) for (device, at, size), view in held.items() if device == "cpu")
        self._ranges = sorted(ranges, key=lambda one: one[:2])
        self._starts = [at for at, _, _ in self._ranges]
        self._reached = list(accumulate((end for _, end, _ in self._ranges), max))

    def overlapping(self, start: int, end: int) -> list[tuple[int, int, memoryview]]:
        """The copied ranges, (start, end, copy), that have a byte between *start* and *end*."""
        first, last = bisect_right(self._reached, start), bisect_left(self._starts, end)
        return [one for one in self._ranges[first:last] if one[1] > start]


def _gathered(copied: list[tuple[int, int, memoryview]], start: int, size_bytes: int, owners: list[Any]) -> memoryview:
    """Memory at rest, seen where it is; what overlaps copies is put together, since it may be absent itself."""
    if not copied:
        return _seen(start, size_bytes, owners)
    end, reached, whole = start + size_bytes, start, memoryview(bytearray(size_bytes))
    for first, last, view in copied:
        if first > reached:
            whole[reached - start : first - start] = _seen(reached, first - reached)
        taken = view[max(start - first, 0) : min(last, end) - first]
        offset = max(first, start) - start
        whole[offset : offset + len(taken)] = taken
        reached = max(reached, min(last, end))
    if reached < end:
        whole[reached - start :] = _seen(reached, end - reached)
    return whole.toreadonly()


def _seen(start: int, size_bytes: int, owners: Any = ()) -> memoryview:
    """Memory where it is; the view keeps its *owners* alive, which an object may have made only to be pickled."""
    memory = (ctypes.c_char * size_bytes).from_address(start)
    memory._owners = owners  # type: ignore[attr-defined]
    return memoryview(memory).cast("B").toreadonly()


@dataclass(frozen=True)
class Layout:
    """Where a group's storages lie: *storages* by key, each a part of one of the *buffers*."""

    storages: tuple[Storage, ...]
    buffers: tuple[memoryview, ...]


def lay_out(references: list[Reference], copies: Copies) -> Layout:
    """Merge ranges that overlap into buffers and copy each buffer once. Addresses do not decide their order."""
    storages: list[Storage | None] = [None] * len(references)
    buffers: list[memoryview] = []
    clusters = sorted(overlapping(references), key=lambda cluster: min(r.key for r in cluster))
    for cluster in clusters:
        first = cluster[0]
        buffers.append(copies.take_cluster(cluster))
        for r in cluster:
            where = Storage(len(buffers) - 1, r.start - first.start, r.size_bytes, r.kind, r.device)
            storages[r.key] = where
    return Layout(tuple(s for s in storages if s is not None), tuple(buffers))


def overlapping(references: Iterable[Reference]) -> list[list[Reference]]:
    """Split references into clusters whose memory overlaps; each cluster is sorted by address."""
    clusters: list[list[Reference]] = []
    end, device = 0, ""
    for r in sorted(references, key=lambda r: (r.device, r.start, -r.size_bytes)):
        if clusters and r.device == device and r.size_bytes and r.start < end:
            clusters[-1].append(r)
            end = max(end, r.end)
        else:
            clusters.append([r])
            end, device = r.end, r.device
    return clusters
