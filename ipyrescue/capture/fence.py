"""A forked child in which code of unknown manners runs: what it does to itself there, it does not do to the kernel.

Turns a function into the bytes that it hands over, or into how the child ended instead. Knows no pickling. The child
sees the namespace as it stood, may change it freely, and is gone before the cell goes on. fork(2) in a process with
threads copies locks as they stand, so a child may hang through no fault of what it runs; a deadline ends it.
"""

from __future__ import annotations

import io
import mmap
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ipyrescue.capture import children
from ipyrescue.capture.staging import available_memory_bytes

if sys.platform != "win32":
    import resource

Buffer = bytes | bytearray | memoryview

_LOOK_EVERY_SECONDS = 0.05
_IN_ALL = 6
_OF_OURS = 3
_SPARE_BYTES = 1 << 30
_LENGTH = struct.Struct("<Q")
_MARK = struct.Struct("<QqQH")
_MARK_BYTES = 4096
NOWHERE = -1
"""The position of a mark that blames nothing."""


@dataclass(frozen=True)
class Ended:
    """A child that handed nothing over: *how* it ended, in words, and what it had marked last.

    *position* and *identity* are those of `Marks.leave`, *kind* is the name that was left with them.
    """

    how: str
    position: int
    identity: int
    kind: str


class Marks:
    """What a child is at, in memory that its parent sees."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MARK_BYTES)
        self.leave(NOWHERE)

    def leave(self, position: int, identity: int = 0, kind: str = "") -> None:
        """Note what comes next, before it is touched."""
        name = kind.encode()[: _MARK_BYTES - _MARK.size]
        _MARK.pack_into(self._memory, 0, self.count + 1, position, identity, len(name))
        self._memory[_MARK.size : _MARK.size + len(name)] = name

    @property
    def position(self) -> int:
        """What was marked last."""
        return int(_MARK.unpack_from(self._memory)[1])

    @property
    def count(self) -> int:
        """How many marks were left; it grows as long as there is progress."""
        return int(_LENGTH.unpack_from(self._memory)[0])

    def ended(self, how: str) -> Ended:
        """How a child ended that left these marks and is gone."""
        _, position, identity, length = _MARK.unpack_from(self._memory)
        kind = self._memory[_MARK.size : _MARK.size + length].decode(errors="replace")
        return Ended(how, position, identity, kind)


class Fence:
    """Runs functions in children, one at a time, and remembers what must not be tried again.

    *denied* maps what was marked, a kind and an identity, to how the child ended and when (monotonic clock, seconds).
    """

    def __init__(self, deadline_seconds: float = 10.0) -> None:
        self.deadline_seconds = deadline_seconds
        self.denied: dict[tuple[str, int], tuple[str, float]] = {}

    @property
    def available(self) -> bool:
        """Whether there are children to be had: macOS forbids its frameworks in them, Windows has none."""
        return children.available()

    def run(self, work: Callable[[Marks], Sequence[Buffer]]) -> list[memoryview] | Ended:
        """Run *work* in a child; return the buffers that it handed over, or how it ended. Raises `OSError`."""
        marks = Marks()
        with open(os.memfd_create("ipyrescue"), "r+b", buffering=0) as file:
            receiving, sending = os.pipe()
            with open(receiving, "rb", buffering=0) as pipe, open(sending, "wb", buffering=0) as verdict:
                said, how = self._run(_Child(work, marks, file, verdict), pipe)
            lengths = _read_lengths(said)
            return marks.ended(how) if lengths is None else _views(file, lengths)

    def _run(self, life: _Child, pipe: io.FileIO) -> tuple[bytes, str]:
        child, said, how = -1, b"", "did not end"
        try:
            with children.no_warning_of_threads():
                child = os.fork()
            if child == 0:
                life.live()
            life.verdict.close()
            said, how = self._listen(child, pipe, life.marks)
        except BaseException:
            if child == 0:
                os._exit(1)  # never into the code of the kernel
            raise
        finally:
            how = children.end(child, how) if child > 0 else how
        return said, how

    def _listen(self, child: int, pipe: io.FileIO, marks: Marks) -> tuple[bytes, str]:
        """What a child says until it ends or falls silent, or words for the silence when it lasts too long."""
        started = progressed = time.monotonic()
        seen, said = marks.count, b""
        while True:
            ended = children.has_ended(child)
            while select.select([pipe], [], [], 0 if ended else _LOOK_EVERY_SECONDS)[0]:
                part = pipe.read(1 << 16)
                if not part:
                    return said, ""
                said += part
            if ended:  # who still holds the other end of the pipe is a child of its own
                return said, ""
            now, count = time.monotonic(), marks.count
            if count != seen:
                seen, progressed = count, now
            in_all = _IN_ALL * self.deadline_seconds
            patience = self.deadline_seconds * (_OF_OURS if marks.position == NOWHERE else 1)
            for since, seconds in ((progressed, patience), (started, in_all)):
                if now - since > seconds:
                    return b"", f"did not end within {seconds:g} s"


def _read_lengths(said: bytes) -> list[int] | None:
    """The lengths of the buffers, or nothing when the child did not come to the end of its sentence."""
    if len(said) < _LENGTH.size:
        return None
    count, *lengths = (number for (number,) in _LENGTH.iter_unpack(said[: len(said) // _LENGTH.size * _LENGTH.size]))
    return lengths if len(lengths) == count else None


def _views(file: io.FileIO, lengths: list[int]) -> list[memoryview]:
    if not sum(lengths):
        return [memoryview(b"") for _ in lengths]
    whole, at, views = memoryview(mmap.mmap(file.fileno(), sum(lengths), prot=mmap.PROT_READ)), 0, []
    for length in lengths:
        views.append(whole[at : at + length])
        at += length
    return views


# --- the child's side -------------------------------------------------------------------------------------------


class _Child:
    """A child's life: what it does, where it leaves marks, where its buffers go, where it says how long they are."""

    def __init__(
        self, work: Callable[[Marks], Sequence[Buffer]], marks: Marks, file: io.FileIO, verdict: io.FileIO
    ) -> None:
        self._work = work
        self.marks = marks
        self._file = file
        self.verdict = verdict
        self._parent = os.getpid()
        self._room_bytes = _room_bytes()

    def live(self) -> NoReturn:
        """Live, and end; from here nothing returns into the kernel's code: no finally, no exit handler, no flush."""
        status = 1
        try:
            self._fence_in()
            buffers = children.on_a_deep_stack(lambda: self._work(self.marks))
            self.marks.leave(NOWHERE)
            for buffer in buffers:
                children.write_all(self._file, memoryview(buffer).cast("B"))
                self.marks.leave(NOWHERE)
            lengths = [len(buffers), *(memoryview(buffer).nbytes for buffer in buffers)]
            children.write_all(self.verdict, memoryview(b"".join(map(_LENGTH.pack, lengths))))
            status = 0
        finally:
            os._exit(status)

    def _fence_in(self) -> None:
        children.die_with(self._parent)
        children.leave_the_kernel({self._file.fileno(), self.verdict.fileno()})
        _limit_memory(self._room_bytes + children.STACK_BYTES)


def _limit_memory(room_bytes: int) -> None:
    """Let the child, and not the kernel, be what fails when memory runs out."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _size_bytes()[0] + room_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _room_bytes() -> int:
    """How much memory a child may need for streams of what this process holds."""
    return min(available_memory_bytes() // 2, _size_bytes()[1] + _SPARE_BYTES)


def _size_bytes() -> tuple[int, int]:
    """Address space and resident memory of this process (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        size, resident, *_ = (int(pages) * mmap.PAGESIZE for pages in file.read().split())
    return size, resident
