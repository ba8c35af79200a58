"""A contents path of the server into a notebook on disk: its key in a store, and where that store stands.

Paths come from browsers, so only the contents manager decides which of them name a file: it keeps them inside of its
root, and hides what it hides.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_server.utils import ensure_async
from tornado.web import HTTPError

from ipyrescue import identity, settings
from ipyrescue.identity import Identity
from ipyrescue.incarnations.renames import former_names


@dataclass(frozen=True)
class Notebook:
    """One notebook as the server's users know it, by its contents path, and as its kernels do, by its identity."""

    path: str
    identity: Identity

    @property
    def store_root(self) -> Path:
        """Where its snapshots are."""
        return self.identity.store_root

    @property
    def former(self) -> frozenset[str]:
        """The keys that it had under earlier names. Reads life records, and the notebook if some may be its own."""
        return former_names(self.identity)

    @property
    def keys(self) -> frozenset[str]:
        """Its key in the store, and those that it had."""
        return self.former | {self.identity.notebook}


async def find(contents_manager: Any, path: str) -> Notebook | None:
    """The notebook that a front end names; None where its file is on no disk of ours. Raises `HTTPError` 404."""
    try:
        there = await ensure_async(contents_manager.file_exists(path))
        hidden = await ensure_async(contents_manager.is_hidden(path)) and not contents_manager.allow_hidden
    except (HTTPError, ValueError, OSError):
        there, hidden = False, False
    if not there or hidden:
        raise HTTPError(404, "There is no notebook of this path here. It may have been renamed, moved or deleted.")
    return locate(contents_manager, path)


def locate(contents_manager: Any, path: str) -> Notebook | None:
    """The same for a path that the server itself knows, whether the file is there or not; never raises HTTPError.

    Raises `RescueError` where the settings of this server's environment cannot be read.
    """
    os_path = getattr(contents_manager, "_get_os_path", None)
    if os_path is None:
        return None
    try:
        file = Path(os_path(path.strip("/")))
    except (HTTPError, ValueError):
        return None
    environ = {**os.environ, "JPY_SESSION_NAME": str(file)}
    resolved = identity.resolve({}, environ, file.parent, settings.resolve(os.environ).store)
    return Notebook(path, resolved) if resolved.kind == "notebook" else None
