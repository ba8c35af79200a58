"""Another key's snapshot to one of ours, after a person said so. Checks every blob; unpickles nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from ipyrescue.errors import CorruptError, RescueError, SnapshotNotFoundError, UntrustedError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import layout
from ipyrescue.store.catalog import Catalog, Foreign

if TYPE_CHECKING:
    from ipyrescue.store.store import Store


FOREIGN_LIMIT_BYTES = 64 << 20
"""A manifest that nobody vouches for is parsed up to this size; a snapshot of a terabyte needs less."""


_MOST_AHEAD = 1_000_000


def foreign(catalog: Catalog) -> list[Foreign]:
    """The snapshots that another key signed, as they describe themselves, oldest first; those that can be parsed."""
    found = []
    for name in _names(catalog):
        with contextlib.suppress(RescueError, FileNotFoundError):
            found.append(_read(catalog, name))
    return found


def untrusted(catalog: Catalog, id_prefix: str) -> Foreign:
    """The one snapshot signed by another key whose id begins so, parsed strictly but without a check of its MAC."""
    there = _names(catalog)
    names = [name for name in there if name[11:].startswith(id_prefix)]
    if len(names) != 1:
        known = ", ".join(name[11:19] for name in there) or "none"
        raise SnapshotNotFoundError(
            f"{id_prefix!r} is not the id of exactly one snapshot that another key signed. There are: {known}."
        )
    try:
        return _read(catalog, names[0])
    except FileNotFoundError:
        raise SnapshotNotFoundError(f"Snapshot {names[0][11:19]} was forgotten meanwhile.") from None


def _names(catalog: Catalog) -> list[str]:
    return [item.name for item in catalog.unreadable() if isinstance(item.error, UntrustedError)]


def trust(store: Store, shown: Foreign) -> Snapshot:
    """Publish *shown* again under a new id with our signature, then remove the other's file. Raises StoreError.

    Who can write into the store could put another in its place after a person saw it: that is refused.
    The sequence number stays, so that the order of snapshots does, but for one that is so far ahead of ours that it
    was made up: numbers would be used up. The first damaged blob stops it.
    """
    with store.writing():
        theirs = shown.snapshot
        if untrusted(store.catalog, theirs.id) != shown:
            raise UntrustedError(f"Snapshot {theirs.id[:8]} was not signed: it is not what was shown any more.")
        damage = store.verify(theirs)
        if damage:
            raise CorruptError(f"Snapshot {theirs.id[:8]} was not signed, for it is damaged: {damage[0]}.")
        ours = dataclasses.replace(theirs, id=secrets.token_hex(8), sequence=_number(store, theirs))
        store.commit(ours)
        store.catalog.forget(shown.path.name)
    return ours


def _number(store: Store, foreign: Snapshot) -> int:
    highest = max((snapshot.sequence for snapshot in store.snapshots()), default=0)
    return foreign.sequence if foreign.sequence <= highest + _MOST_AHEAD else highest + 1


def described(path: Path, body: bytes) -> Snapshot:
    """What the *body* of a manifest says that nobody vouches for. Raises CorruptError."""
    if len(body) > FOREIGN_LIMIT_BYTES:
        raise CorruptError(f"{path} has {len(body)} bytes, and nobody whom you know signed it.")
    return Snapshot.from_bytes(body)


def _read(catalog: Catalog, name: str) -> Foreign:
    signed, status = catalog.body(name)
    snapshot = described(catalog.path(name), signed.body)
    if layout.snapshot_name(snapshot.sequence, snapshot.id) != name:
        raise CorruptError(f"{catalog.path(name)} bears another snapshot's name.")
    return Foreign(snapshot, catalog.path(name), status.st_uid, snapshot.host, signed.fingerprint, snapshot.created)
