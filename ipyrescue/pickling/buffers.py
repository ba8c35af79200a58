"""Memory that streams refer to: ranges of addresses become the storages and buffers of a group.

An object that lives on raw memory (a tensor, an array) is pickled as a `Reference` to a range of addresses.
Ranges that overlap are one buffer, so that views go on sharing memory after a restore, whichever library
made them. Copies are taken while the range is alive; nothing later touches a live object.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ipyrescue.manifest import Storage
from ipyrescue.pickling import placeholders


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


class OnDevice(Exception):  # noqa: N818 - not an error: only this process cannot do it
    """Memory of a device was met where it cannot be copied: in a child, whose parent's CUDA context is not its own."""


class Copies:
    """Copies of live memory, each range once a snapshot. *hold* copies raw memory to where user code cannot reach."""

    def __init__(self, hold: Callable[[int, int], memoryview]) -> None:
        self._hold = hold
        self.in_child = False
        self._held: dict[Where, memoryview] = {}

    def take(self, reference: Reference) -> memoryview:
        """Copy the range now, or return the copy that was already taken."""
        return self._take(reference.device, reference.start, reference.size_bytes, reference.owner)

    def take_cluster(self, cluster: list[Reference]) -> memoryview:
        """Copy ranges that overlap, sorted by address, as one."""
        first = cluster[0]
        return self._take(first.device, first.start, max(r.end for r in cluster) - first.start, first.owner)

    def taken(self) -> dict[int, Where]:
        """Where each copy was taken from, by the identity of its view."""
        return {id(view): where for where, view in self._held.items()}

    def at(self, where: Where) -> memoryview:
        """The copy that was taken from there."""
        return self._held[where]

    def _take(self, device: str, start: int, size_bytes: int, owner: Any) -> memoryview:
        where = (device, start, size_bytes)
        if where not in self._held:
            self._held[where] = self._copy(device, start, size_bytes, owner)
        return self._held[where]

    def _copy(self, device: str, start: int, size_bytes: int, owner: Any) -> memoryview:
        if size_bytes == 0:
            return memoryview(b"")
        if device == "cpu":
            return self._hold(start, size_bytes)
        if self.in_child:
            raise OnDevice(device)
        on_host = owner.cpu()
        return self._hold(on_host.data_ptr(), size_bytes)


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


def address_of(view: memoryview) -> int:
    """The address of a contiguous buffer's first byte, read-only buffers included."""
    if view.nbytes == 0:
        return 0
    info = _PyBuffer()
    _get_buffer(ctypes.py_object(view), ctypes.byref(info), 0)
    address: int = info.buf
    _release_buffer(ctypes.byref(info))
    return address


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer (C API manual, "Buffer Protocol"): the one way to a read-only buffer's address."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None
