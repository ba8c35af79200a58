"""A folder to what its file system does there: each thing that a store rests on is done, and looked at afterwards.

`require_fit` is the quick part, before a folder becomes a store; `probe` is all of it. Both write files of a few kB
with names like drafts', and remove them: in a store's tmp/ a prune removes what a killed probe left. Knows no store.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ipyrescue.errors import StoreError
from ipyrescue.store import atomic, holes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

_DATA = bytes(range(256)) * 16
_HOLE_BYTES = 64 << 10
_CLOCK_ERROR_SECONDS = 0.5
"""Coarser than any clock of a kernel ticks, finer than any skew that matters."""
_STEPS_NS = (2 * 10**9, 10**9, 10**6, 10**3, 100, 1)
"""The steps that file systems keep times in: FAT, ext3 and HFS+, ..., NTFS, most others."""
_PATIENCE_SECONDS = 10.0
_Measured = TypeVar("_Measured")
_LACKING = atomic.NO_LINKS | {errno.EINVAL, errno.EXDEV}

# Another process, for a lock between two: says `had` or `busy`, holds what it has until it is told to end or is killed.
_LOCKER = """\
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(fd, (fcntl.LOCK_EX if sys.argv[2] == "EX" else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    print("had", flush=True)
except BlockingIOError:
    print("busy", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Answer:
    """What came of one thing that was done: whether it *works*, None where that cannot be asked here."""

    works: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Probed:
    """The answers by what was asked, and what was measured. None: not known.

    *failure* is why nothing could be tried. *clock_ahead_seconds* is how far the file system's clock is ahead of this
    machine's, 0.0 within half a second; *time_step_seconds* the step in which it keeps times.
    """

    answers: Mapping[str, Answer]
    failure: str | None = None
    clock_ahead_seconds: float | None = None
    time_step_seconds: float | None = None
    ignores_case: bool | None = None
    free_bytes: int | None = None
    free_files: int | None = None

    @property
    def lacking(self) -> dict[str, str]:
        """What does not work, and how it was seen."""
        return {name: answer.detail for name, answer in self.answers.items() if answer.works is False}


class _UnfitError(Exception):
    """The file system did something else than it was asked for."""


class _Files:
    """Files of one probe in *folder*; leaving the context removes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[Path] = []

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._made:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def name(self, prefix: str = "") -> Path:
        """A name that is free, and removed at the end whoever makes a file of it."""
        path = self.folder / f"{prefix}{os.getpid()}-{secrets.token_hex(8)}"
        self._made.append(path)
        return path

    def file(self, data: bytes = _DATA, path: Path | None = None, *, durable: bool = False) -> Path:
        """A new file of *data*; if *durable*, on the medium. Raises OSError."""
        path = path or self.name()
        fd = os.open(path, atomic.CREATE_FLAGS, 0o600)
        try:
            atomic.write_all(fd, data)
            if durable:
                with _supported():
                    atomic.sync_file(fd)
        finally:
            os.close(fd)
        return path

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[int]:
        """*path* open for reading and writing."""
        fd = os.open(path, os.O_RDWR | atomic.SAFE_FLAGS)
        try:
            yield fd
        finally:
            atomic.close_read(fd)


@contextlib.contextmanager
def _supported() -> Iterator[None]:
    """Tell what a file system does not have from what it failed to do this time."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        raise _UnfitError(_in_words(error)) from error


# --- what a store cannot do without --------------------------------------------------------------------------------


def _exclusive(files: _Files) -> None:
    path = files.file()
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, atomic.CREATE_FLAGS, 0o600))
        raise _UnfitError("a file that was there was made a second time (O_EXCL)")


def _durable(files: _Files) -> None:
    _require(files.file(durable=True), _DATA, "after fsync a file")


def _replacing(files: _Files) -> None:
    new, old = files.file(b"new"), files.file(b"old")
    with _supported():
        atomic.rename(new, old)
    _require(old, b"new", "after a rename over it a file")
    if os.path.lexists(new):
        raise _UnfitError("after a rename both names are there")


def _require(path: Path, wanted: bytes, what: str) -> None:
    found = atomic.read_file(path, len(wanted) + 1)
    if found != wanted:
        raise _UnfitError(f"{what} has other bytes than were written ({len(found)} of {len(wanted)})")


_ESSENTIAL: dict[str, Callable[[_Files], None]] = {
    "create exclusively": _exclusive,
    "write, fsync, read back": _durable,
    "rename over a file": _replacing,
}
_CANNOT = {
    "create exclusively": "two processes may take one name there",
    "write, fsync, read back": "nothing that is written there is sure to last",
    "rename over a file": "no file can take another one's place there at once",
}


def require_fit(folder: Path, what: str) -> None:
    """Do what a store cannot do without, in some milliseconds. Raises StoreError where it cannot be done, OSError.

    *what* is what is to be a store, for the sentence. A disk that is full or broken says so by its OSError.
    """
    with _Files(folder) as files:
        for name, check in _ESSENTIAL.items():
            try:
                check(files)
            except _UnfitError as reason:
                raise StoreError(
                    f"{what} cannot be a store: {_CANNOT[name]} ({name}: {reason}). Set IPYRESCUE_STORE "
                    "to a folder on a disk, and copy the store from there. ipyrescue doctor says more."
                ) from reason


# --- what a store is better off with -------------------------------------------------------------------------------


def _linked(files: _Files) -> None:
    first, second = files.file(), files.name()
    os.link(first, second)
    _require(second, _DATA, "after a link the second name")
    with contextlib.suppress(FileExistsError):
        os.link(first, second)
        raise _UnfitError("a link was made over a file that was there")


def _folder_synced(files: _Files) -> None:
    if sys.platform == "win32":
        raise _UnfitError("Windows has none")
    fd = os.open(files.folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_after_unlink(files: _Files) -> None:
    path = files.file()
    with files.opened(path) as fd:
        os.unlink(path)
        if os.pread(fd, len(_DATA), 0) != _DATA:
            raise _UnfitError("a file that was unlinked while it was open has other bytes")


def _modes(files: _Files) -> None:
    path = files.file()
    os.chmod(path, 0o400)
    if os.lstat(path).st_mode & 0o777 != 0o400:
        raise _UnfitError("modes stay as they are: others may see or change what is there")
    try:
        os.unlink(path)
    except PermissionError as error:
        raise _UnfitError("what nobody may write cannot be removed") from error


def _locked(files: _Files) -> None:
    if fcntl is None:
        raise _UnfitError("Windows has none")
    path = files.file()
    with files.opened(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _expect(path, "SH", "had", "a second process got no shared lock beside a shared one")
        _expect(path, "EX", "busy", "a second process got an exclusive lock beside a shared one")
        fcntl.flock(fd, fcntl.LOCK_UN)
        with _another(path, "EX") as (process, said):
            if said != "had":
                raise _UnfitError("a lock that was given back was still there")
            _expect_busy(fd)
            process.kill()
            process.wait()
            _expect_free(fd)


def _expect(path: Path, kind: str, wanted: str, otherwise: str) -> None:
    with _another(path, kind) as (_, said):
        if said != wanted:
            raise _UnfitError(otherwise)


def _expect_busy(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        raise _UnfitError("a shared lock was had beside an exclusive one")


def _expect_free(fd: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)
    raise _UnfitError("a process died and its lock stayed")


@contextlib.contextmanager
def _another(path: Path, kind: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that asked for a lock on *path*, and what it said."""
    command = [sys.executable, "-I", "-S", "-c", _LOCKER, str(path), kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def _punched(files: _Files) -> None:
    path = files.file(b"x" * 2 * _HOLE_BYTES)
    if not holes.punch(path, [(0, _HOLE_BYTES)]):
        raise _UnfitError("not supported")
    _require(path, bytes(_HOLE_BYTES) + b"x" * _HOLE_BYTES, "after a hole was made a file")


_BETTER: dict[str, Callable[[_Files], None]] = {
    "link": _linked,
    "fsync of a folder": _folder_synced,
    "read what was unlinked": _read_after_unlink,
    "modes": _modes,
    "locks between processes": _locked,
    "holes": _punched,
}


# --- all of it -----------------------------------------------------------------------------------------------------


def probe(folder: Path) -> Probed:
    """Do all of it in *folder*: a second at most where the disk is quick. Raises OSError where nothing can be made."""
    with _Files(folder) as files:
        files.file()
        free_bytes, free_files = _space(folder)
        answers = {name: _answer(check, files) for name, check in {**_ESSENTIAL, **_BETTER}.items()}
        return Probed(
            answers,
            clock_ahead_seconds=_measured(_clock_ahead_seconds, files),
            time_step_seconds=_measured(_time_step_seconds, files),
            ignores_case=_measured(_ignores_case, files),
            free_bytes=free_bytes,
            free_files=free_files,
        )


def _answer(check: Callable[[_Files], None], files: _Files) -> Answer:
    try:
        check(files)
    except (_UnfitError, OSError, StoreError) as reason:
        return Answer(False, _in_words(reason))
    return Answer(True)


def _in_words(reason: Exception) -> str:
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason)


def _measured(measure: Callable[[_Files], _Measured], files: _Files) -> _Measured | None:
    try:
        return measure(files)
    except OSError:
        return None


def _clock_ahead_seconds(files: _Files) -> float:
    """Between the moment before a file is made and the one after it was, its time should be."""
    before = time.time()
    made = os.lstat(files.file()).st_mtime
    after = time.time()
    skew = made - before if made < before else max(0.0, made - after)
    return skew if abs(skew) > _CLOCK_ERROR_SECONDS else 0.0


def _time_step_seconds(files: _Files) -> float:
    path, moment_ns = files.file(), 1_700_000_001_123_456_789
    os.utime(path, ns=(moment_ns, moment_ns))
    kept_ns = os.lstat(path).st_mtime_ns
    return next(step_ns for step_ns in _STEPS_NS if kept_ns % step_ns == 0) / 1e9


def _ignores_case(files: _Files) -> bool:
    path = files.file(path=files.name("Case-"))
    return os.path.lexists(path.with_name(path.name.lower()))


def _space(folder: Path) -> tuple[int | None, int | None]:
    """Bytes and files that one may still make; no number of files where the file system has no such limit."""
    if not hasattr(os, "statvfs"):
        return None, None
    with contextlib.suppress(OSError):
        found = os.statvfs(folder)
        return found.f_frsize * found.f_bavail, found.f_favail if found.f_files else None
    return None, None
