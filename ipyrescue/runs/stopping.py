"""What somebody asks of a runner: to stop. One small file in the run's folder, so that it works across containers.

Never trusted: a request can end the run whose folder it stands in, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Literal

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic

How = Literal["snapshot", "now"]

_LIMIT_BYTES = 1024
_NAME = "stop.json"


def request(folder: Path, *, now: bool) -> None:
    """Ask the runner to end: after a snapshot, or *now*. Raises StoreError."""
    path = folder / _NAME
    how: How = "now" if now else "snapshot"
    with atomic.explained("leave a request at", path):
        atomic.replace(path, json.dumps({"how": how}).encode("ascii"))


def requested(folder: Path) -> How | None:
    """What is asked of the runner. Costs one failed open(2) where nothing is. Never raises."""
    with contextlib.suppress(OSError, ValueError, RecursionError, StoreError):
        said = json.loads(atomic.read_file(folder / _NAME, _LIMIT_BYTES))
        if said == {"how": "now"}:
            return "now"
        if said == {"how": "snapshot"}:
            return "snapshot"
    return None


def clear(folder: Path) -> None:
    """Take the request back: it was obeyed, or was meant for an earlier runner. Raises nothing."""
    with contextlib.suppress(OSError):
        (folder / _NAME).unlink()
