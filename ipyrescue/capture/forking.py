"""A child for each snapshot: it sees the session as it stood, writes it down, and outlives the kernel if need be.

Turns a job into bytes, by a process beside the kernel. Knows neither what a job writes nor where. The kernel pays for
the fork and for each page that it changes while the child lives (copy on write), so memory that was copied already is
kept out of the child: there it does not exist. One child writes at a time; nobody waits for it but its ticket. Once it
has said its verdict it reads nothing more, and the next one may begin while the system still takes its memory apart. A
job that hangs is ended by an alarm of its own, whether the kernel still lives or not; a child that hangs before that,
in a hook of some library at its fork, by its ticket.
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
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

from ipyrescue.capture import children, vacancies
from ipyrescue.capture.vacancies import Span
from ipyrescue.errors import CheckpointError, RescueError

_NICENESS = 15
_WORTH_KEEPING_OUT_BYTES = 1 << 20
_MOST_SPANS = 8192
_MADV_DONTFORK, _MADV_DOFORK = 10, 11
_HEADER = struct.Struct("<BQ")
_DONE, _RAISED = 1, 0
_POLL_SECONDS = 0.005
_SECONDS_TO_BEGIN = 10.0
_MOST_LEAVING = 2


class Childless(CheckpointError):  # noqa: N818 - the error is that no snapshot was made
    """There is no child to be had: too many processes, or too little memory to fork."""


class ChildTicket:
    """The promise of what a child will say. Any thread may ask."""

    def __init__(self, child: int, pipe: int, deadline_seconds: float) -> None:
        """Listen to *child*, which was just forked and is to end within the deadline, at the end of its *pipe*."""
        self.child = child
        self.began = time.monotonic()
        self.ended: float | None = None
        """When the child was seen to have done its work, or to have died (monotonic clock, seconds)."""
        self.how = ""
        """How the child ended, in words, when it came to no verdict."""
        self._deadline_seconds = deadline_seconds
        self._pipe = pipe
        self._process = os.getpid()
        self._said = b""
        self._asking = threading.RLock()
        self._listening = False
        self._gone = False

    def done(self) -> bool:
        """Whether the child has come to its verdict, or died; in a child of this process, always."""
        return self.ended is not None or self._look() or self.ended is not None

    def gone(self) -> bool:
        """Whether its process is gone too: to take apart what it shared with the kernel costs it some time more."""
        return self._gone or self._look()

    def _look(self) -> bool:
        """Listen, once; tell whether the process is gone."""
        if os.getpid() != self._process:
            return True
        with self._asking:  # by `with` alone no Ctrl-C can come between a lock and its release
            if not self._gone and not self._listening:  # the thread that listens may be this, below a handler
                self._listening = True
                try:
                    self._listen()
                finally:
                    self._listening = False
        return self._gone

    def wait(self, timeout_seconds: float | None = None, *, gone: bool = False) -> bool:
        """Wait until the child has come to its verdict, or until it is *gone*; tell whether it has."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not (self.gone() if gone else self.done()):
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
        kind, _ = _HEADER.unpack_from(self._said)
        said = self._said[_HEADER.size :]
        if kind == _RAISED or not self._said_all:
            raise CheckpointError(said.decode(errors="replace") or f"The process that wrote the snapshot {self.how}.")
        return said

    @property
    def _said_all(self) -> bool:
        complete = len(self._said) >= _HEADER.size
        return complete and len(self._said) == _HEADER.size + _HEADER.unpack_from(self._said)[1]

    def _listen(self) -> None:
        ended = children.has_ended(self.child)
        while select.select([self._pipe], [], [], 0)[0]:
            part = os.read(self._pipe, 1 << 20)
            if not part:
                break
            self._said += part
        if self._said_all and self.ended is None:
            self.ended = time.monotonic()
        late = time.monotonic() - self.began > self._deadline_seconds + _SECONDS_TO_BEGIN
        if ended or late:
            self.how = children.end(self.child, self._late if late else "", self._in_words)
            self.ended = self.ended or time.monotonic()
            self._gone = True
            os.close(self._pipe)

    @property
    def _late(self) -> str:
        return f"did not end within {self._deadline_seconds:g} s"

    def _in_words(self, status: int) -> str:
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return self._late if number == signal.SIGALRM else f"was killed ({children.name(number)})"
        return f"ended before that (exit status {os.waitstatus_to_exitcode(status)})"


