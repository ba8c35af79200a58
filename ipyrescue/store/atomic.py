"""Bytes to durable files, all or nothing, and back. Knows no packs, no manifests, no keys.

A file is born in a temporary place as a `Draft` and gets its name by `Draft.publish` only when every byte of it is
durable. An error of fsync is never retried: the kernel may have dropped the dirty pages, so the draft is thrown away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.store.room import room

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

SAFE_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
READ_FLAGS = os.O_RDONLY | SAFE_FLAGS | getattr(os, "O_NONBLOCK", 0)
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE_FLAGS

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_NO_FULL_SYNC = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_SYMLINK = {errno.ELOOP, errno.EMLINK}
_NO_FILE = {errno.ENXIO, errno.ENODEV}
"""What open(2) says of a socket, or of a device that is not there."""


class Draft:
    """A file in the making: nameless to readers until `publish`, gone if that never happens."""

    def __init__(self, folder: Path, *, extra_flags: int = 0) -> None:
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
        self.fd = self._created(extra_flags)
        self._open = True

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def publish(self, final: Path, *, mode: int = 0o400) -> None:
        """Make the bytes durable, then the name. Raises OSError; FileExistsError where *final* is taken."""
        _chmod(self.fd, _mode_in(final.parent, mode))
        sync_file(self.fd)
        self._close()
        _name(self.path, final)
        sync_folder(final.parent)

    def discard(self) -> None:
        """Remove what is left of the draft; nothing, once it was published."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def _created(self, extra_flags: int) -> int:
        try:
            return os.open(self.path, CREATE_FLAGS | extra_flags, 0o600)
        except FileExistsError:
            raise
        except OSError:
            # Linux makes the file first, and only then finds that O_DIRECT cannot be had there.
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            raise

    def _close(self) -> None:
        # NFS reports ENOSPC and EDQUOT here, so the error must reach the caller.
        if self._open:
            self._open = False
            os.close(self.fd)


def publish(folder: Path, final: Path, data: bytes, *, mode: int = 0o400) -> None:
    """Write *data* to *final*, which must not exist, by way of a draft in *folder*. Raises OSError."""
    with Draft(folder) as draft:
        write_all(draft.fd, data)
        draft.publish(final, mode=mode)


