"""A store's root into its snapshots, for readers who ask often: what was parsed once is kept.

Reads only: it creates no store and no key. Without a key nothing can be checked, so all that is there counts as
another's.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import OrderedDict
from pathlib import Path

from ipyrescue import settings
from ipyrescue.errors import UntrustedError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, signing
from ipyrescue.store.signing import Key

_NO_KEY = Key(secrets.token_bytes(32))
MOST_STORES = 16
"""So many stay in memory; the one that was asked for the longest ago goes first."""


class Stores:
    """The stores that a server has read."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, Store] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, root: Path) -> Store | None:
        """The store at *root*, None where there is none. Raises `StoreError` where it is damaged."""
        if not root.exists():
            return None
        opened = Store.open(root, _key())
        with self._lock:
            known = self._open.get(root)
            if known is None or (known.id, known.key) != (opened.id, opened.key):
                self._open[root] = known = opened
            self._open.move_to_end(root)
            while len(self._open) > MOST_STORES:
                self._open.popitem(last=False)
            return known

    def snapshots(self, root: Path) -> list[Snapshot]:
        """All that can be read, newest first, of whatever notebook. Raises `StoreError`."""
        store = self.open(root)
        return store.snapshots() if store is not None else []


def key_path() -> Path:
    """Where the key stands that kernels of this server sign with."""
    return settings.resolve(os.environ).key_file or signing.key_path()


def _key() -> Key:
    try:
        return signing.load_key(key_path())
    except UntrustedError:
        return _NO_KEY
