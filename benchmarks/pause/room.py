"""Whether a size fits this machine, before anything is started."""

from __future__ import annotations

import shutil
from pathlib import Path

from ipyrescue.capture.staging import available_memory_bytes

_MEMORY_COPIES, _MEMORY_BESIDE_BYTES = 4.0, 2_000_000_000
"""The state, its gradients, a staged copy, what a fork makes two of; torch in three processes."""

_DISK_COPIES, _DISK_BESIDE_BYTES = 3.0, 200_000_000
"""The newest snapshot, the one that is being written, the one that is being removed."""


def missing(scale: float, folder: Path) -> list[str]:
    """What is too small for *scale* GB of state, in sentences; empty when it fits."""
    wanted_memory = int(scale * 1e9 * _MEMORY_COPIES) + _MEMORY_BESIDE_BYTES
    wanted_disk = int(scale * 1e9 * _DISK_COPIES) + _DISK_BESIDE_BYTES
    rooms = (
        (f"memory, and {{}} of {_gb(wanted_memory)} GB are available", wanted_memory, available_memory_bytes()),
        (f"room in {folder}, and {{}} of {_gb(wanted_disk)} GB are free", wanted_disk, shutil.disk_usage(folder).free),
    )
    return [
        f"{scale:g} GB of state need more {words.format(_gb(has))}." for words, wanted, has in rooms if has < wanted
    ]


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f}"
