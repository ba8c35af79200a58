"""Blobs to one file and back. Knows no hashes, no manifests.

A pack is blobs back to back, each at a multiple of 4096 bytes, the gaps zero; it has no header. It is written past
the page cache (O_DIRECT) where the file system takes that, which costs a third of the CPU time: whole pages from where
they are, the rest by way of a page-aligned buffer, while the one before is being written.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from ipyrescue.addresses import address_of
from ipyrescue.errors import CorruptError
from ipyrescue.manifest import BLOB_SIZE_BYTES, BlobRef
from ipyrescue.store import atomic, layout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

ALIGNMENT = 4096
BOUNCE_BYTES = 8 << 20
BOUNCE_BUFFERS = 4
_MOST_PIECES = 512
_DIRECT = getattr(os, "O_DIRECT", 0)

Signature = tuple[int, int, int, int, int]
"""What changes when a file changes: device, inode, size, mtime and ctime in ns."""


def signature(status: os.stat_result) -> Signature:
    """The signature of a file, from its status."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class PackWriter:
    """One pack in the making. Nobody sees it before `finish`; leaving the context without that removes it.

    Methods raise OSError. Views given to `add` must not change before `finish` or the end of the context.
    """

    def __init__(self, root: Path, expected_bytes: int) -> None:
        self.pack = secrets.token_hex(8)
        self._final = layout.pack_path(root, self.pack)
        self._draft = _draft(layout.temporary(root))
        self._flusher = _Flusher(self._draft.fd, max(ALIGNMENT, min(BOUNCE_BYTES, _aligned(expected_bytes))))
        self._batch = self._flusher.batch()
        self._offset = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._flusher.close()
        self._draft.discard()

    def add(self, view: memoryview) -> int:
        """Append the bytes of *view* and return the offset at which they stand.

        Whole pages go to the disk from where they are; the rest by way of a buffer that begins and ends at pages.
        """
        offset = self._offset
        self._offset += _aligned(len(view))
        whole = len(view) // ALIGNMENT * ALIGNMENT if address_of(view) % ALIGNMENT == 0 else 0
        if whole:
            self._flush_if(full=self._batch.size_bytes + whole > BOUNCE_BYTES)
            self._batch.refer(view[:whole])
        rest = view[whole:]
        while rest:
            self._flush_if(full=self._batch.room_bytes == 0)
            rest = rest[self._batch.copy(rest) :]
        return offset

    def finish(self) -> os.stat_result:
        """Make the pack durable, then visible, and return its status."""
        self._flush_if(full=True)
        self._flusher.wait()
        self._draft.publish(self._final)
        return os.lstat(self._final)

    def _flush_if(self, *, full: bool) -> None:
        """Hand what was collected to the flusher, and go on with another batch."""
        if full and self._batch.pieces:
            self._flusher.write(self._batch)
            self._batch = self._flusher.batch()


class _Batch:
    """Pieces of memory to be written back to back; each begins at a page and is whole pages long."""

    def __init__(self, bounce: mmap.mmap) -> None:
        self.bounce = bounce
        self.pieces: list[memoryview] = []
        self.size_bytes = 0
        self._filled = 0

    @property
    def room_bytes(self) -> int:
        """What `copy` could still take; none when there are as many pieces as one call of the system writes."""
        return len(self.bounce) - self._filled if len(self.pieces) < _MOST_PIECES else 0

    def refer(self, view: memoryview) -> None:
        """Add a piece that stays where it is."""
        self.pieces.append(view)
        self.size_bytes += len(view)

    def copy(self, view: memoryview) -> int:
        """Copy as much of *view* as there is room for, pad its last page with zeros; return how much that was."""
        start, taken = self._filled, min(len(view), self.room_bytes)
        padded = _aligned(start + taken)
        self.bounce[start : start + taken] = view[:taken]  # type: ignore[assignment,unused-ignore]
        self.bounce[start + taken : padded] = bytes(padded - start - taken)
        self._filled = padded
        self.refer(memoryview(self.bounce)[start:padded])
        return taken


