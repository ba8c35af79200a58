"""How much room a store has: what its file system says of itself, into what stands in the way of a snapshot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple


class Room(NamedTuple):
    """What is free for us on a file system; *free_files* is None where it does not count files (inodes)."""

    free_bytes: int
    free_files: int | None = None
    read_only: bool = False

    def lacks(self, needed_bytes: int) -> bool:
        """Whether a snapshot of so many bytes cannot be written, as far as the file system tells."""
        return self.read_only or self.free_files == 0 or self.free_bytes < needed_bytes


def room(root: Path) -> Room:
    """What is free where the store at *root* is, or will be. Raises OSError."""
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    if not hasattr(os, "statvfs"):
        return Room(shutil.disk_usage(existing).free)
    found = os.statvfs(existing)
    files = found.f_favail if found.f_files else None
    return Room(found.f_bavail * found.f_frsize, files, bool(found.f_flag & os.ST_RDONLY))
