"""One file's flock: writers share a store's, prune has it alone; of other files somebody has one alone.

Knows no reason for either. A second file is the gate to a store's: a prune that waits shuts it, so that writers who
overlap for ever do not starve it. A lock of a store is held for one snapshot. All are released by name (LOCK_UN), since
an flock leaks into forked workers and would outlive a mere close. The file's contents decide nothing, so a dead holder
leaves nothing stale behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ipyrescue.errors import StoreBusyError
from ipyrescue.store import atomic, layout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

POLL_SECONDS = 0.02
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextlib.contextmanager
def shared(root: Path, timeout_seconds: float) -> Iterator[None]:
    """Keep prune away while a snapshot is written. Raises StoreBusyError after *timeout_seconds*.

    Where the file system has no flock this does nothing: there nobody gets the exclusive lock either.
    """
    with _opened(layout.lock_file(root)) as fd:
        if fcntl is None or not _acquire_behind_gate(fd, fcntl.LOCK_SH, root, timeout_seconds):
            yield
            return
        with _held(fd):
            yield


@contextlib.contextmanager
def exclusive(root: Path, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Keep everybody away while bytes are freed. Raises StoreBusyError after *timeout_seconds*.

    Who waits holds the gate, where writers queue up behind: however many there are, the last one inside is waited for.
    A file system that gives the lock away twice is told from one that keeps it: there nobody ever has it alone.
    """
    with _opened(layout.lock_file(root)) as fd:
        acquire = _acquire_behind_gate if timeout_seconds else _acquire
        if fcntl is None or not acquire(fd, fcntl.LOCK_EX, root, timeout_seconds):
            raise StoreBusyError(f"{layout.lock_file(root)} cannot be locked on this file system; nothing is pruned.")
        with _held(fd):
            if not _excludes(root):
                raise StoreBusyError(
                    f"{layout.lock_file(root)} was locked twice at once: the file system's locks hold nobody off; "
                    "nothing is pruned."
                )
            yield


def _excludes(root: Path) -> bool:
    """Whether the exclusive lock that we hold is refused to a second opening of the file, as flock(2) has it."""
    with _opened(layout.lock_file(root)) as second:
        try:
            fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(second, fcntl.LOCK_UN)
        return False


def _acquire_behind_gate(fd: int, kind: int, root: Path, timeout_seconds: float) -> bool:
    """Pass the gate, shut behind oneself while one waits for the exclusive lock; then acquire the lock itself."""
    started = time.monotonic()
    with _opened(layout.gate_file(root)) as gate:
        if not _acquire(gate, kind, root, timeout_seconds):
            return False
        with _held(gate):
            return _acquire(fd, kind, root, max(0.0, timeout_seconds - (time.monotonic() - started)))


@contextlib.contextmanager
def alone(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Have the file *path* alone, made if it is not there. Raises StoreBusyError after *timeout_seconds*, StoreError.

    Where the file system has no flock this does nothing.
    """
    with _opened(path) as fd:
        if fcntl is None or not _acquire(fd, fcntl.LOCK_EX, path, timeout_seconds):
            yield
            return
        with _held(fd):
            yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    with atomic.explained("open", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | atomic.SAFE_FLAGS, 0o600)
    try:
        yield fd
    finally:
        # Nothing was written to it: an error here must not take back what was saved meanwhile.
        atomic.close_read(fd)


def _acquire(fd: int, kind: int, what: Path, timeout_seconds: float) -> bool:
    """Whether the lock is held now; False where the file system knows no locks."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            if error.errno not in _BUSY:
                with atomic.explained("lock", what):
                    raise
        if time.monotonic() >= deadline:
            raise StoreBusyError(
                f"{what} was locked by another process for {timeout_seconds:.0f} s; nothing was done. Try again."
            )
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _held(fd: int) -> Iterator[None]:
    owner = os.getpid()
    try:
        yield
    finally:
        # A forked child shares this lock: its unlock would take the parent's away.
        if os.getpid() == owner:
            with contextlib.suppress(OSError):  # as above; closing it is the next best
                fcntl.flock(fd, fcntl.LOCK_UN)
