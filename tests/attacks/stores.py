"""Stores that somebody else can write into, or that stand elsewhere than they seem to: read, and never written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attacks.nest import Nest
from attacks.visits import Case
from ipyrescue.store import layout

NOBODY = 65534


def _elsewhere(folder: Callable[[Nest], Path], nest: Nest) -> None:
    """A folder is a link to where it was moved."""
    path = folder(nest)
    moved = nest.outside / "moved"
    path.rename(moved)
    path.symlink_to(moved)


def _elsewhere_and_incomplete(nest: Nest) -> None:
    _elsewhere(lambda nest: nest.root, nest)
    shutil.rmtree(nest.outside / "moved" / "pins")


def _home(nest: Nest) -> None:
    """The store is a link to a folder of the user's that is none."""
    nest.root.rename(nest.root.with_name("old"))
    nest.root.symlink_to(nest.outside)


def _empty(nest: Nest) -> None:
    nest.root.rename(nest.root.with_name("old"))
    (nest.outside / "empty").mkdir()
    nest.root.symlink_to(nest.outside / "empty")


def _open_to(mode: int, folder: Callable[[Nest], Path], nest: Nest) -> None:
    folder(nest).chmod(mode)


def _of_nobody(folder: Callable[[Nest], Path], nest: Nest) -> None:
    os.chown(folder(nest), NOBODY, NOBODY)


def _all_of_nobody(nest: Nest) -> None:
    for path in (nest.root, *nest.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)


def _without(names: tuple[str, ...], nest: Nest) -> None:
    for name in names:
        shutil.rmtree(nest.root / name)
        (nest.root / name).write_bytes(b"a file")


def _root(nest: Nest) -> Path:
    return nest.root


FOLDERS: dict[str, Callable[[Nest], Path]] = {
    "packs": lambda nest: layout.packs(nest.root),
    "snapshots": lambda nest: layout.snapshots(nest.root),
    "kernels": lambda nest: layout.kernels(nest.root),
    "tmp": lambda nest: layout.temporary(nest.root),
}

STORES = (
    Case("the store is a link to itself", partial(_elsewhere, _root), "newer", False),
    Case("the store is a link, and lacks a folder", _elsewhere_and_incomplete, "newer", False),
    Case("the store is a link to a folder of yours", _home, None, False),
    Case("the store is a link to an empty folder of yours", _empty, None, False),
    *(
        Case(f"{name}/ is a link to itself", partial(_elsewhere, folder), "newer", False)
        for name, folder in FOLDERS.items()
    ),
    Case("everybody can write into the store", partial(_open_to, 0o777, _root), "newer", False),
    Case("everybody can write into the store, which is sticky", partial(_open_to, 0o1777, _root), "newer", False),
    Case("a group can write into the store", partial(_open_to, 0o770, _root), "newer", False),
    Case("everybody can write into packs/", partial(_open_to, 0o777, FOLDERS["packs"]), "newer", False),
    Case("everybody can write into tmp/", partial(_open_to, 0o703, FOLDERS["tmp"]), "newer", False),
    Case("tmp/ is a file", partial(_without, ("tmp",)), "newer", False),
)

STORES_OF_OTHERS = (
    Case("the store is of another user", partial(_of_nobody, _root), "newer", False),
    Case("all of the store is of another user", _all_of_nobody, "newer", False),
    Case("snapshots/ is of another user", partial(_of_nobody, FOLDERS["snapshots"]), "newer", False),
)
"""For root only, whom modes do not keep from writing."""
