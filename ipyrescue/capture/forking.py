"""A child for each snapshot: it sees the session as it stood, writes it down, and outlives the kernel if need be.

Turns a job into bytes, by a process beside the kernel. Knows neither what a job writes nor where. The kernel pays for
the fork and for each page that it changes while the child lives (copy on write), so memory that was copied already is
kept out of the child: there it does not exist. One child at a time; nobody waits for it but its ticket. A job that
hangs is ended by an alarm of its own, whether the kernel still lives or not.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import select
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from ipyrescue.capture import children
from ipyrescue.errors import CheckpointError, RescueError

Span = tuple[int, int]
"""Memory from an address on, so many bytes."""

_NICENESS = 10
_WORTH_KEEPING_OUT_BYTES = 1 << 20
_MOST_SPANS = 8192
_MADV_DONTFORK, _MADV_DOFORK = 10, 11
_HEADER = struct.Struct("<BQ")
_DONE, _RAISED = 1, 0
_POLL_SECONDS = 0.005


class Childless(CheckpointError):  # noqa: N818 - the error is that no snapshot was made
    """There is no child to be had: too many processes, or too little memory to fork."""


class ChildTicket:
    """The promise of what a child will say. Any thread may ask."""

    def __init__(self, child: int, pipe: int) -> None:
        """Listen to *child*, which was just forked, at the reading end of its *pipe*."""
        self.child = child
        self.began = time.monotonic()
        self.ended: float | None = None
        """When the child was seen to have ended (monotonic clock, seconds)."""
        self.how = ""
        """How the child ended, in words, when it came to no verdict."""
        self._pipe = pipe
        self._process = os.getpid()
        self._said = b""
        self._asking = threading.Lock()

    def done(self) -> bool:
        """Whether the child has ended, well or badly; in a child of this process, always."""
        if self.ended is not None or os.getpid() != self._process:
            return True
        # Not waited for: the thread that listens may be this one, below a signal handler.
        if self._asking.acquire(blocking=False):
            try:
                if self.ended is None:
                    self._listen()
            finally:
                self._asking.release()
        return self.ended is not None

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the child has ended; tell whether it has."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not self.done():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def result(self, timeout_seconds: float | None = None) -> bytes:
        """Return what the job returned; `CheckpointError` if it raised, died, or has not ended in time."""
        if not self.wait(timeout_seconds):
            raise CheckpointError("The snapshot is still being written. To look again: %checkpoint_vars --status")
        if len(self._said) < _HEADER.size:
            raise CheckpointError(f"The snapshot was not made: the process that wrote it {self.how}.")
        kind, length = _HEADER.unpack_from(self._said)
        said = self._said[_HEADER.size :]
        if kind == _RAISED or len(said) != length:
            raise CheckpointError(said.decode(errors="replace") or f"The process that wrote the snapshot {self.how}.")
        return said

    def _listen(self) -> None:
        ended = children.has_ended(self.child)
        while select.select([self._pipe], [], [], 0)[0]:
            part = os.read(self._pipe, 1 << 20)
            if not part:
                ended = True
                break
            self._said += part
        if ended:
            self.how = children.end(self.child, "")
            os.close(self._pipe)
            self.ended = time.monotonic()


class ForkingWriter:
    """A slot for one child. Forks in the calling thread; leaves no thread and no handler behind."""

    def __init__(self) -> None:
        """Make a writer that has no child yet."""
        self._ticket: ChildTicket | None = None
        self._closed = False

    def submit(
        self, job: Callable[[], bytes], *, absent: Iterable[Span] = (), deadline_seconds: float = 600.0
    ) -> ChildTicket:
        """Fork; run *job* in the child; return its ticket. Raises `CheckpointError` while another child writes.

        Memory of the *absent* spans is not mapped in the child. The child ends itself after *deadline_seconds*.
        Raises `Childless` when fork(2) fails.
        """
        if self._closed:
            raise CheckpointError("The snapshot was not made: ipyrescue was unloaded. Type %load_ext ipyrescue.")
        if self.busy:
            raise CheckpointError("The snapshot was not made: the one before is still being written. Try again.")
        receiving, sending = os.pipe()
        child = -1
        try:
            with _kept_out(absent), children.no_warning_of_threads():
                child = os.fork()
            if child == 0:
                _live(job, sending, deadline_seconds)
        except OSError as error:
            os.close(receiving)
            raise Childless(f"No process could be started to write the snapshot: {error}") from error
        finally:
            if child == 0:
                os._exit(1)  # never into the code of the kernel
            os.close(sending)
        self._ticket = ChildTicket(child, receiving)
        return self._ticket

    @property
    def busy(self) -> bool:
        """Whether a child is writing; `submit` would refuse."""
        return self._ticket is not None and not self._ticket.done()

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the child; tell whether the slot is free now. What it said stays in its ticket."""
        return self._ticket is None or self._ticket.wait(timeout_seconds)

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Let the child finish, and take no job any more; tell whether it finished in time."""
        self._closed = True
        return self.drain(timeout_seconds)


def _live(job: Callable[[], bytes], sending: int, deadline_seconds: float) -> None:
    """Be the child, and end; nothing returns from here into the kernel's code."""
    status = 1
    try:
        gc.disable()  # it would touch, and so copy, every page that holds an object
        children.leave_the_kernel({sending})
        signal.setitimer(signal.ITIMER_REAL, deadline_seconds)
        os.nice(_NICENESS)
        try:
            kind, said = _DONE, children.on_a_deep_stack(job)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the kernel is to know
            kind, said = _RAISED, _told(error)
        with open(sending, "wb", buffering=0) as pipe:
            children.write_all(pipe, memoryview(_HEADER.pack(kind, len(said)) + said))
        status = 0
    finally:
        os._exit(status)


def _told(error: BaseException) -> bytes:
    text = str(error) if isinstance(error, RescueError) else f"{type(error).__name__}: {error}"
    return text[:4000].encode(errors="replace")


@contextlib.contextmanager
def _kept_out(spans: Iterable[Span]) -> Iterator[None]:
    """Have a fork leave the whole pages within *spans* out (madvise(2), MADV_DONTFORK): no page tables, no copies."""
    pages = list(_whole_pages(spans))
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    try:
        for start, size_bytes in pages:
            libc.madvise(start, size_bytes, _MADV_DONTFORK)
        yield
    finally:
        for start, size_bytes in pages:
            libc.madvise(start, size_bytes, _MADV_DOFORK)


def _whole_pages(spans: Iterable[Span]) -> Iterator[Span]:
    large = sorted((span for span in spans if span[1] >= _WORTH_KEEPING_OUT_BYTES), key=lambda span: -span[1])
    for start, size_bytes in large[:_MOST_SPANS]:
        first, last = -(-start // mmap.PAGESIZE), (start + size_bytes) // mmap.PAGESIZE
        yield first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE
