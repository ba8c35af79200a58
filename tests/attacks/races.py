"""Somebody swaps files and folders for links, as fast as he can, while the store is read and swept.

The look and the step are one system call apart, so nothing may rest on the look alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attacks.nest import Nest, deadline, inventory
from ipyrescue.errors import RescueError
from ipyrescue.store import layout, prune
from tests.store.conftest import load_from

_DEADLINE_SECONDS = 300


def race(nest: Nest, rounds: int) -> list[str]:
    """So many rounds of reading, and of sweeping; what went wrong."""
    treasures = [nest.outside / name / "treasure" for name in ("packs", "tmp")]
    for treasure in (*treasures, nest.outside / "packs" / f"{'0' * 16}.pack"):
        treasure.parent.mkdir(exist_ok=True)
        treasure.write_bytes(b"gold")
    outside, right = inventory(nest.outside), load_from(nest.store(), nest.newer)
    found: list[str] = []
    with deadline(_DEADLINE_SECONDS):
        files = [(nest.manifest(nest.newer), nest.treasure), (nest.pack(nest.newer), nest.treasure)]
        with _swapping(files):
            found += [problem for _ in range(rounds) for problem in _reading(nest, right)]
        folders = [(layout.temporary(nest.root), treasures[1].parent), (layout.packs(nest.root), treasures[0].parent)]
        with _swapping(folders):
            found += [problem for _ in range(rounds) for problem in _sweeping(nest)]
    return found + ["something outside of the store was changed"] * (inventory(nest.outside) != outside)


def _reading(nest: Nest, right: list[bytes]) -> Iterator[str]:
    try:
        store = nest.store()
        visible = [snapshot for snapshot in store.snapshots() if snapshot.id == nest.newer.id]
        if visible and load_from(store, visible[0]) != right:
            yield "other bytes were believed"
    except RescueError:
        pass


def _sweeping(nest: Nest) -> Iterator[str]:
    with contextlib.suppress(RescueError):
        prune.prune(nest.store())
    yield from ()


@contextmanager
def _swapping(pairs: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """Each path is itself, then a link to a target, then itself again, all the time."""
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for path, target in pairs:
                aside = path.with_name(f"{path.name}.aside")
                os.rename(path, aside)
                path.symlink_to(target)
                path.unlink()
                os.rename(aside, path)

    swapper = threading.Thread(target=swap, name="swapper")
    swapper.start()
    try:
        yield
    finally:
        ended.set()
        swapper.join()
