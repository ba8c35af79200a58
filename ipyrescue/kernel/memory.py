"""The kernel's memory: of the process and of CUDA, now and at the peak of each cell, into a `Memory`.

Looked at by the heartbeat's thread and at both ends of a cell. Torch is never imported, only asked when it is there,
and CUDA only when the user's program has begun to use it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, NamedTuple

import psutil

from ipyrescue import cgroups
from ipyrescue.incarnations.evidence import machine_oom_kills, oom_group, oom_kills
from ipyrescue.settings import format_size
from ipyrescue.store.lives import Memory

_GROWN_RUNS = 3
_GROWN_SHARE = 0.01
_GROWN_BYTES = 20 << 20


class MemoryWatch:
    """Follows one process. *warning* names a cell that took more memory in each of its last runs."""

    def __init__(self) -> None:
        self.warning: str | None = None
        self._process = psutil.Process()
        self._limit_bytes = memory_limit()
        self._peak_bytes = 0
        self._high_water = _high_water()
        self._began = (0, 0)
        self._grown: dict[int, list[int]] = {}
        self._warned: _Growing | None = None
        self._kills = _Kills.so_far()

    def cell_begins(self) -> Memory:
        """A new cell has a peak of its own."""
        self._peak_bytes, self._high_water = 0, _high_water()
        now = self.look()
        self._began = (now.rss_bytes, now.cuda_allocated_bytes or 0)
        return now

    def cell_ends(self, number: int, source: str) -> Memory:
        """Look once more, and remember whether this cell keeps taking more each time it runs."""
        now = self.look()
        changes = now.rss_bytes - self._began[0], (now.cuda_allocated_bytes or 0) - self._began[1]
        cell, grown = hash(source), max(changes)
        runs = self._grown.pop(cell, [])
        if grown > max(_GROWN_BYTES, _GROWN_SHARE * now.rss_bytes):
            self._grown[cell] = [*runs, grown][-_GROWN_RUNS:]
            self._warn(number, cell)
        elif self._warned is not None and (cell == self._warned.cell or -min(changes) > self._warned.taken_bytes / 2):
            # It takes no more, or what it took was given back.
            self._grown.pop(self._warned.cell, None)
            self.warning = self._warned = None
        return replace(now, warning=self.warning)

    def _warn(self, number: int, cell: int) -> None:
        runs = self._grown[cell]
        if len(runs) == _GROWN_RUNS:
            self._warned = _Growing(cell, sum(runs))
            self.warning = (
                f"Cell [{number}] took more memory in each of its last {_GROWN_RUNS} runs, {format_size(sum(runs))} "
                "in all. Does a list keep tensors or results that are no longer needed?"
            )

    def watch(self) -> Memory:
        """Look, and count anew whom the OOM killer has ended: that is slow, so it is for the heartbeat."""
        self._kills = _Kills.so_far()
        return self.look()

    def look(self) -> Memory:
        """What is held right now, and the most that was seen since the cell began."""
        rss_bytes = self._process.memory_info().rss
        high_water = _high_water()
        # The process's own high-water mark is exact, but it says something of this cell only if it rose in it.
        risen = high_water if high_water > self._high_water else 0
        self._peak_bytes = max(self._peak_bytes, rss_bytes, risen)
        allocated, reserved = _cuda()
        return Memory(
            rss_bytes=rss_bytes,
            peak_rss_bytes=self._peak_bytes,
            limit_bytes=self._limit_bytes,
            cuda_allocated_bytes=allocated,
            cuda_reserved_bytes=reserved,
            oom_kills=self._kills.of_group,
            oom_group=self._kills.group,
            machine_oom_kills=self._kills.of_machine,
            warning=self.warning,
        )


class _Growing(NamedTuple):
    """The cell that is warned of, by the hash of its source, and what its last runs took."""

    cell: int
    taken_bytes: int


class _Kills(NamedTuple):
    """Whom the OOM killer has ended so far."""

    of_group: int | None
    group: str | None
    of_machine: int | None

    @classmethod
    def so_far(cls) -> _Kills:
        """Ask the kernel of the operating system."""
        return cls(oom_kills(), oom_group(), machine_oom_kills())


def memory_limit() -> int | None:
    """How much this process may hold, in bytes: the least of its control groups' limits and the machine's memory."""
    limits = [psutil.virtual_memory().total, *(room.limit_bytes for room in cgroups.rooms())]
    return min((limit for limit in limits if limit > 0), default=None)


def free_memory() -> int:
    """How much another process may take before something is killed, in bytes."""
    free: int = psutil.virtual_memory().available
    limit = memory_limit()
    return free if limit is None else max(0, min(free, limit - psutil.Process().memory_info().rss))


def _high_water() -> int:
    """The most that the process ever held, in bytes (getrusage(2), `ru_maxrss`); 0 where nobody knows."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cuda() -> tuple[int | None, int | None]:
    """What torch's allocator has given out and what it holds, over all devices, in bytes."""
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return None, None
    try:
        devices = range(cuda.device_count())
        return sum(map(cuda.memory_allocated, devices)), sum(map(cuda.memory_reserved, devices))
    except RuntimeError:  # after a device-side assertion CUDA answers nothing any more
        return None, None
