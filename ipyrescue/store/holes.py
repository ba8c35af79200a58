"""Ranges of a file to holes in it: their bytes go back to the file system, and every other byte stays where it is.

fallocate(2) with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE (Linux 2.6.38; ext4, xfs, btrfs, tmpfs, NFS 4.2).
Nothing is copied, so no space is needed to free some; what a manifest names keeps its pack, its offset and its bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ipyrescue.store import atomic
from ipyrescue.store.usage import Range

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_NO_HOLES = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM, errno.ETXTBSY}


def punch(path: Path, ranges: Iterable[Range]) -> bool:
    """Give the bytes of *ranges* back, durably; whether the file system can do that. Raises OSError, StoreError."""
    if sys.platform != "linux":
        return False
    fd = _open_writable(path)
    try:
        for start, end in ranges:
            if not _punch(fd, start, end):
                return False
        atomic.sync_file(fd)
    finally:
        os.close(fd)
    return True


def are_refused(status: os.stat_result) -> bool:
    """Whether the file is another user's, who alone could make it writable for the moment that this takes."""
    return sys.platform != "win32" and os.geteuid() not in (0, status.st_uid)


def _open_writable(path: Path) -> int:
    """Open a pack that nobody may write; it is so again before a byte of it is touched. Raises OSError, StoreError."""
    reading, status = atomic.open_regular(path)
    read_only = 0o400 | status.st_mode & 0o040
    try:
        os.fchmod(reading, read_only | 0o200)
        try:
            return os.open(path, os.O_RDWR | atomic.SAFE_FLAGS)
        finally:
            os.fchmod(reading, read_only)
    finally:
        os.close(reading)


def _punch(fd: int, start: int, end: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = libc.fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, end - start) != 0:
        number = ctypes.get_errno()
        if number in _NO_HOLES:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
