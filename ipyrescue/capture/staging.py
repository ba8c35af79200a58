"""Warm host memory into which live bytes are copied in the pause, so that user code cannot change them any more.

Turns (address, size) into a read-only view of a copy. Knows no tensors and no files. The first copy into fresh
memory pays for the kernel's page faults; the area is kept between snapshots so that all later ones do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ipyrescue import cgroups
from ipyrescue.capture import cuda
from ipyrescue.errors import CheckpointError
from ipyrescue.settings import format_size

PAGE_BYTES = 4096
"""Large holds begin and end at multiples of this, so that they can be written past the page cache."""

_LARGE_BYTES = 64 << 10
_SMALL_ALIGNMENT_BYTES = 64
_SEGMENT_BYTES = 64 << 20
_HUGE_PAGE_BYTES = 2 << 20
_SPLIT_BYTES = 8 << 20
_HEADROOM_BYTES = 128 << 20

_Move = tuple[int, int, int]
"""To this address, from that one, so many bytes."""


class NoMemory(CheckpointError):  # noqa: N818 - the error is that no snapshot was made
    """There is too little memory for copies; *lack* says how little."""

    def __init__(self, needed_bytes: int, available_bytes: int) -> None:
        """Copies need *needed_bytes* more."""
        self.lack = (
            f"its copy needs {format_size(needed_bytes)} more memory, and only "
            f"{format_size(max(available_bytes, 0))} is available"
        )
        super().__init__(
            f"The snapshot was not made: {self.lack}. Delete what you no longer need (del NAME), or leave it out: "
            "%checkpoint_vars -x NAME"
        )


class LiveArea:
    """No copies at all: views of live memory, for a snapshot that is written before anything of it can change."""

    def reset(self) -> None:
        """Nothing is kept."""

    def hold_all(self, spans: Iterable[tuple[int, int]], owners: Iterable[Any]) -> list[memoryview]:
        """See ranges of memory, (address, size_bytes), where they are; a view keeps the range's owner alive."""
        return [_seen(*span, owner) for span, owner in zip(spans, owners, strict=True)]

    def hold_from_devices(self, storages: list[Any]) -> list[memoryview]:
        """Copy torch storages of devices: files can be written from no other memory than the host's."""
        return [_seen(host.data_ptr(), host.nbytes(), owner=host) for host in (storage.cpu() for storage in storages)]

    def hold_apart(self, address: int, size_bytes: int) -> memoryview | None:
        """No copy, as said."""
        return None

    def spans(self) -> list[tuple[int, int]]:
        """None."""
        return []


