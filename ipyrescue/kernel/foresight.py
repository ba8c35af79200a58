"""Whether the next snapshot will find room, looked at while the kernel runs: into a sentence, before it happens."""

from __future__ import annotations

import time

from ipyrescue.errors import RescueError
from ipyrescue.kernel.notebook import Notebook
from ipyrescue.manifest import Settings, Snapshot

_LOOK_SECONDS = 2.0
_LEAST_STEP_BYTES = 1 << 20
_STEPS = 16
"""In so many parts of a snapshot what is free is counted: to see each MB come and go would be to look all the time."""


class Foresight:
    """Looks ahead for one kernel. *outlook* is what was seen last: None where there is room enough."""

    def __init__(self, notebook: Notebook) -> None:
        self.outlook: str | None = None
        self._notebook = notebook
        self._looked = 0.0
        self._known: tuple[str | None, Settings, int] | None = None

    def look(self, settings: Settings, last: Snapshot | None) -> bool:
        """Look whether there is room; tell whether that may be otherwise than before.

        Cheap: manifests are looked at only after a snapshot, or when what is free has changed by much.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        try:
            step_bytes = max(_LEAST_STEP_BYTES, last.new_bytes // _STEPS if last is not None else 0)
            known = (last.id if last is not None else None, settings, self._notebook.free_bytes() // step_bytes)
            if known == self._known:
                return False
            found = self._notebook.outlook(settings)
        except (RescueError, OSError):
            return False
        self._known, self.outlook = known, str(found) if found is not None else None
        return True
