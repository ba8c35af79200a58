"""Former names of a notebook: a kernel that died under a name whose file is gone, and whose cells are in this file.

A kernel learns its notebook's name when it starts and is not told of a rename. A copy of a notebook has the same
cells, but then the file of the first name is still there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ipyrescue.identity import Identity
from ipyrescue.store import lives

_LARGEST_NOTEBOOK_BYTES = 64 << 20


def former_names(identity: Identity) -> frozenset[str]:
    """The names under which this notebook's earlier kernels knew it."""
    if identity.path is None:
        return frozenset()
    lost = [
        life
        for life in lives.read_all(identity.store_root)
        if life.kind == "notebook"
        and life.cell_ids
        and life.notebook != identity.notebook
        and not os.path.exists(identity.store_root.parent / life.notebook)  # Path.exists raises for too long a name
    ]
    cells = _cell_ids(identity.path) if lost else frozenset()
    return frozenset(life.notebook for life in lost if cells.intersection(life.cell_ids))


def _cell_ids(notebook: Path) -> frozenset[str]:
    """The ids of a notebook's cells (nbformat 4.5); none where the file cannot be read."""
    try:
        if notebook.stat().st_size > _LARGEST_NOTEBOOK_BYTES:
            return frozenset()
        cells = json.loads(notebook.read_bytes())["cells"]
        return frozenset(str(cell["id"]) for cell in cells if "id" in cell)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
