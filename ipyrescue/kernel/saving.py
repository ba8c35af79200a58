"""How snapshots leave the kernel beside the user's code: by a forked child, by a thread, or, short of memory, at once.

Turns an occasion into a snapshot that is being written, and later into a verdict. A child costs the user a copy of what
training writes to and a fork; encoding, hashing and writing happen in it, and it ends what it began when the kernel is
gone. Where there are no children (macOS, Windows, or told so) encoding is part of the pause and a thread writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ipyrescue.capture import children
from ipyrescue.capture.fence import Fence
from ipyrescue.capture.forking import Childless, ChildTicket, ForkingWriter, forked_at, worth_keeping_out
from ipyrescue.capture.staging import LiveArea, NoMemory
from ipyrescue.capture.writer import Ticket, Writer
from ipyrescue.checkpointing import NotInAChild, Staged
from ipyrescue.errors import CheckpointError
from ipyrescue.kernel.notebook import Notebook, Spot
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.selection import Occasion

Way = Literal["child", "thread", "at once"]
WAYS: dict[Way, str] = {
    "child": "a process beside the kernel, which outlives it",
    "thread": "a thread of the kernel",
    "at once": "the kernel itself, while your code waits",
}
"""Who writes, in words."""

_PATIENCE_SECONDS = 120.0
_SLOWEST_BYTES_PER_SECOND = 20e6
_CRASHES = ("SIGSEGV", "SIGBUS")


@dataclass(frozen=True)
class Cut:
    """Why, how and where a snapshot is taken."""

    occasion: Occasion
    settings: Settings
    spot: Spot


@dataclass(frozen=True)
class Verdict:
    """What became of a snapshot: it is durable, or *error* says why not; with *again* the next attempt will do.

    *pause_seconds* is how long the cell waited; *began* and *ended* are seconds of the monotonic clock, between which
    it was written beside the cell.
    """

    snapshot: Snapshot | None
    error: BaseException | None
    way: Way
    pause_seconds: float
    began: float
    ended: float
    again: bool = False


@dataclass(eq=False)
class _Flight:
    """The snapshot that is being written."""

    ticket: ChildTicket | Ticket[Snapshot]
    way: Way
    pause_seconds: float
    began: float


class Saver:
    """Makes one snapshot at a time beside the cell, by the best way that this kernel has."""

    def __init__(self, notebook: Notebook, began: Callable[[], None]) -> None:
        """Save *notebook*; *began* is called in a child that writes, before anything else."""
        self._notebook = notebook
        self._began = began
        self._forking = ForkingWriter()
        self._thread = Writer()
        self._flights: list[_Flight] = []
        self._reads_devices = False
        self._needs_all_memory = False
        self.shortage: str | None = None
        """Why the last snapshot was written while the cell waited; None if it was not."""

    @property
    def way(self) -> Way:
        """How the next snapshot will be written, if there is memory."""
        wanted = self._notebook.configuration.writer
        return "child" if wanted != "thread" and children.available() and not self._reads_devices else "thread"

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written, or its verdict waits to be collected, or children have yet to leave."""
        return bool(self._flights) or self._forking.crowded

    @property
    def writing(self) -> bool:
        """Whether a snapshot is being written."""
        return any(not flight.ticket.done() for flight in tuple(self._flights))

    def save(self, cut: Cut, *, sparing: bool = False) -> Verdict | None:
        """Pause, and let the snapshot be written; its verdict is collected later, or returned if it is there already.

        *sparing* no memory is taken for copies: all is written before this returns. Raises `CheckpointError`,
        `StoreError`.
        """
        if self._flights:
            raise CheckpointError("The snapshot was not made: the one before is still being written. Try again.")
        self.shortage = "memory is nearly full" if sparing else None
        started = time.monotonic()
        try:
            if not sparing:
                self._flights.append(self._take_off(cut, started))
                return None
        except NoMemory as error:
            self._notebook.area.release()
            self.shortage = error.lack
        return self._at_once(cut, started)

    def _take_off(self, cut: Cut, started: float) -> _Flight:
        way = self.way
        if way == "child":
            try:
                ticket: ChildTicket | Ticket[Snapshot] = self._fork(cut)
            except Childless:
                way = "thread"
        if way == "thread":
            draft = self._notebook.capture(cut.occasion, cut.settings, spot=cut.spot)
            ticket = self._thread.submit(lambda: self._notebook.write(draft))
        now = time.monotonic()
        return _Flight(ticket, way, now - started, now)

    def _fork(self, cut: Cut) -> ChildTicket:
        staged = self._notebook.freeze(cut.occasion, cut.settings, cut.spot)
        fence = self._notebook.fence_for(cut.occasion, cut.settings)
        absent = [] if self._needs_all_memory else worth_keeping_out(staged.spans)
        deadline = _PATIENCE_SECONDS + sum(size for _, size in staged.spans) / _SLOWEST_BYTES_PER_SECOND
        job = partial(_in_child, self._began, self._notebook, staged, fence, lacks_memory=bool(absent))
        urgent = cut.occasion.trigger == "signal"
        return self._forking.submit(job, absent=absent, deadline_seconds=deadline, urgent=urgent)

    def _at_once(self, cut: Cut, started: float) -> Verdict:
        """Write from where the bytes are, while nobody changes them: it takes longest, and no memory for copies.

        What is neither a tensor nor an array is pickled as ever, which takes the memory of its stream and of the
        pickler's memo: 200 MB for 1.5 million strings.
        """
        draft = self._notebook.capture(cut.occasion, cut.settings, spot=cut.spot, area=LiveArea())
        snapshot = self._notebook.write(draft)
        now = time.monotonic()
        return Verdict(snapshot, None, "at once", now - started, now, now)

    def collect(self) -> Verdict | None:
        """The verdict of the snapshot that was being written, once, whichever threads ask."""
        self._forking.tidy()
        landed = [flight for flight in tuple(self._flights) if flight.ticket.done()]
        try:
            # One step, that neither another thread nor a Ctrl-C can divide: a lock might never be released.
            self._flights.remove(landed[0])
        except (IndexError, ValueError):
            return None
        return self._verdict(landed[0])

    def _verdict(self, flight: _Flight) -> Verdict:
        try:
            result = flight.ticket.result()
            snapshot = self._heard(result) if isinstance(result, bytes) else result
        except BaseException as error:  # noqa: BLE001 - what the writer met is told, whatever it was
            again = self._learns_from(flight.ticket)
            return Verdict(None, error, flight.way, flight.pause_seconds, flight.began, time.monotonic(), again)
        ended = getattr(flight.ticket, "ended", None) or time.monotonic()
        return Verdict(snapshot, None, flight.way, flight.pause_seconds, flight.began, ended, again=snapshot is None)

    def _heard(self, said: bytes) -> Snapshot | None:
        """What a child said: the snapshot that it made, or why it is to be made in another way."""
        verdict: dict[str, Any] = json.loads(said)
        self._reads_devices = self._reads_devices or verdict["kind"] == "devices"
        self._needs_all_memory = self._needs_all_memory or verdict["kind"] == "memory"
        if verdict["kind"] != "saved":
            return None
        self._notebook.fence.denied.update({(kind, at): (how, when) for kind, at, how, when in verdict["denied"]})
        store = self._notebook.store()
        store.proofs.learn(verdict["proofs"])
        self._notebook.untidied = verdict["untidied"]
        return store.load(verdict["id"])

    def _learns_from(self, ticket: ChildTicket | Ticket[Snapshot]) -> bool:
        """Whether a child died of memory that it lacked: the next one has all."""
        crashed = isinstance(ticket, ChildTicket) and any(name in ticket.how for name in _CRASHES)
        again = crashed and not self._needs_all_memory
        self._needs_all_memory = self._needs_all_memory or crashed
        return again

    def drain(self, timeout_seconds: float) -> bool:
        """Wait for what is being written; tell whether it has come to its end. The verdict is still to be collected."""
        return all(flight.ticket.wait(timeout_seconds) for flight in tuple(self._flights))

    def close(self, timeout_seconds: float) -> None:
        """Let the writer finish, and take no more."""
        self._forking.close(timeout_seconds)
        self._thread.close(timeout_seconds)


# --- the child --------------------------------------------------------------------------------------------------


def _in_child(
    began: Callable[[], None], notebook: Notebook, staged: Staged, fence: Fence | None, *, lacks_memory: bool
) -> bytes:
    """Complete a snapshot, and say what became of it, in JSON: nothing that comes from a child is ever unpickled."""
    began()
    store = notebook.store()
    store.proofs.forget_news()
    known = set(notebook.fence.denied)
    try:
        snapshot = notebook.complete(staged, fence, lacks_memory=lacks_memory, forked_at=forked_at())
    except NotInAChild as reason:
        return json.dumps({"kind": reason.lacks}).encode()
    denied = [[*key, *how] for key, how in notebook.fence.denied.items() if key not in known]
    said = {"kind": "saved", "id": snapshot.id, "proofs": store.proofs.news(), "denied": denied}
    return json.dumps({**said, "untidied": notebook.untidied}).encode()
