"""Small real file systems of our own: an image in memory behind a loop device, mounted where nobody else sees it.

Needs root. What an experiment mounts stands in a mount namespace of a child process, and goes with it however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torture.dying import forked
from torture.outcome import Outcome, scratch

_PROGRAMS = {"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mount": "mount", "umount": "mount"}
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_NEW_MOUNT_NAMESPACE = 0x00020000
_SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN, _IOR('X', 125, __u32): what ext4 and xfs have for testing just this."""

LOG_FLUSHED, LOG_DROPPED = 1, 2
"""The journal goes to the disk before the end, or does not; what stands in the page cache alone never does."""


def missing() -> str:
    """What has to be done before disks can be made here; nothing where all is there."""
    if os.geteuid() != 0:
        return "needs root, since it mounts file systems of its own: sudo -E make torture"
    packages = sorted({package for name, package in _PROGRAMS.items() if not shutil.which(name, path=_PATH)})
    if packages:
        return f"apt-get install {' '.join(packages)}"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices, and there is no /dev/loop-control (in a container: docker run --privileged)"
    return ""


def apart(work: Callable[[Path], Outcome]) -> Outcome:
    """What *work* found in a folder of its own, in a child whose mounts are its own."""
    with scratch() as folder:
        answer, place = folder / "outcome", folder / "disks"
        place.mkdir()

        def body() -> None:
            _leave_the_others()
            answer.write_text(json.dumps(dataclasses.asdict(work(place))))

        status = os.waitpid(forked(body), 0)[1]
        if status:
            return Outcome(failures=[f"its process ended with status {status}; stderr says more"])
        return Outcome(**json.loads(answer.read_text()))


@dataclass(frozen=True)
class Disk:
    """A file system in the file *image*; what is mounted stands at *folder*."""

    image: Path
    folder: Path

    @classmethod
    def made(cls, kind: str, place: Path, size_bytes: int, *options: str) -> Disk:
        """A new and empty one of *kind* (`ext4`, `xfs`), named after it."""
        disk = cls(place / f"{kind}.img", place / kind)
        disk.folder.mkdir(exist_ok=True)
        with open(disk.image, "wb") as image:
            image.truncate(size_bytes)
        _call(f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", *options, str(disk.image))
        return disk

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """There for as long as the context lasts; the file system mends itself from its journal."""
        _call("mount", "-o", "loop", str(self.image), str(self.folder))
        try:
            yield self.folder
        finally:
            _call("umount", str(self.folder))


@contextlib.contextmanager
def in_memory(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at *folder*, which is made, of the size or number of files that *options* allow."""
    folder.mkdir(exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "none", str(folder))
    try:
        yield folder
    finally:
        _call("umount", str(folder))


def remount(folder: Path, options: str) -> None:
    """Change what a mounted file system allows."""
    _call("mount", "-o", f"remount,{options}", str(folder))


def copy_sparse(image: Path, to: Path) -> None:
    """Copy an image; where it has zeros the copy takes no room."""
    _call("cp", "--sparse=always", str(image), str(to))


def pull_the_plug(folder: Path, how: int) -> float:
    """Let the file system at *folder* write nothing any more; return the monotonic time of just before."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        before = time.monotonic()
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", how))
        return before
    finally:
        os.close(fd)


def _leave_the_others() -> None:
    """Mount from here on for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNT_NAMESPACE):
        number = ctypes.get_errno()
        raise OSError(number, f"a mount namespace of our own: {os.strerror(number)}")
    _call("mount", "--make-rprivate", "/")


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": _PATH})
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
