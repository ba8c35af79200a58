"""One thread beside the kernel that does one job at a time. Knows neither what a job writes nor where.

A slot, not a queue: while a job runs there is no room for a second, because a snapshot that waits in line is older
than the one that could be taken when the line is gone. The thread prints nothing; what a job raises waits in its
ticket.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ipyrescue.errors import CheckpointError

Result = TypeVar("Result")


class Ticket(Generic[Result]):
    """The promise of one job's result, and the place where its exception waits."""

    def __init__(self) -> None:
        """Make a ticket for a job that has not run yet; `Writer.submit` does."""
        self._process = os.getpid()
        self._finished = threading.Event()
        self._outcome: list[Result] = []
        self._error: BaseException | None = None
        self.traceback = ""
        """Where the job raised, as text: a real traceback would keep the job's gigabytes alive."""

    def done(self) -> bool:
        """Tell whether the job has ended, well or badly."""
        return self._finished.is_set()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the job has ended; tell whether it has. A forked child does not wait for its parent's job."""
        if os.getpid() != self._process:
            return self.done()
        return self._finished.wait(timeout_seconds)

    def result(self, timeout_seconds: float | None = None) -> Result:
        """Return what the job returned, or raise what it raised; `CheckpointError` if it has not ended in time."""
        if not self.wait(timeout_seconds):
            raise CheckpointError("The snapshot is still being written. To look again: %checkpoint_vars --status")
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    @property
    def error(self) -> BaseException | None:
        """What the job raised, if it has ended badly."""
        return self._error

    def _settle(self, slot: list[Callable[[], Result]]) -> None:
        try:
            # Popped: when the ticket is done, nothing here holds the job and the memory that it has used.
            self._outcome.append(slot.pop()())
        except BaseException as error:  # noqa: BLE001 - a thread has nobody to raise to; the ticket's holder decides
            self.traceback = traceback.format_exc()
            _forget_frames(error)
            self._error = error
        finally:
            self._finished.set()


class Writer:
    """A daemon thread and its single slot. The thread starts with the first job and ends with `close`."""

    _thread: threading.Thread | None
    _job: Callable[[], Any] | None
    _ticket: Ticket[Any] | None

    def __init__(self, *, name: str = "ipyrescue-writer") -> None:
        """Make a writer whose thread, once it exists, is called *name*."""
        self._name = name
        self._start_over()

    def submit(self, job: Callable[[], Result]) -> Ticket[Result]:
        """Give *job* to the thread and return its ticket; raise `CheckpointError` while another one runs."""
        self._notice_fork()
        with self._condition:
            if self._closed:
                raise CheckpointError("The snapshot was not made: ipyrescue was unloaded. Type %load_ext ipyrescue.")
            if self.busy:
                raise CheckpointError("The snapshot was not made: the one before is still being written. Try again.")
            ticket: Ticket[Result] = Ticket()
            self._ticket, self._job = ticket, job
            started = self._thread is not None or self._start()
            self._condition.notify_all()
        if not started:
            self._run_next()
        return ticket

    @property
    def busy(self) -> bool:
        """Whether a job is waiting or running; `submit` would refuse."""
        self._notice_fork()
        return self._ticket is not None and not self._ticket.done()

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the running job; tell whether the slot is free now. What it raised stays in its ticket."""
        self._notice_fork()
        ticket = self._ticket
        return ticket is None or ticket.wait(timeout_seconds)

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Let the running job finish and end the thread; tell whether both happened in time. No job is taken after."""
        self._notice_fork()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        drained, thread = self.drain(timeout_seconds), self._thread
        if drained and thread is not None:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return drained and not (thread is not None and thread.is_alive())

    def _start_over(self) -> None:
        self._process = os.getpid()
        self._condition = threading.Condition()
        self._thread = None
        self._job = None
        self._ticket = None
        self._closed = False

    def _notice_fork(self) -> None:
        """A forked child has this object but not its thread, and perhaps a lock that nobody will ever release."""
        if os.getpid() != self._process:
            self._start_over()

    def _start(self) -> bool:
        """Start the thread, or say that there can be none: too many of them, or Python is about to exit."""
        thread = threading.Thread(target=self._run, args=(self._condition,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def _run(self, condition: threading.Condition) -> None:
        while True:
            with condition:
                condition.wait_for(lambda: self._job is not None or self._closed)
                if self._job is None:
                    return
            self._run_next()

    def _run_next(self) -> None:
        slot = [self._job] if self._job is not None else []
        self._job = None
        if slot and self._ticket is not None:
            self._ticket._settle(slot)


def _forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of a chain of exceptions: their frames hold what the job held, staged buffers for one."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]