class _Flusher:
    """Writes batches in order beside the caller; in the caller where threads cannot start any more (at exit).

    Several batches, since the thread that is done writing one must wait its turn for the GIL before it writes the next.
    """

    def __init__(self, fd: int, bounce_bytes: int) -> None:
        self._fd, self._bounce_bytes = fd, bounce_bytes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ipyrescue-write")
        self._pending: deque[tuple[Future[None], mmap.mmap]] = deque()
        self._free: list[mmap.mmap] = []

    def batch(self) -> _Batch:
        """An empty batch, with a new buffer or that of the oldest write once it is done. Raises OSError."""
        if self._free:
            return _Batch(self._free.pop())
        if len(self._pending) < BOUNCE_BUFFERS:
            return _Batch(mmap.mmap(-1, self._bounce_bytes))
        done, bounce = self._pending.popleft()
        done.result()
        return _Batch(bounce)

    def write(self, batch: _Batch) -> None:
        """Write *batch* after all that was given before. Raises OSError."""
        try:
            self._pending.append((self._pool.submit(_write_direct, self._fd, batch.pieces), batch.bounce))
        except RuntimeError:
            _write_direct(self._fd, batch.pieces)
            self._free.append(batch.bounce)

    def wait(self) -> None:
        """Return when all is written. Raises OSError."""
        while self._pending:
            self._pending.popleft()[0].result()

    def close(self) -> None:
        """Return when no write is under way any more, whatever became of them."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _draft(folder: Path) -> atomic.Draft:
    try:
        return atomic.Draft(folder, extra_flags=_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL or not _DIRECT:
            raise
    return atomic.Draft(folder)


def _write_direct(fd: int, pieces: list[memoryview]) -> None:
    """Write; go on through the page cache where direct writing is refused, as it is after a short write."""
    waiting = deque(pieces)
    while waiting:
        try:
            written = _write_some(fd, waiting)
        except OSError as error:
            if error.errno != errno.EINVAL or not _make_buffered(fd):
                raise
            continue
        if written <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        _drop(waiting, written)


def _write_some(fd: int, waiting: deque[memoryview]) -> int:
    """Write what one call of the system takes; return how many bytes that were."""
    if hasattr(os, "writev"):
        return os.writev(fd, list(islice(waiting, _MOST_PIECES)))
    return os.write(fd, waiting[0])


def _drop(waiting: deque[memoryview], size_bytes: int) -> None:
    while waiting and size_bytes >= len(waiting[0]):
        size_bytes -= len(waiting.popleft())
    if size_bytes:
        waiting[0] = waiting[0][size_bytes:]


def _make_buffered(fd: int) -> bool:
    if fcntl is None or not _DIRECT:
        return False
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~_DIRECT)
    return bool(flags & _DIRECT)


class PackReader:
    """Reads blobs; keeps packs open until its context is left. May be used by several threads at once.

    With *direct* it reads past the page cache, so that what is checked is what the disk holds; where it cannot, it
    leaves no page of it behind.
    """

    def __init__(self, root: Path, *, direct: bool) -> None:
        self._root = root
        self._direct = direct
        self._opened: dict[str, tuple[int, Signature]] = {}
        self._guard = threading.Lock()
        self._buffers = threading.local()

    def __enter__(self) -> PackReader:
        return self

    def __exit__(self, *_: object) -> None:
        with self._guard:
            for fd, _signature in self._opened.values():
                if self._direct:
                    _leave_no_page(fd)
                atomic.close_read(fd)
            self._opened.clear()

    def read_into(self, blob: BlobRef, view: memoryview) -> None:
        """Fill *view* with the bytes of *blob*. Raises CorruptError when they are not all there, StoreError."""
        path = layout.pack_path(self._root, blob.pack)
        fd, offset = self._fd(blob.pack)[0], blob.offset
        with atomic.explained("read", path):
            while view:
                read = self._read_at(fd, view, offset)
                if read <= 0:
                    raise CorruptError(f"Pack {path} ends before blob {blob.hash[:12]} does: it was cut short.")
                view, offset = view[read:], offset + read

    def scratch(self, size_bytes: int) -> memoryview:
        """Room for one blob, of this thread, until it asks again."""
        return memoryview(self._buffer("scratch"))[:size_bytes]

    def signature(self, pack: str) -> Signature:
        """The signature of the very file that `read_into` reads. Raises CorruptError when it is missing."""
        return self._fd(pack)[1]

    def _fd(self, pack: str) -> tuple[int, Signature]:
        with self._guard:
            if pack not in self._opened:
                self._opened[pack] = _open(layout.pack_path(self._root, pack), direct=self._direct)
            return self._opened[pack]

    def _read_at(self, fd: int, view: memoryview, offset: int) -> int:
        """Read some of *view*, by way of an aligned buffer where the file is open for direct reading."""
        if not hasattr(os, "preadv"):
            return self._seek_and_read(fd, view, offset)
        if not _is_direct(fd):
            return os.preadv(fd, [view], offset)
        bounce = self._buffer("bounce")
        wanted = min(len(view), len(bounce))
        try:
            read = min(os.preadv(fd, [memoryview(bounce)[: _aligned(wanted)]], offset), wanted)
        except OSError as error:
            if error.errno != errno.EINVAL or not _make_buffered(fd):
                raise
            return os.preadv(fd, [view], offset)
        view[:read] = memoryview(bounce)[:read]
        return read

    def _buffer(self, name: str) -> mmap.mmap:
        """A page-aligned buffer of this thread, as large as the largest blob."""
        if not hasattr(self._buffers, name):
            setattr(self._buffers, name, mmap.mmap(-1, BLOB_SIZE_BYTES))
        buffer: mmap.mmap = getattr(self._buffers, name)
        return buffer

    def _seek_and_read(self, fd: int, view: memoryview, offset: int) -> int:
        with self._guard:  # threads share the position
            os.lseek(fd, offset, os.SEEK_SET)
            data = os.read(fd, len(view))
        view[: len(data)] = data
        return len(data)


def _open(path: Path, *, direct: bool) -> tuple[int, Signature]:
    try:
        fd, status = atomic.open_regular(path)
    except FileNotFoundError:
        raise CorruptError(f"Pack {path} is missing. Its snapshots cannot be restored whole.") from None
    if direct:
        _make_direct(fd)
    return fd, signature(status)


def _is_direct(fd: int) -> bool:
    return fcntl is not None and bool(fcntl.fcntl(fd, fcntl.F_GETFL) & _DIRECT)


def _leave_no_page(fd: int) -> None:
    if hasattr(os, "posix_fadvise") and not _is_direct(fd):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _make_direct(fd: int) -> None:
    if fcntl is not None and _DIRECT:
        # File systems without direct reading refuse the flag; then the page cache serves.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | _DIRECT)
