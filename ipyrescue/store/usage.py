"""Manifests and packs to what each pack holds: bytes that a manifest names, and dead ones. Opens no pack.

A blob takes whole pages of 4096 bytes. What counts on disk is what the file system holds: a pack may have holes.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.manifest import Snapshot
from ipyrescue.store import layout
from ipyrescue.store.pack import ALIGNMENT

_SECTOR_BYTES = 512
"""The unit of st_blocks (stat(2)), whatever the file system's own is."""

Range = tuple[int, int]
"""Where bytes of a file begin, and where they end."""


@dataclass(frozen=True)
class PackUse:
    """One pack: its length, what it takes on disk, and the *living* pages, ascending and apart from each other.

    *named*: some manifest refers to it, be it to bytes that are not there any more.
    """

    path: Path
    size_bytes: int
    disk_bytes: int
    named: bool
    living: tuple[Range, ...]

    @property
    def living_bytes(self) -> int:
        """What some manifest needs, in whole pages."""
        return sum(end - start for start, end in self.living)

    @property
    def dead_bytes(self) -> int:
        """What takes space and is named by no manifest."""
        return max(0, self.disk_bytes - self.living_bytes)

    @property
    def dead_share(self) -> float:
        """The dead part of what it takes on disk, 0 to 1."""
        return self.dead_bytes / self.disk_bytes if self.disk_bytes else 0.0

    def dead(self) -> tuple[Range, ...]:
        """The ranges between the living pages, to the end of the file."""
        starts = [0, *(end for _, end in self.living)]
        ends = [*(start for start, _ in self.living), self.size_bytes]
        return tuple((start, end) for start, end in zip(starts, ends, strict=True) if start < end)


def packs(root: Path, snapshots: Iterable[Snapshot]) -> list[PackUse]:
    """Every pack of the store at *root*, by id, as *snapshots* need it. Raises OSError."""
    needed = _needed(snapshots)
    there = ((pack, layout.pack_path(root, pack)) for pack in _packs(root))
    return [use for pack, path in there if (use := _use(path, needed.get(pack))) is not None]


def unnamed(root: Path, snapshots: Iterable[Snapshot]) -> list[PackUse]:
    """The packs that none of *snapshots* needs: as `packs`, but no manifest is read for it. Raises OSError."""
    needed: set[str] = set().union(*(snapshot.packs for snapshot in snapshots))
    dead = (layout.pack_path(root, pack) for pack in _packs(root) if pack not in needed)
    return [use for path in dead if (use := _use(path, None)) is not None]


def disk_bytes(status: os.stat_result) -> int:
    """What a file takes on disk: less than its length where it has holes. Preallocation is not counted."""
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, blocks * _SECTOR_BYTES)


def _packs(root: Path) -> list[str]:
    return sorted(filter(None, map(layout.parse_pack_name, os.listdir(layout.packs(root)))))


def _needed(snapshots: Iterable[Snapshot]) -> dict[str, dict[int, int]]:
    """By pack: where blobs begin, and the largest size that is said of one there."""
    needed: dict[str, dict[int, int]] = defaultdict(dict)
    for snapshot in snapshots:
        for blob in snapshot.blobs:
            sizes = needed[blob.pack]
            if sizes.get(blob.offset, -1) < blob.size_bytes:
                sizes[blob.offset] = blob.size_bytes
    return needed


def _use(path: Path, blobs: dict[int, int] | None) -> PackUse | None:
    """None for what is gone meanwhile, or no plain file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    living = tuple(_merged(blobs or {}, status.st_size))
    return PackUse(path, status.st_size, disk_bytes(status), blobs is not None, living)


def _merged(blobs: dict[int, int], size_bytes: int) -> list[Range]:
    """The pages of *blobs*, joined where they touch. What a manifest claims beyond the end is not there."""
    merged: list[Range] = []
    for offset in sorted(offset for offset, size in blobs.items() if size):
        start = offset // ALIGNMENT * ALIGNMENT
        end = min(-(-(offset + blobs[offset]) // ALIGNMENT) * ALIGNMENT, size_bytes)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged
