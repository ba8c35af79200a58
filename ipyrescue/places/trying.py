"""A store, or the place where one would be, to what came of trying out its file system there. Leaves nothing behind.

In a store it holds the shared lock, so that no prune sweeps its files away; elsewhere it has a folder of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ipyrescue.errors import StoreError
from ipyrescue.store import layout, lock
from ipyrescue.store.probe import Probed, probe

_LOCK_SECONDS = 10.0


def try_out(store_root: Path) -> Probed:
    """Probe where the store *store_root* is, or would be made; it says so where nothing can be written there."""
    try:
        with _folder(store_root) as folder:
            return probe(folder)
    except StoreError as error:
        return Probed({}, failure=str(error))
    except OSError as error:
        return Probed({}, failure=error.strerror or str(error))


@contextlib.contextmanager
def _folder(store_root: Path) -> Iterator[Path]:
    if (store_root / "format.json").exists():
        layout.check_writable(store_root)
        with lock.shared(store_root, _LOCK_SECONDS):
            yield layout.temporary(store_root)
        return
    above = next(folder for folder in (store_root, *store_root.absolute().parents) if folder.is_dir())
    folder = Path(tempfile.mkdtemp(prefix=".ipyrescue-probe-", dir=above))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
