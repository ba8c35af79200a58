"""A store of one user to one that a group writes to: owners, modes and the mark that says so. Reads no contents.

As `git init --shared` has it: folders with set-group-ID, so that whatever is made in them belongs to the group, and
files that the group reads. Only the owner of a store can do that, and nothing here opens it to the world.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic, layout, lock, ownership

_LOCK_SECONDS = 60.0
_MARK = b"The members of this file's group write to this store: see FORMAT.md of ipyrescue.\n"


def share(root: Path, gid: int) -> None:
    """Let the members of the group *gid* read and write the store at *root*, made if it is not there.

    Runs stay their owner's. What is interrupted leaves a store that nobody writes to, until this was done again.
    Raises StoreError, StoreBusyError.
    """
    if not (root / "format.json").exists():
        layout.create(root)
    layout.read_store_id(root)
    _require_owner(root)
    with lock.exclusive(root, _LOCK_SECONDS), atomic.explained("share", root):
        folders = [root, *(folder for name in layout.FOLDERS if (folder := root / name).exists())]
        for folder in folders:
            _open_folder(folder, gid)
        for path in _files(folders):
            _open_file(path, gid)
        atomic.replace(root / ownership.SHARED_MARK, _MARK, durable=True, mode=0o440)


def _require_owner(root: Path) -> None:
    status = os.lstat(root)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StoreError(
            f"{root} is a link or belongs to uid {status.st_uid}, not to you (uid {os.geteuid()}), so it was not "
            "shared. Type it as its owner."
        )


def _open_folder(folder: Path, gid: int) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | atomic.SAFE_FLAGS)
    try:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, ownership.SHARED_FOLDER)
    finally:
        os.close(fd)


def _files(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False))


def _open_file(path: Path, gid: int) -> None:
    """Give the group what the owner may do; a link or a device that was planted is left alone."""
    fd, status = atomic.open_regular(path)
    try:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, stat.S_IMODE(status.st_mode) | (status.st_mode & 0o600) >> 3)
    finally:
        atomic.close_read(fd)
