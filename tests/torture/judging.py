"""A store after an accident to what is wrong with it: lost, half visible, unusable, untidy."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ipyrescue.errors import RescueError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, prune
from ipyrescue.store.signing import Key
from tests.store.conftest import load_from, save_to

KEY = Key(b"k" * 32)
Contents = Mapping[str, list[bytes]]
"""What each snapshot must hold, by its id."""


def create(root: Path) -> Store:
    """The store at *root*, made if it is not there."""
    return Store.open(root, KEY, create=True)


def problems(root: Path, kept: Contents, *, said: Collection[str] = ()) -> list[str]:
    """Every earlier snapshot is there bit for bit, what is visible is complete, what was said to be saved is there."""
    store = Store.open(root, KEY)
    visible = {snapshot.id: snapshot for snapshot in store.snapshots()}
    found = [f"{item.name} cannot be read: {item.error}" for item in store.unreadable()]
    found += [f"{lost} is lost" for lost in sorted({*kept, *said} - visible.keys())]
    for snapshot in visible.values():
        contents = readable(store, snapshot)
        if isinstance(contents, str):
            found.append(f"{snapshot.id} is visible and damaged: {contents}")
        elif snapshot.id in kept and contents != kept[snapshot.id]:
            found.append(f"{snapshot.id} is not what was saved")
    return found


def readable(store: Store, snapshot: Snapshot) -> list[bytes] | str:
    """The bytes of its blobs, or why they cannot be had."""
    try:
        return load_from(store, snapshot)
    except RescueError as error:
        return str(error)


def goes_on(root: Path) -> list[str]:
    """The next snapshot succeeds, and after a prune nothing unfinished is left."""
    store = create(root)
    again = save_to(store, b"the next one" * 700)
    found = [] if load_from(store, again) == [b"the next one" * 700] else ["the next snapshot is not what was saved"]
    if prune.prune(store) is None:
        found.append("a lock stayed behind")
    left = os.listdir(root / "tmp")
    return found + [f"tmp/ keeps {left}"] * bool(left)
