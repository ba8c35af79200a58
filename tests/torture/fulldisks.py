"""Disks that are really full: every free size in steps of a page, and every number of files that there is room for.

On tmpfs, ext4 and xfs the system says so at once. A thin disk, which promises more than there is, says it when the
bytes leave the page cache: it is an ext4 behind a loop device whose image stands in a tmpfs that is too small.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.store.conftest import save_to
from torture import disks
from torture.faults import afterwards, attempt, unclear
from torture.judging import Contents, create, problems
from torture.outcome import Outcome

PAGE_BYTES = 4096
PAGES, FILES = range(32), range(12)
"""What is left on the disk; a snapshot needs some ten pages and two files, with its store twenty and twelve."""
XFS_PAGES = range(0, 128, 4)
"""The same of xfs, which keeps some for itself."""
_OLD = [b"old" * 5000, b"shared" * 1000]
_THIN_BYTES, _ENOUGH_BYTES = 32 << 20, 64 << 20

Filled = Callable[[Path, int], contextlib.AbstractContextManager[None]]
"""Leaves so much room on the disk at a folder, for as long as its context lasts."""
_Room = tuple[str, range, Filled]


def run(cases: int) -> Outcome:
    """Some *cases*, spread over all sizes of all disks, of which there are 272."""
    return disks.apart(lambda place: _run(cases, place))


def _run(cases: int, place: Path) -> Outcome:
    outcome = Outcome(note="tmpfs, ext4 and xfs, a new and a used store; a thin ext4")
    every = 2 * (2 * len(PAGES) + len(XFS_PAGES) + 2 * len(FILES)) + len(PAGES)
    step = max(1, every // cases)
    for name, disk, rooms in _disks(place):
        with disk as folder:
            for (what, left, filled), new in itertools.product(rooms, (False, True)):
                for number in left[::step]:
                    _fill(outcome, f"{name}, {number} {what} left", folder, partial(filled, folder, number), new=new)
    _thin(outcome, place, PAGES[::step])
    return outcome


def _disks(place: Path) -> Iterator[tuple[str, contextlib.AbstractContextManager[Path], list[_Room]]]:
    """Disks by name, and what there can be too little of. An xfs makes room for files as long as it has pages."""
    small = "-m", "0", "-b", "4096", "-N", "128"
    pages, files = ("pages", PAGES, _pages_left), ("files", FILES, _files_left)
    yield "tmpfs", disks.in_memory(place / "tmpfs", "size=4m,nr_inodes=200"), [pages, files]
    yield "ext4", disks.Disk.made("ext4", place, 16 << 20, *small).mounted(), [pages, files]
    yield "xfs", disks.Disk.made("xfs", place, 320 << 20).mounted(), [("pages", XFS_PAGES, _pages_left)]


def _fill(
    outcome: Outcome, case: str, folder: Path, full: Callable[[], contextlib.AbstractContextManager[None]], *, new: bool
) -> None:
    """One snapshot on a full disk, in a store that is there or, where *new*, is not."""
    root = folder / "store"
    kept: Contents = {} if new else {save_to(create(root), *_OLD).id: _OLD}
    with full():
        said, message = attempt(root)
        wrong = unclear(said, message)
        if message and "no space left" not in message:
            wrong.append(f"it does not say that the disk is full: {message}")
        if (root / "format.json").exists():
            wrong += problems(root, kept, said=said)
        left = os.listdir(root / "tmp") if (root / "tmp").exists() else []
        wrong += [f"tmp/ keeps {left}"] * bool(left)
    outcome.count(f"{case}, {'new' if new else 'used'} store", [*wrong, *afterwards(root, kept)])
    shutil.rmtree(root)


@contextlib.contextmanager
def _pages_left(folder: Path, pages: int) -> Iterator[None]:
    ballast, offset, step = folder / "ballast", 0, 1 << 30
    with open(ballast, "wb") as file:
        while step and (excess := os.statvfs(folder).f_bavail - pages) > 0:
            step = min(step, excess)
            try:
                os.posix_fallocate(file.fileno(), offset, step * PAGE_BYTES)
                offset += step * PAGE_BYTES
            except OSError:  # the file system needs some of it to note down where the ballast lies
                step //= 2
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def _files_left(folder: Path, files: int) -> Iterator[None]:
    ballast = folder / "ballast"
    ballast.mkdir()
    for number in itertools.count():
        if os.statvfs(folder).f_ffree <= files:
            break
        (ballast / str(number)).touch()
    try:
        yield
    finally:
        shutil.rmtree(ballast)


def _thin(outcome: Outcome, place: Path, left: range) -> None:
    """The disk says that it has room, and has not; once there is more below it, it is mounted again."""
    pattern = disks.Disk.made("ext4", place, _THIN_BYTES, "-m", "0")
    with pattern.mounted() as folder:
        kept = {save_to(create(folder / "store"), *_OLD).id: _OLD}
    for pages in left:
        with disks.in_memory(place / "below", f"size={_ENOUGH_BYTES}") as below:
            disk = disks.Disk(below / "image", pattern.folder)
            disks.copy_sparse(pattern.image, disk.image)
            used = os.statvfs(below).f_blocks - os.statvfs(below).f_bfree
            disks.remount(below, f"size={(used + pages) * PAGE_BYTES}")
            with disk.mounted() as folder:
                said, message = attempt(folder / "store")
                wrong = unclear(said, message) + problems(folder / "store", kept, said=said)
            disks.remount(below, f"size={_ENOUGH_BYTES}")
            with disk.mounted() as folder:
                wrong += problems(folder / "store", kept, said=said) + afterwards(folder / "store", kept)
            outcome.count(f"thin ext4, {pages} pages left below", wrong)
