"""Memory near its limit, into one sentence for each time that it comes near: the moment for an early snapshot.

Looks at control groups, at the machine and at what torch's allocator has given out on CUDA devices. Reads files and
counters only: it never imports torch, asks no driver, and begins CUDA nowhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from ipyrescue import cgroups
from ipyrescue.settings import format_size

NEARLY_FULL = 0.90
"""A limit of which this share is used is near."""
NEARLY_EMPTY = 0.05
"""So is the end of a machine of which less than this share is available."""
RELIEVED = 0.80
"""A limit must fall below this share before it can come near again; for the machine, the shares that are left count."""
RELIEVED_LEFT = 0.10
CALM_SECONDS = 60.0
"""And must stay below for so long: what swings in each step of a training comes near once."""

_MEMINFO_BYTES = 1024


class Level(NamedTuple):
    """How full one thing is: *what* names it, as in `the memory limit of this container`."""

    what: str
    used_bytes: int
    limit_bytes: int
    nearly_full: float = NEARLY_FULL
    relieved: float = RELIEVED

    def __str__(self) -> str:
        return f"{self.what} is nearly full: {format_size(self.used_bytes)} of {format_size(self.limit_bytes)} are used"


class Pressure:
    """Remembers what is near its limit. Ask about once a second, from one thread."""

    def __init__(
        self,
        *,
        machine: Path = cgroups.MACHINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at the files below *machine*; *clock* is in seconds."""
        self._clock = clock
        self._machine = machine
        self._groups = cgroups.limited(machine)
        self._judge = Judge()

    def crossed(self) -> str | None:
        """A sentence when something has come near its limit since it was last asked; else None. Never raises."""
        return self._judge.crossed(self._levels(), self._clock())

    def _levels(self) -> Iterator[Level]:
        for folder, files in self._groups:
            room = cgroups.room(folder, files, fuller_than=RELIEVED)
            if room is not None:
                yield Level("the memory limit of this session", *room)
        yield from _machine_level(self._machine)
        yield from _cuda_levels(sys.modules.get("torch"))


class Judge:
    """Decides which crossings are told. Pure: knows levels and moments only."""

    def __init__(self) -> None:
        self._last_high: dict[str, float] = {}

    def crossed(self, levels: Iterable[Level], now: float) -> str | None:
        """The sentence of the first level that is near its limit and was not before; *now* is in seconds.

        A level is no news until it has been below its lower mark for `CALM_SECONDS`.
        """
        told: str | None = None
        for level in levels:
            share, last = level.used_bytes / level.limit_bytes, self._last_high.get(level.what)
            is_news = last is None or now - last >= CALM_SECONDS
            if share >= level.nearly_full and is_news:
                told = told or str(level)
            if share >= (level.nearly_full if is_news else level.relieved):
                self._last_high[level.what] = now
        return told


def _machine_level(machine: Path) -> Iterator[Level]:
    total_bytes, available_bytes = _of_machine(machine)
    if total_bytes > 0:
        used_bytes = total_bytes - available_bytes
        yield Level("the machine's memory", used_bytes, total_bytes, 1 - NEARLY_EMPTY, 1 - RELIEVED_LEFT)


def _of_machine(machine: Path) -> tuple[int, int]:
    """Total and available memory (proc(5), meminfo); elsewhere as psutil knows it."""
    try:
        with open(machine / "proc/meminfo", "rb") as file:
            lines = file.read(_MEMINFO_BYTES).splitlines()
        kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(b":") for line in lines[:3])}
        return kilobytes[b"MemTotal"] * 1024, kilobytes[b"MemAvailable"] * 1024
    except (OSError, ValueError, KeyError, IndexError):
        memory = psutil.virtual_memory()
        return int(memory.total), int(memory.available)


def _cuda_levels(torch: Any) -> Iterator[Level]:
    """What tensors take of each device. What the allocator only keeps in reserve is free to them."""
    cuda: Any = getattr(torch, "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return
        for number in range(cuda.device_count()):
            used_bytes = int(cuda.memory_allocated(number))
            total_bytes = int(cuda.get_device_properties(number).total_memory) if used_bytes else 0
            if total_bytes > 0:
                yield Level(f"the memory of cuda:{number}", used_bytes, total_bytes)
    except Exception:  # noqa: BLE001 - after a device-side assertion, or in a torch half imported, nothing is known
        return
