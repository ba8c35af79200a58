"""The memory control groups of this process (cgroups(7)), version 1 or 2: folders, limits and use. Reads files only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MACHINE = Path("/")
"""Where /proc and /sys stand."""

UNLIMITED_BYTES = 1 << 60
"""Version 1 says a number like this where there is no limit."""


_LARGEST_BYTES = 16 << 10


class Files(NamedTuple):
    """What the two versions call the same things; *cache* is the line of file cache that can be dropped at once."""

    limit: str
    used: str
    cache: str


_VERSIONS = (
    Files("memory.max", "memory.current", "inactive_file"),
    Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class Room(NamedTuple):
    """How full one control group is."""

    used_bytes: int
    limit_bytes: int


def control_groups(machine: Path = MACHINE) -> list[Path]:
    """The folders of this process's memory control group and of those around it, innermost first."""
    try:
        lines = (machine / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        _, _, of = line.partition(":")
        controllers, _, group = of.partition(":")
        if controllers == "" or "memory" in controllers.split(","):
            mount = machine / "sys/fs/cgroup" / ("memory" if controllers else "")
            own = Path(os.path.normpath(f"{mount}/{group}"))
            return [folder for folder in (own, *own.parents) if folder.is_relative_to(mount)]
    return []


def limited(machine: Path = MACHINE) -> list[tuple[Path, Files]]:
    """The groups that may limit this process, innermost first, with what their version calls things."""
    return [
        (folder, files) for folder in control_groups(machine) for files in _VERSIONS if (folder / files.limit).exists()
    ]


def room(folder: Path, files: Files, *, fuller_than: float = 0.0) -> Room | None:
    """How full a group is, file cache that can be dropped not counted; None where it has no limit.

    None also where it is no fuller than the share *fuller_than* even with that cache, which costs more to learn.
    """
    try:
        limit_bytes = int(_read(folder / files.limit))  # "max" is no number: no limit
        if not 0 < limit_bytes < UNLIMITED_BYTES:
            return None
        used_bytes = int(_read(folder / files.used))
        if used_bytes < fuller_than * limit_bytes:
            return None
        return Room(used_bytes - _counter(folder / "memory.stat", files.cache), limit_bytes)
    except (OSError, ValueError):
        return None


def rooms(machine: Path = MACHINE) -> Iterator[Room]:
    """How full each group is that has a limit, innermost first."""
    for folder, files in limited(machine):
        found = room(folder, files)
        if found is not None:
            yield found


def _counter(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _read(path).splitlines():
            if line.startswith(name.encode() + b" "):
                return int(line.split()[1])
    return 0


def _read(path: Path) -> bytes:
    """All of a small file, a third as costly as `Path.read_text`: this is asked every second."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _LARGEST_BYTES)
    finally:
        os.close(descriptor)
