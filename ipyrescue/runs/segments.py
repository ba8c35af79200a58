"""The files of a log: one that grows, `log`, and those it was rotated to, `log.1`, `log.2.gz` and so on.

Whole lines to files and back to file objects. The oldest has the lowest number, and a number is used once, so that a
reader knows what comes after what it has read. Knows nothing of what a line says.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ipyrescue.store import atomic

CURRENT = "log"
LIMIT_BYTES = 64 << 20
TOTAL_BYTES = 1 << 30

_NAME = re.compile(r"log\.([1-9][0-9]{0,8})(\.gz)?", re.ASCII)
_COPY_BYTES = 1 << 20
_LEVEL = 3  # of gzip: half the time of its usual 6, for a tenth more bytes
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Segment(NamedTuple):
    """One rotated file; *changed* is when it was written to last, in seconds since the epoch."""

    number: int
    path: Path
    size_bytes: int
    changed: float


def rotated(folder: Path) -> list[Segment]:
    """The rotated files, oldest first. One that is there plain and compressed counts as plain: that one is whole."""
    names: set[str] = set()
    for _ in range(2):  # a listing may miss a file that gets another name meanwhile, and the next one finds it
        with contextlib.suppress(OSError):
            names.update(os.listdir(folder))
    numbers = {int(match[1]) for match in map(_NAME.fullmatch, names) if match}
    return [segment for number in sorted(numbers) if (segment := _segment(folder, number)) is not None]


def _segment(folder: Path, number: int) -> Segment | None:
    for name in (f"{CURRENT}.{number}", f"{CURRENT}.{number}.gz"):
        with contextlib.suppress(OSError):
            seen = os.lstat(folder / name)
            if stat.S_ISREG(seen.st_mode):
                return Segment(number, folder / name, seen.st_size, seen.st_mtime)
    return None


def open_after(folder: Path, number: int) -> tuple[int, BinaryIO] | None:
    """Open the oldest file that comes after *number*, with its own; None where there is none yet."""
    for _ in range(100):  # a writer that rotates meanwhile is met again
        following = [segment for segment in rotated(folder) if segment.number > number]
        if following:
            with contextlib.suppress(FileNotFoundError):
                return following[0].number, _opened(following[0].path)
            continue
        try:
            file = _opened(folder / CURRENT)
        except FileNotFoundError:
            return None
        newest = max((segment.number for segment in rotated(folder)), default=0)
        if newest == number and is_current(folder, file):
            return number + 1, file
        file.close()
        if newest < number:  # the one that grows was given up already
            return None
    return None


def is_current(folder: Path, file: BinaryIO) -> bool:
    """Whether *file* is the one that still grows."""
    try:
        there, held = os.lstat(folder / CURRENT), os.fstat(file.fileno())
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


class Writer:
    """Appends to the log in *folder*, and rotates it. One at a time for a folder, and one thread at a time.

    *dropped* is called with the name and the size in bytes of each old file that had to go for *total_bytes*; the
    newest rotated one always stays.
    """

    def __init__(
        self, folder: Path, *, limit_bytes: int, total_bytes: int, dropped: Callable[[str, int], None]
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._total_bytes = total_bytes
        self._dropped = dropped
        self._fd: int | None = None
        self._size_bytes = 0
        self._rotate_at_bytes = limit_bytes
        self._changing = threading.Lock()
        self._compressor: threading.Thread | None = None
        self.torn = False
        """Whether the last line that was there was cut off by the end of who wrote it."""

    def append(self, data: bytes) -> tuple[int, OSError | None]:
        """Write *data*, which is whole lines. Return how many bytes of it stand there, and what kept the rest away.

        What stands there is whole lines too. Raises nothing: the disk may be full, and not be later on.
        """
        try:
            if self._fd is None:
                self._open()
            elif self._size_bytes >= self._rotate_at_bytes:
                self._rotate()
        except OSError as error:
            if self._fd is None:
                return 0, error
        return self._write(data)

    def sync(self) -> None:
        """Make durable what was written. Raises OSError."""
        if self._fd is not None:
            os.fsync(self._fd)

    def wait(self) -> None:
        """Wait until what was rotated is compressed."""
        compressor = self._compressor
        if compressor is not None:
            compressor.join()

    def close(self) -> None:
        """Write nothing more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        """Open the file that grows, behind what an earlier writer left of it."""
        fd = os.open(self._folder / CURRENT, os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        self._size_bytes = os.fstat(fd).st_size
        if self._size_bytes and os.pread(fd, 1, self._size_bytes - 1) != b"\n":
            try:
                self._size_bytes += os.write(fd, b"\n")
            except OSError:
                os.close(fd)
                raise
            self.torn = True
        self._fd = fd
        self._compress_later()

    def _write(self, data: bytes) -> tuple[int, OSError | None]:
        assert self._fd is not None
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError as error:
            whole = data.rfind(b"\n", 0, written) + 1
            self._size_bytes += whole
            self._cut_off(written - whole)
            return whole, error
        self._size_bytes += written
        return written, None

    def _cut_off(self, torn_bytes: int) -> None:
        """Take a torn line away again; where that cannot be, begin anew so that the next one is a line of its own."""
        assert self._fd is not None
        try:
            if torn_bytes:
                os.ftruncate(self._fd, self._size_bytes)
        except OSError:
            os.close(self._fd)
            self._fd = None

    def _rotate(self) -> None:
        """Put an empty file in the place of the full one, which gets its number. Raises OSError, and goes on in it."""
        assert self._fd is not None
        self._rotate_at_bytes = self._size_bytes + _COPY_BYTES  # where it cannot be done, not each time anew
        draft = self._folder / ".log.new"
        fd = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
        try:
            with self._changing:
                self._exchange(draft)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._size_bytes, self._rotate_at_bytes = fd, 0, self._limit_bytes
        self._compress_later()

    def _exchange(self, draft: Path) -> None:
        current, full = self._folder / CURRENT, self._folder / f"{CURRENT}.{self._newest() + 1}"
        os.rename(current, full)
        try:
            os.rename(draft, current)
        except OSError:
            os.rename(full, current)
            raise

    def _compress_later(self) -> None:
        """Compress in a thread of its own; one that is at it already finds the new file too."""
        with self._changing:
            if self._compressor is None and self._next_to_compress() is not None:
                self._compressor = threading.Thread(target=self._compress_all, name="ipyrescue-log-gzip")
                self._compressor.start()

    def _compress_all(self) -> None:
        failed = False
        while not failed:
            while not failed and (segment := self._next_to_compress()) is not None:
                try:
                    self._compress(segment)
                except OSError:  # a full disk: it stays as it is, which is whole; the next rotation tries again
                    failed = True
            self._drop_oldest()
            with self._changing:
                if failed or self._next_to_compress() is None:
                    self._compressor = None
                    return

    def _newest(self) -> int:
        return max((segment.number for segment in rotated(self._folder)), default=0)

    def _next_to_compress(self) -> Segment | None:
        return next((segment for segment in rotated(self._folder) if segment.path.suffix != ".gz"), None)

    def _compress(self, segment: Segment) -> None:
        """Put the compressed file in the place of the plain one: at any moment one of the two is there and whole."""
        draft = self._folder / f".{segment.path.name}.gz"
        final = segment.path.with_name(f"{segment.path.name}.gz")
        try:
            with open(segment.path, "rb") as plain, open(draft, "wb", opener=_private) as raw:
                with gzip.GzipFile("", "wb", _LEVEL, raw, mtime=segment.changed) as packed:
                    shutil.copyfileobj(plain, packed, _COPY_BYTES)
                raw.flush()
                os.fsync(raw.fileno())
            os.utime(draft, (segment.changed, segment.changed))
            os.replace(draft, final)
            os.unlink(segment.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def _drop_oldest(self) -> None:
        """Remove what is too much, so that the one that grows has room; the newest stays in any case."""
        there = rotated(self._folder)
        excess_bytes = sum(segment.size_bytes for segment in there) + self._limit_bytes - self._total_bytes
        for segment in there[:-1]:
            if excess_bytes <= 0:
                break
            with contextlib.suppress(OSError):
                os.unlink(segment.path)
                excess_bytes -= segment.size_bytes
                self._dropped(segment.path.name, segment.size_bytes)


def _opened(path: Path) -> BinaryIO:
    """A file of a log for reading, unpacked. Raises OSError; CorruptError for what is no plain file."""
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    return os.fdopen(atomic.open_regular(path)[0], "rb", buffering=0)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | _FLAGS, 0o600)
