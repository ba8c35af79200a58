"""What a process and its children print, from two pipes into whatever takes it, to the last byte.

Knows no log and no script. A pipe is at its end when nobody holds its other side any more, which may be long after the
process that was given it has ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ipyrescue.runs.log import Stream

_READ_BYTES = 1 << 16
_LAST_READS = 32
"""A pipe that still has a writer is read so many times more: twice what fits into it."""
_TAIL_BYTES = 2048
_ENDS = re.compile(rb"[\r\n]+")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_LINE_CHARACTERS = 200


class Pipes:
    """The stdout and the stderr of one process, each read by a thread. *write* is given what comes, from both."""

    def __init__(self, write: Callable[[Stream, bytes], None]) -> None:
        self._write = write
        self._tails: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self._last: Stream = "stdout"
        self._enough, self._say_enough = os.pipe()
        self._readers: dict[Stream, int] = {}
        self._threads: list[threading.Thread] = []
        self.stdout = self._begin("stdout")
        self.stderr = self._begin("stderr")

    def hand_over(self) -> None:
        """Let go of the sides that the process has by now, `stdout` and `stderr`."""
        os.close(self.stdout)
        os.close(self.stderr)

    def wait(self, seconds: float) -> bool:
        """Whether all was read to the end within so many *seconds*."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Take what is in the pipes now, and nothing more."""
        os.close(self._say_enough)
        for thread in self._threads:
            thread.join()
        for pipe in (self._enough, *self._readers.values()):
            os.close(pipe)

    def holders(self) -> list[int]:
        """The processes that still have a side of one of the pipes, as far as they can be seen (proc(5))."""
        links = {f"pipe:[{os.fstat(pipe).st_ino}]" for pipe in self._readers.values()}
        with contextlib.suppress(OSError):
            pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
            return [pid for pid in pids if pid != os.getpid() and links & set(_links(pid))]
        return []

    def last_line(self, stream: Stream | None = None) -> str:
        """What was printed last, of both or of one *stream*: of a progress bar its newest state, without colours."""
        lines = _ENDS.split(self._tails[stream or self._last])
        shown = (_plain(line) for line in reversed(lines))
        return next(filter(None, shown), "")

    def _begin(self, stream: Stream) -> int:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self._readers[stream] = ours
        thread = threading.Thread(target=self._pump, args=(stream, ours), name=f"ipyrescue-{stream}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return theirs

    def _pump(self, stream: Stream, pipe: int) -> None:
        watched = select.poll()
        watched.register(pipe, select.POLLIN)
        watched.register(self._enough, select.POLLIN)
        last_reads = _LAST_READS
        while last_reads:
            last_reads -= self._enough in dict(watched.poll())
            try:
                data = os.read(pipe, _READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                return
            self._take(stream, data)

    def _take(self, stream: Stream, data: bytes) -> None:
        self._tails[stream] = (self._tails[stream] + data)[-_TAIL_BYTES:]
        if data.strip():
            self._last = stream
        self._write(stream, data)


def _plain(line: bytes) -> str:
    text = _ESCAPE.sub("", line.decode("utf-8", "replace"))
    return "".join(c for c in text if c.isprintable()).strip()[:_LINE_CHARACTERS]


def _links(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        folder = Path(f"/proc/{pid}/fd")
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                found.append(os.readlink(folder / name))
    return found