def replace(final: Path, data: bytes, *, durable: bool = False, mode: int = 0o600) -> None:
    """Put *data* in the place of *final* at once, whether it exists or not. Raises OSError.

    The temporary file stands beside *final* under a dotted name: `prune` empties tmp/, this needs no lock.
    """
    temporary = final.parent / f".{final.name}.{secrets.token_hex(4)}"
    fd = os.open(temporary, CREATE_FLAGS, 0o600)
    try:
        try:
            _chmod(fd, _mode_in(final.parent, mode))
            write_all(fd, data)
            if durable:
                sync_file(fd)
        finally:
            os.close(fd)
        rename(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(final.parent)


def touch(path: Path, seconds: float | None = None) -> None:
    """Set the times of a file to *seconds* since the epoch, by default to now; follow no link. Raises OSError."""
    times = None if seconds is None else (seconds, seconds)
    os.utime(path, times, follow_symlinks=os.utime not in os.supports_follow_symlinks)


def unlink_below(root: Path, path: Path) -> None:
    """Unlink *path*, which stands in a folder of *root*, if it is there. Raises OSError.

    Neither folder is reached through a link: one that was put there since somebody looked leads to another's files.
    """
    if os.unlink not in os.supports_dir_fd:
        path.unlink(missing_ok=True)
        return
    with (
        _folder(root, None) as root_fd,
        _folder(path.parent.name, root_fd) as fd,
        contextlib.suppress(FileNotFoundError),
    ):
        os.unlink(path.name, dir_fd=fd)


@contextlib.contextmanager
def _folder(path: Path | str, inside: int | None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | SAFE_FLAGS, dir_fd=inside)
    try:
        yield fd
    finally:
        close_read(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte: short writes are legal, a write of nothing is an error. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if written <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[written:]


def sync_file(fd: int) -> None:
    """Return when the bytes of *fd* are on the medium. Raises OSError."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if sys.platform == "darwin" and full_sync is not None:
        # macOS: fsync stops at the drive's cache; but shares and FAT know nothing more.
        try:
            fcntl.fcntl(fd, full_sync)
            return
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Return when the names in *folder* are on the medium. Raises OSError."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """Open a plain file to read it; follow no link, hang on no pipe. Raises FileNotFoundError, StoreError."""
    with explained("read", path):
        try:
            fd = os.open(path, READ_FLAGS)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _SYMLINK:
                raise CorruptError(f"{path} is a symbolic link, where ipyrescue writes plain files.") from error
            if error.errno in _NO_FILE:
                raise CorruptError(f"{path} is not a plain file.") from error
            raise
    try:
        with explained("read", path):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise CorruptError(f"{path} is not a plain file.")
    except StoreError:
        close_read(fd)
        raise
    return fd, status


def close_read(fd: int) -> None:
    """Close a file that was only read: an error says nothing about the bytes that were had from it."""
    with contextlib.suppress(OSError):
        os.close(fd)


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a plain file of at most *limit* bytes. Raises FileNotFoundError, StoreError."""
    fd, status = open_regular(path)
    with explained("read", path), os.fdopen(fd, "rb") as file:
        if status.st_size > limit:
            raise CorruptError(f"{path} has {status.st_size} bytes; more than {limit} are not read.")
        return file.read(limit + 1)


@contextlib.contextmanager
def explained(verb: str, path: Path, *, needed_bytes: int = 0) -> Iterator[None]:
    """Turn an OSError into a StoreError that says what to do. FileNotFoundError passes when reading."""
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError:
        if verb == "read":
            raise
        raise StoreError(
            f"Could not {verb} {path}: a folder of the store is missing. Was it moved or deleted?"
        ) from None
    except OSError as error:
        raise StoreError(_sentence(error, verb, path, needed_bytes)) from error


def _sentence(error: OSError, verb: str, path: Path, needed_bytes: int) -> str:
    what = f"Could not {verb} {path}"
    if error.errno in _FULL:
        return (
            f"{what}: no space left ({_needed(needed_bytes)}{_free(path)}). Older snapshots are intact. "
            "Free some space, lower keep= or max_size=, or set IPYRESCUE_STORE to a larger disk."
        )
    if error.errno in _READ_ONLY and verb != "read":
        return f"{what}: {error.strerror}. Restoring still works; to save, set IPYRESCUE_STORE to a writable folder."
    if error.errno == errno.EACCES:
        return (
            f"{what}: {error.strerror}. Its owner can open the store to a group: "
            "ipyrescue key new --shared-group GROUP --store PATH"
        )
    if error.errno == errno.EIO:
        return f"{what}: the disk reports an I/O error. Run `ipyrescue verify` to see which snapshots are whole."
    return f"{what}: {error.strerror or error}."


def _needed(size_bytes: int) -> str:
    return f"up to {size_bytes / 1e6:,.1f} MB needed, " if size_bytes else ""


def _free(path: Path) -> str:
    try:
        found = room(path.parent)
    except OSError:
        return "free space unknown"
    files = ", but no file may be added: all inodes are taken" if found.free_files == 0 else ""
    return f"{found.free_bytes / 1e6:,.1f} MB free{files}"


def _mode_in(folder: Path, mode: int) -> int:
    """*mode*, and the same for the group where *folder* is one that a group shares: set-group-ID, group-writable."""
    shared = stat.S_ISGID | stat.S_IWGRP
    return mode | (mode & 0o600) >> 3 if os.stat(folder).st_mode & shared == shared else mode


def rename(path: Path, final: Path) -> None:
    """Rename *path*, a file of ours only, over *final*. Raises OSError.

    As in `_name` a network file system may have done what it denies.
    """
    ours = os.lstat(path)
    try:
        os.replace(path, final)
    except FileNotFoundError:
        if not _is(final, ours):
            raise


def _chmod(fd: int, mode: int) -> None:
    if sys.platform != "win32":
        os.fchmod(fd, mode)


def _name(path: Path, final: Path) -> None:
    """Give the file its name without ever overwriting: link where there are links, else rename.

    A network file system may do it, lose the answer and ask again, and be refused then: what was done counts.
    """
    try:
        os.link(path, final)
    except FileExistsError:
        if not _is(final, os.lstat(path)):
            raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error
        rename(path, final)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _is(path: Path, ours: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), ours)
    except FileNotFoundError:
        return False
