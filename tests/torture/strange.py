"""A file system that lies or lacks, by FUSE: the whole life of a store on each of them. Needs fuse3 and mfusepy."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from fuse.mounting import Mounted, mounted

from ipyrescue.errors import RescueError, StoreError
from ipyrescue.store import atomic, layout, lives, lock, prune
from tests.store.conftest import save_to
from torture.judging import create, goes_on, problems
from torture.outcome import Outcome, scratch

OLD = [b"old" * 5000, b"shared" * 1000]
NEW = [b"new" * 9000, b"shared" * 1000]
_numbers = itertools.count()


@dataclass(frozen=True)
class Strange:
    """A kind of file system: the *faults* of `passthrough.py` that make it, and whether its locks hold others off."""

    name: str
    faults: tuple[str, ...]
    locks: bool = True


BEARABLE = (
    Strange("nothing is wrong", ()),
    Strange("a link is made and denied (NFS)", ("link-lost",)),
    Strange("an unlink is done and denied (NFS)", ("unlink-lost",)),
    Strange("both are", ("link-lost", "unlink-lost")),
    Strange("no links, EPERM (FAT)", ("link-EPERM",)),
    Strange("no links, ENOTSUP (SMB)", ("link-ENOTSUP",)),
    Strange("a rename is done and denied (NFS)", ("rename-lost",)),
    Strange("no links, and a rename is done and denied", ("link-EPERM", "rename-lost")),
    Strange("no locks, ENOSYS", ("flock-ENOSYS",), locks=False),
    Strange("no locks, ENOLCK (NFS without lockd)", ("flock-ENOLCK",), locks=False),
    Strange("locks that hold nobody off", ("locks-lie",), locks=False),
    Strange("no links, no locks", ("link-ENOTSUP", "flock-ENOTSUP"), locks=False),
    Strange("its clock is two hours behind", ("clock-7200",)),
    Strange("its clock is two days ahead", ("clock+172800",)),
    Strange("modes stay as they are", ("modes-lie",)),
    Strange("folders cannot be fsynced", ("fsyncdir-EINVAL",)),
)
"""All that a store does works on these; where locks hold nobody off, nothing is freed."""

FAILING = tuple(
    Strange(f"{code} {where}", (f"{call}-{code}",))
    for call, where, codes in (
        ("flush", "at close", ("ENOSPC", "EDQUOT", "EIO", "ESTALE")),
        ("fsync", "at fsync", ("EIO", "ENOSPC", "EDQUOT", "ESTALE")),
        ("write", "at a write", ("ENOSPC", "EIO", "EDQUOT")),
        ("fsyncdir", "at fsync of a folder", ("EIO", "ENOSPC")),
        ("create", "when a file is made", ("ENOSPC", "EACCES", "EROFS")),
        ("link", "at a link", ("EIO", "ENOSPC", "EXDEV")),
    )
    for code in codes
)
"""Each costs the snapshot that meets it, in a sentence, and nothing else."""

REFUSED = (
    Strange("no rename, ENOSYS (Mountpoint for S3)", ("rename-ENOSYS",)),
    Strange("no rename, EPERM", ("rename-EPERM",)),
    Strange("no fsync, EINVAL", ("fsync-EINVAL",)),
)
"""No store is made on these."""


CALLS = ("open", "writev", "fsync", "fchmod", "link", "unlink")
"""In each of these a file system may be gone all of a sudden."""


def run(cases: int) -> Outcome:
    """All of them, again and again until there were as many as *cases*."""
    outcome = Outcome()
    with scratch() as folder, mounted(folder) as system:
        while outcome.cases < cases or not outcome.cases:
            for strange in BEARABLE:
                outcome.count(strange.name, lives_on(system, strange))
            for strange in FAILING:
                outcome.count(strange.name, costs_one_snapshot(system, strange))
            for strange in REFUSED:
                outcome.count(strange.name, holds_no_store(system, strange))
            for call in CALLS:
                outcome.count(f"it is gone at {call}", goes_away(folder / f"away{outcome.cases}", call))
        broken = without_looking_twice(system)
        outcome.control = f"without looking twice at links and locks: {len(broken)} of {len(BEARABLE)} broken"
        if len(broken) < 4:
            outcome.failures.append(f"the control is not broken: {outcome.control}")
    return outcome


def without_looking_twice(system: Mounted) -> list[Strange]:
    """Those that break where an answer is believed: EEXIST of a link, and that a lock was granted."""
    with mock.patch.object(atomic, "_is", return_value=False), mock.patch.object(lock, "_excludes", return_value=True):
        return [strange for strange in BEARABLE if lives_on(system, strange)]


def lives_on(system: Mounted, strange: Strange) -> list[str]:
    """A store is made, written, read, verified, pinned, thinned and freed there: what went wrong."""
    with system.faulty(*strange.faults):
        try:
            return list(_life(_fresh(system), strange))
        except (RescueError, OSError) as error:
            return [repr(error)]


def _life(root: Path, strange: Strange) -> Iterator[str]:
    store = create(root)
    first, gone, last = save_to(store, *OLD), save_to(store, b"gone" * 5000), save_to(store, *NEW)
    store.pin(first.id)
    store.forget(gone.id)
    if store.pins() != {first.id}:
        yield f"pinned are {store.pins()}"
    life = lives.Life("b" * 16, "a.ipynb", "notebook", 1, 1, None, None, "here", "2026-11-21")
    lives.write(root, life, durable=True)
    lives.touch(root, life.incarnation)
    if lives.read_all(root) != [life]:
        yield "its life record is another one"
    with lock.shared(root, 1.0):
        if prune.prune(store) is not None:
            yield "a prune went on beside a writer"
    pruned = prune.prune(store)
    if (pruned.packs if pruned else 0) != int(strange.locks):
        yield f"the prune freed {pruned}"
    yield from _left(root)
    yield from problems(root, {first.id: OLD, last.id: NEW}, said=[first.id, last.id])


def costs_one_snapshot(system: Mounted, strange: Strange) -> list[str]:
    """A snapshot into a used store and into a new one, while nothing of the kind works: what is wrong then, and after.

    From the link of its manifest on the snapshot may be there, and then it is complete.
    """
    root, new = _fresh(system), _fresh(system)
    kept = {save_to(create(root), *OLD).id: OLD}
    with system.faulty(*strange.faults):
        found = [*_attempt(root), *_attempt(new)]
    return [*found, *_left(root), *problems(root, kept), *goes_on(root), *goes_on(new)]


def _attempt(root: Path) -> list[str]:
    return _said(lambda: save_to(create(root), *NEW))


def _said(attempt: Callable[[], object]) -> list[str]:
    """What is wrong with how the failure of *attempt* was told."""
    try:
        attempt()
    except StoreError as error:
        return [] if str(error).endswith(".") else [f"it was said without a sentence: {error}"]
    except OSError as error:
        return [f"it was not said in a sentence: {error!r}"]
    return ["it was said to be saved"]


def holds_no_store(system: Mounted, strange: Strange) -> list[str]:
    """It is refused in a sentence, and nothing is left."""
    root = _fresh(system)
    with system.faulty(*strange.faults):
        try:
            create(root)
        except StoreError as error:
            found = [] if "cannot be a store" in str(error) else [f"it was said: {error}"]
        else:
            found = ["a store was made"]
    return [*found, f"{sorted(os.listdir(root))} stayed"] if root.exists() else found


def goes_away(folder: Path, call: str) -> list[str]:
    """The server dies at the first *call* of a snapshot: it is said, and once it is back nothing is missing.

    The unlink comes when the pack has its name: that snapshot fails as well.
    """
    folder.mkdir()
    root = folder / "mount" / ".ipyrescue"
    with mounted(folder) as system:
        kept = {save_to(create(root), *OLD).id: OLD}
        store, real = create(root), getattr(os, call)
        with mock.patch.object(os, call, side_effect=lambda *a, **k: (system.go_away(), real(*a, **k))[1]):
            found = _said(lambda: save_to(store, *NEW))
    with mounted(folder):
        return [*found, *problems(root, kept), *goes_on(root)]


def _left(root: Path) -> list[str]:
    left = os.listdir(layout.temporary(root))
    return [f"tmp/ keeps {left}"] if left else []


def _fresh(system: Mounted) -> Path:
    return system.root / f"{next(_numbers)}" / ".ipyrescue"