class StagingArea:
    """Reusable memory in segments. One thread holds; any thread reads the views.

    A view never changes and never dangles: memory whose views are still referenced is neither reused by `reset` nor
    unmapped by `release`.
    """

    def __init__(self, *, available_bytes: Callable[[], int] | None = None) -> None:
        """Make an empty area; *available_bytes* tells how much memory the machine could still give."""
        self._available_bytes = available_bytes or available_memory_bytes
        self._segments: list[_Segment] = []
        self._first_with_room = 0

    @property
    def size_bytes(self) -> int:
        """Memory that the area has reserved, used or not."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def used_bytes(self) -> int:
        """Memory that holds copies since the last `reset`."""
        return sum(segment.used_bytes for segment in self._segments)

    def hold(self, address: int, size_bytes: int) -> memoryview:
        """Copy *size_bytes* of live memory from *address* on, as `hold_all` does."""
        return self.hold_all([(address, size_bytes)])[0]

    def hold_all(self, spans: Iterable[tuple[int, int]], owners: Iterable[Any] = ()) -> list[memoryview]:
        """Copy ranges of live memory, (address, size_bytes); return read-only views of the copies.

        The caller vouches that the memory is readable, and needs its *owners* no longer when this returns. From 64 KiB
        on a copy begins at a multiple of `PAGE_BYTES`, and what is left of its last page is zero. Two threads share the
        work evenly.
        """
        wanted = list(spans)
        rooms = [self._room(size_bytes) for _, size_bytes in wanted]
        moves = [(room.address, address, size) for room, (address, size) in zip(rooms, wanted, strict=True) if size > 0]
        _move_all(moves)
        return [room.view for room in rooms]

    def hold_from_devices(self, storages: list[Any]) -> list[memoryview]:
        """Copy torch storages that lie on CUDA devices; return read-only views of the copies.

        Each device copies on a stream of its own, behind what it was told to compute, into pages that are pinned once.
        """
        rooms = [self._room(storage.nbytes()) for storage in storages]
        for segment in self._segments if storages else ():
            segment.pin()
        cuda.copy_to_host([(storage, room.address) for storage, room in zip(storages, rooms, strict=True)])
        return [room.view for room in rooms]

    def hold_apart(self, address: int, size_bytes: int) -> memoryview | None:
        """Copy live memory to where no other process sees it, as the area's is seen by the children of this one.

        Return None where there is no memory for that.
        """
        if size_bytes + _HEADROOM_BYTES > self._available_bytes():
            return None
        try:
            memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, MemoryError):
            return None
        _move([(ctypes.addressof(ctypes.c_char.from_buffer(memory)), address, size_bytes)])
        return memoryview(memory).toreadonly()

    def spans(self) -> list[tuple[int, int]]:
        """The memory of the area itself, (address, size_bytes)."""
        return [(segment.address, segment.size_bytes) for segment in self._segments]

    def _room(self, size_bytes: int) -> _Room:
        if size_bytes <= 0:
            return _Room(0, memoryview(b""))
        segment = self._with_room(size_bytes)
        start = segment.take(size_bytes)
        return _Room(segment.address + start, segment.view(start, size_bytes))

    def reserve(self, size_bytes: int) -> None:
        """Make sure that *size_bytes* more fit, or raise `CheckpointError` before a single byte is copied."""
        room = sum(segment.room_bytes for segment in self._segments)
        if size_bytes > room:
            self._grow(size_bytes - room)

    def reset(self) -> None:
        """Forget all copies and keep the memory warm for the next ones."""
        self._segments = [segment for segment in self._segments if not segment.viewed]
        for segment in self._segments:
            segment.used_bytes = 0
        self._first_with_room = 0

    def release(self) -> None:
        """Give the memory back, now or when the last view of it is gone."""
        self._segments = []
        self._first_with_room = 0

    def _with_room(self, size_bytes: int) -> _Segment:
        segments = self._segments
        while self._first_with_room < len(segments) and segments[self._first_with_room].room_bytes < _LARGE_BYTES:
            self._first_with_room += 1
        for position in range(self._first_with_room, len(segments)):
            if segments[position].fits(size_bytes):
                return segments[position]
        return self._grow(size_bytes)

    def _grow(self, size_bytes: int) -> _Segment:
        needed = _round_up(max(size_bytes, _SEGMENT_BYTES), _HUGE_PAGE_BYTES)
        available = self._available_bytes()
        if needed + _HEADROOM_BYTES > available:
            raise NoMemory(size_bytes, available)
        try:
            segment = _Segment(needed)
        except (OSError, MemoryError) as error:
            raise NoMemory(size_bytes, available) from error
        self._segments.append(segment)
        return segment


class _Room(NamedTuple):
    """Where a copy goes, and the view of it."""

    address: int
    view: memoryview


class _Segment:
    """One mapping, filled from its start. On Linux forked children share it: what they read of it is never copied."""

    def __init__(self, size_bytes: int) -> None:
        self._memory = _map(size_bytes)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.size_bytes = size_bytes
        self.used_bytes = 0
        self._pinned = False
        self._references_when_idle = sys.getrefcount(self._memory)

    @property
    def room_bytes(self) -> int:
        return self.size_bytes - self.used_bytes

    @property
    def viewed(self) -> bool:
        """Whether somebody still has a view: each, and all slices of it together, holds one reference to the map."""
        return sys.getrefcount(self._memory) > self._references_when_idle

    def pin(self) -> None:
        """Have the CUDA driver copy into this memory directly, from now on until it is unmapped."""
        if not self._pinned:
            cuda.pin(self.address, self.size_bytes)
            self._pinned = True

    def __del__(self) -> None:
        if getattr(self, "_pinned", False):
            cuda.unpin(self.address)

    def fits(self, size_bytes: int) -> bool:
        return self._start(size_bytes) + size_bytes <= self.size_bytes

    def take(self, size_bytes: int) -> int:
        """Set *size_bytes* aside and return where they begin; the rest of a large hold's last page is zeroed."""
        start = self._start(size_bytes)
        self.used_bytes = start + size_bytes
        if size_bytes >= _LARGE_BYTES:
            end = _round_up(self.used_bytes, PAGE_BYTES)
            ctypes.memset(self.address + self.used_bytes, 0, end - self.used_bytes)
            self.used_bytes = end
        return start

    def view(self, start: int, size_bytes: int) -> memoryview:
        return memoryview(self._memory)[start : start + size_bytes].toreadonly()

    def _start(self, size_bytes: int) -> int:
        return _round_up(self.used_bytes, PAGE_BYTES if size_bytes >= _LARGE_BYTES else _SMALL_ALIGNMENT_BYTES)


def available_memory_bytes() -> int:
    """Return how much memory this process could still get: the machine's, or its container's where that is less."""
    import psutil

    rooms = (room.limit_bytes - room.used_bytes for room in cgroups.rooms())
    return min([int(psutil.virtual_memory().available), *rooms])


def _map(size_bytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size_bytes)
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is not None:
        with contextlib.suppress(OSError):  # A kernel without huge pages: slower, no worse.
            memory.madvise(advice)
    return memory


def _move_all(moves: list[_Move]) -> None:
    """Copy with two threads where it pays: one core alone does not use all of the memory's bandwidth."""
    if sum(size_bytes for _, _, size_bytes in moves) < _SPLIT_BYTES:
        _move(moves)
        return
    mine, other = _halves(moves)
    helper = threading.Thread(target=_move, args=(other,), name="ipyrescue-staging", daemon=True)
    try:
        helper.start()
    except RuntimeError:  # No thread to be had, or Python is about to exit.
        _move(moves)
        return
    try:
        _move(mine)
    finally:
        helper.join()


def _move(moves: list[_Move]) -> None:
    for target, source, size_bytes in moves:
        ctypes.memmove(target, source, size_bytes)  # Releases the GIL.


def _halves(moves: list[_Move]) -> tuple[list[_Move], list[_Move]]:
    """Cut a list of copies into two of about equal bytes, a copy in the middle at a page boundary."""
    left = sum(size_bytes for _, _, size_bytes in moves) // 2
    for position, (target, source, size_bytes) in enumerate(moves):
        if size_bytes > left:
            cut = min(_round_up(left, PAGE_BYTES), size_bytes)
            first, second = (target, source, cut), (target + cut, source + cut, size_bytes - cut)
            return [*moves[:position], first], [second, *moves[position + 1 :]]
        left -= size_bytes
    return moves, []


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _seen(address: int, size_bytes: int, owner: Any = None) -> memoryview:
    memory = (ctypes.c_char * size_bytes).from_address(address)
    memory._owner = owner  # type: ignore[attr-defined]
    return memoryview(memory).cast("B").toreadonly()