class ForkingWriter:
    """A slot for one child that writes. Forks in the calling thread; leaves no thread and no handler behind."""

    def __init__(self) -> None:
        """Make a writer that has no child yet."""
        self._tickets: list[ChildTicket] = []  # changed in place, by steps that no other thread can divide
        self._closed = False

    def submit(
        self,
        job: Callable[[], bytes],
        *,
        absent: Iterable[Span] = (),
        deadline_seconds: float = 600.0,
        urgent: bool = False,
    ) -> ChildTicket:
        """Fork; run *job* in the child; return its ticket. Raises `CheckpointError` while another child writes.

        Memory of the *absent* spans is not mapped in the child. The child ends itself after *deadline_seconds*. It
        gives way to everybody else, unless it is *urgent*, because the kernel waits for it before it dies. Raises
        `Childless` when fork(2) fails.
        """
        if self._closed:
            raise CheckpointError("The snapshot was not made: ipyrescue was unloaded. Type %load_ext ipyrescue.")
        if self.busy:
            raise CheckpointError("The snapshot was not made: the one before is still being written. Try again.")
        with _interrupts_wait():
            child, receiving = _fork(job, worth_keeping_out(absent), deadline_seconds, 0 if urgent else _NICENESS)
            ticket = ChildTicket(child, receiving, deadline_seconds)
            self._tickets.append(ticket)
        return ticket

    @property
    def busy(self) -> bool:
        """Whether a child is writing; `submit` would refuse."""
        return any(not ticket.done() for ticket in tuple(self._tickets))

    @property
    def crowded(self) -> bool:
        """Whether so many children have not left yet that another one had better wait: each holds memory."""
        return sum(not ticket.gone() for ticket in tuple(self._tickets)) >= _MOST_LEAVING

    def tidy(self) -> None:
        """See to it that children that have done their work leave nothing behind, not even their numbers."""
        for ticket in tuple(self._tickets):
            if ticket.gone():
                with contextlib.suppress(ValueError):  # another thread was here
                    self._tickets.remove(ticket)

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """Wait for every child; tell whether all are gone. What they said stays in their tickets."""
        return all(ticket.wait(timeout_seconds, gone=True) for ticket in tuple(self._tickets))

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Let the child finish, and take no job any more; tell whether all finished in time."""
        self._closed = True
        return self.drain(timeout_seconds)


def worth_keeping_out(spans: Iterable[Span]) -> list[Span]:
    """The *spans* that are so large that the fork is the shorter without them."""
    return [span for span in spans if span[1] >= _WORTH_KEEPING_OUT_BYTES]


def _fork(job: Callable[[], bytes], absent: list[Span], deadline_seconds: float, niceness: int) -> tuple[int, int]:
    """Return the child, and the pipe to listen to it. Raises `Childless`."""
    child, pipe = -1, list[int]()
    largest_bytes = max((size_bytes for _, size_bytes in absent), default=0)
    try:
        pipe += os.pipe()
        with (
            children.no_warning_of_threads(),
            vacancies.taken(largest_bytes) as vacant,
            _kept_out(list(_whole_pages([*absent, *vacant]))),
        ):
            child = os.fork()
            if child == 0:
                _live(job, pipe[1], deadline_seconds, niceness)  # and end: what is absent here must not be given back
    except OSError as error:
        for descriptor in pipe:
            os.close(descriptor)
        raise Childless(f"No process could be started to write the snapshot: {error}") from error
    finally:
        if child == 0:
            os._exit(1)  # never into the code of the kernel
    receiving, sending = pipe
    os.close(sending)
    return child, receiving


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Have a Ctrl-C wait until it is known what was forked: raised in between, nobody would ever wait for the child."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            signal.raise_signal(signal.SIGINT)


_forked_at = 0.0


def forked_at() -> float:
    """When this process, a child, was forked: seconds of `time.perf_counter`, which its parent shares."""
    return _forked_at


def _live(job: Callable[[], bytes], sending: int, deadline_seconds: float, niceness: int) -> None:
    """Be the child, and end; nothing returns from here into the kernel's code."""
    global _forked_at
    _forked_at, status = time.perf_counter(), 1
    try:
        gc.disable()  # it would touch, and so copy, every page that holds an object
        children.leave_the_kernel({sending})
        signal.setitimer(signal.ITIMER_REAL, deadline_seconds)
        if niceness:
            children.give_way(niceness)
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
    text = str(error) if isinstance(error, RescueError) else f"{type(error).__name__}: {error}".rstrip(": ")
    return text[:4000].encode(errors="replace")


# --- memory that a child lacks ------------------------------------------------------------------------------------

_lacking: dict[int, list[Span]] = {}
"""The pages that a thread keeps out of the child that it is about to fork, by its identity."""


@contextlib.contextmanager
def _kept_out(pages: list[Span]) -> Iterator[None]:
    """Have a fork of this thread leave *pages* out (madvise(2), MADV_DONTFORK): no page tables, no copies."""
    thread = threading.get_ident()
    try:
        _lacking[thread] = pages
        _advise(pages, _MADV_DONTFORK)
        yield
    finally:
        _advise(pages, _MADV_DOFORK)
        _lacking.pop(thread, None)


def _advise(pages: list[Span], advice: int) -> None:
    """Tell the system about *pages* without a moment in which another thread of Python runs, or waits to run."""
    if pages:
        libc = ctypes.PyDLL(None)  # unlike CDLL it keeps the interpreter's lock
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        list(map(libc.madvise, *zip(*pages, strict=True), repeat(advice)))


def _let_others_have_all() -> None:
    """Before a fork of whatever thread: a child of the user's lacks nothing, if only ours has more than it needs."""
    for thread, pages in tuple(_lacking.items()):
        if thread != threading.get_ident():
            _advise(pages, _MADV_DOFORK)


if sys.platform == "linux":
    os.register_at_fork(before=_let_others_have_all)


def _whole_pages(spans: Iterable[Span]) -> Iterator[Span]:
    large = sorted(spans, key=lambda span: -span[1])
    for start, size_bytes in large[:_MOST_SPANS]:
        first, last = -(-start // mmap.PAGESIZE), (start + size_bytes) // mmap.PAGESIZE
        yield first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE
