"""Writers that share blobs, a reader and a pruner in one store at once; without locks the same must break."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipyrescue.errors import CorruptError, SnapshotNotFoundError, StoreError
from ipyrescue.store import Store, lock, prune
from tests.store.conftest import load_from, save_to
from torture.dying import forked
from torture.judging import KEY, create, problems
from torture.outcome import Outcome, scratch

KEPT = 3


def run(cases: int) -> Outcome:
    """*cases* snapshots by each of two, three, four writers; the control may take five tries until it breaks."""
    outcome, told = Outcome(), []
    for writers in (2, 3, 4):
        found, said = crowd(writers, cases)
        outcome.cases += cases * writers
        outcome.failures += [f"{writers} writers: {problem}" for problem in found]
        told.append(said)
    for _ in range(5):
        broken, _said = crowd(2, min(cases, 200), locked=False)
        if broken:
            break
    outcome.control = f"without locks: {len(broken)} broken" if broken else ""
    outcome.note = "; ".join(told)
    if not broken:
        outcome.failures.append("the control: nothing breaks without locks")
    return outcome


def crowd(writers: int, snapshots: int, *, locked: bool = True) -> tuple[list[str], str]:
    """Let them loose on a new store; what is wrong afterwards or was wrong meanwhile, and what the pruner managed."""
    with scratch() as folder:
        root = create(folder / "store").root
        names = [f"writer {number}" for number in range(writers)]
        working = [_start(_write, folder, root, name, snapshots, locked=locked) for name in names]
        serving = [_start(serve, folder, root, name, 0, locked=locked) for name, serve in SERVING.items()]
        for child in working:
            os.waitpid(child, 0)
        (folder / "enough").touch()
        for child in serving:
            os.waitpid(child, 0)
        said = {name: _said(folder / name) for name in (*names, *SERVING)}
        found = [f"{name}: {problem}" for name, answer in said.items() for problem in answer["problems"]]
        found += problems(root, {})
        pruned, of = said["pruner"]["pruned"], writers * snapshots
        if locked and not pruned:
            found.append(f"the pruner starved beside {of} snapshots")
        return found, f"{pruned} prunes beside {of} snapshots of {writers} writers"


def _start(
    work: Callable[..., dict[str, Any]], folder: Path, root: Path, name: str, count: int, *, locked: bool
) -> int:
    def body() -> None:
        if not locked:
            lock.shared = lock.exclusive = lambda *args, **kwargs: contextlib.nullcontext()  # type: ignore[assignment]
        answer = work(root, name, count, folder / "enough")
        (folder / name).write_text(json.dumps(answer))

    return forked(body)


def _said(path: Path) -> dict[str, Any]:
    """What a process answered; one that answered nothing died."""
    return json.loads(path.read_text()) if path.exists() else {"problems": ["it died"], "pruned": 0}


def _write(root: Path, name: str, count: int, enough: Path) -> dict[str, Any]:
    """Snapshots of a few contents that recur, here and in the others; each forgets its older ones."""
    store, rng, found = Store.open(root, KEY), random.Random(name), []
    for number in range(count):
        shared = [b"shared %d" % rng.randrange(7) * 900, b"rare %d" % rng.randrange(50) * 300]
        try:
            save_to(store, *shared, f"{name} {number}".encode() * 90, notebook=name)
            for snapshot in store.snapshots(name)[KEPT:]:
                store.forget(snapshot.id)
        except StoreError as error:
            found.append(str(error))
    return {"problems": found}


def _read(root: Path, name: str, count: int, enough: Path) -> dict[str, Any]:
    """What cannot be read although its manifest is still there when it was tried."""
    found = []
    while not enough.exists():
        store = Store.open(root, KEY)
        for snapshot in store.snapshots()[:4]:
            try:
                load_from(store, snapshot)
            except (CorruptError, SnapshotNotFoundError) as error:
                if snapshot.id in {other.id for other in store.snapshots()}:
                    found.append(str(error))
    return {"problems": found}


def _prune(root: Path, name: str, count: int, enough: Path) -> dict[str, Any]:
    """As often as it can; a writer that is busy is waited for, as `tidy` does by coming again."""
    store, pruned, found = Store.open(root, KEY), 0, []
    while not enough.exists():
        try:
            pruned += prune.prune(store) is not None
        except StoreError as error:
            found.append(str(error))
        time.sleep(0.002)
    return {"problems": found, "pruned": pruned}


SERVING = {"reader": _read, "pruner": _prune}
