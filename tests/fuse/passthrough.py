"""A file system in user space that shows a folder, and lies or fails as it is told: passthrough.py FOLDER MOUNT FAULTS.

Needs mfusepy and fuse3. FAULTS is a file with a word for each fault in force, looked at in each call:

    link-lost unlink-lost rename-lost    it is done, the answer is lost, and it is refused when asked again (NFS)
    link-EPERM rename-ENOSYS ...         a call and the error that it answers
    write-ENOSPC flush-ENOSPC fsync-EIO fsyncdir-EIO ...    the same; flush is what close(2) waits for
    locks-lie                            every lock is granted
    modes-lie                            chmod does nothing
    clock-7200 clock+7200                all times are so many seconds off

ENOSYS to link, fsync and fsyncdir is believed by the kernel for good, so it is none of them.
Prints a line once it is mounted, and unmounts when it is told to end (SIGTERM).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import Any

import mfusepy

_LOST = {"link-lost": errno.EEXIST, "unlink-lost": errno.ENOENT, "rename-lost": errno.ENOENT}
_TIMES = ("st_atime", "st_mtime", "st_ctime")
_SHOWN = ("st_dev", "st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")


class Passthrough(mfusepy.Operations):  # type: ignore[misc,unused-ignore]
    """Every call goes to the folder; each method asks first which faults are in force."""

    use_ns = True

    def __init__(self, folder: str, faults: str) -> None:
        self._folder, self._faults = folder, Path(faults)
        self._known: tuple[object, set[str]] = (None, set())
        self._written: set[int] = set()

    def init(self, path: str) -> None:
        """Told once the kernel and we agree."""
        print("mounted", flush=True)

    def _real(self, path: str) -> str:
        return self._folder + path

    def _now(self, call: str) -> set[str]:
        """The faults in force; raises the error that *call* is to answer."""
        status = os.stat(self._faults)
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._known[0]:
            self._known = version, set(self._faults.read_text().split())
        for fault in self._known[1]:
            name, _, code = fault.partition("-")
            if name == call and hasattr(errno, code):
                raise mfusepy.FuseOSError(getattr(errno, code))
        return self._known[1]

    def _answered(self, call: str, faults: set[str]) -> int:
        if f"{call}-lost" in faults:
            raise mfusepy.FuseOSError(_LOST[f"{call}-lost"])
        return 0

    # --- files and names

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.fstat(fh) if fh is not None else os.lstat(self._real(path))
        ahead = next((int(fault[5:]) for fault in self._now("getattr") if fault.startswith("clock")), 0)
        times = {name: getattr(found, f"{name}_ns") + ahead * 10**9 for name in _TIMES}
        return {**{name: getattr(found, name) for name in _SHOWN}, **times}

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        """Each with its inode: glibc takes an entry without one for a deleted one."""
        self._now("readdir")
        names = [".", "..", *os.listdir(self._real(path))]
        found = [(name, os.lstat(os.path.join(self._real(path), name))) for name in names]
        return [(name, {"st_mode": status.st_mode, "st_ino": status.st_ino}, 0) for name, status in found]

    def mkdir(self, path: str, mode: int) -> int:
        self._now("mkdir")
        os.mkdir(self._real(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        self._now("rmdir")
        os.rmdir(self._real(path))
        return 0

    def unlink(self, path: str) -> int:
        faults = self._now("unlink")
        os.unlink(self._real(path))
        return self._answered("unlink", faults)

    def rename(self, old: str, new: str) -> int:
        faults = self._now("rename")
        os.rename(self._real(old), self._real(new))
        return self._answered("rename", faults)

    def link(self, target: str, source: str) -> int:
        faults = self._now("link")
        os.link(self._real(source), self._real(target))
        return self._answered("link", faults)

    def chmod(self, path: str, mode: int) -> int:
        if "modes-lie" not in self._now("chmod"):
            os.chmod(self._real(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._real(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._now("utimens")
        os.utime(self._real(path), ns=times)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._real(path) if fh is None else fh, length)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    # --- open files

    def create(self, path: str, mode: int, flags: int) -> int:
        self._now("create")
        return os.open(self._real(path), flags & ~os.O_DIRECT | os.O_CREAT, mode)

    def open(self, path: str, flags: int) -> int:
        self._now("open")
        return os.open(self._real(path), flags & ~os.O_DIRECT)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._now("read")
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._now("write")
        self._written.add(fh)
        return os.pwrite(fh, data, offset)

    def flush(self, path: str, fh: int) -> int:
        """What was written is told to be lost no later than at close(2), as NFS and SMB do."""
        if fh in self._written:
            self._now("flush")
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._now("fsync")
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._now("fsyncdir")
        return 0

    def release(self, path: str, fh: int) -> int:
        self._written.discard(fh)
        os.close(fh)
        return 0

    def flock(self, path: str, fh: int, operation: int) -> int:
        if "locks-lie" not in self._now("flock"):
            fcntl.flock(fh, operation | fcntl.LOCK_NB)
        return 0


if __name__ == "__main__":
    with contextlib.suppress(RuntimeError):  # so it is told that a signal ended it
        mfusepy.FUSE(
            Passthrough(sys.argv[1], sys.argv[3]),
            sys.argv[2],
            foreground=True,
            nothreads=True,
            use_ino=True,
            attr_timeout=1,
            entry_timeout=1,
            negative_timeout=0,
            fsname="passthrough",
            subtype="passthrough",
        )
