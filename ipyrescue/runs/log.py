"""The log of a run: what it printed, byte for byte, to lines with a time and a stream, and back.

The format is the CRI logging format of Kubernetes: `2026-11-21T16:30:00.123456Z stdout F text`. F: a line of output
ends here. P: it does not, and the next entry of the stream goes on; so it is after a carriage return, which a progress
bar writes, after 16 KiB, and where nothing more came for a while. The bytes of a stream are those of its entries, with
a line feed after each F. Knows no kernel and no script.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from ipyrescue.runs import segments
from ipyrescue.wording import count

Stream = Literal["stdout", "stderr", "runner"]
"""`runner`: sentences of our own."""

LINE_BYTES = 16 << 10
PATIENCE_SECONDS = 0.2
"""How long the beginning of a line waits for its end before it is written as it is."""

_READ_BYTES = 1 << 20
_LOOK_SECONDS = 0.2
_ENTRY = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z) (stdout|stderr|runner) ([PF])(?: (.*))?", re.DOTALL
)


class Entry(NamedTuple):
    """One line of the log. *at* is ISO 8601 in UTC, so that texts compare as times do; None: the line is damaged.

    With *complete* a line feed follows the *data*. A damaged line is passed on as it is.
    """

    at: str | None
    stream: Stream
    data: bytes
    complete: bool

    @property
    def output(self) -> bytes:
        """What was printed."""
        return self.data + b"\n" if self.complete else self.data

    @property
    def is_overwritten(self) -> bool:
        """Whether the next entry of the stream is written over it: a state of a progress bar."""
        return not self.complete and self.data.endswith(b"\r")


class Log:
    """The log in *folder*, for its one writer; any thread may write. Nothing here raises, whatever the disk does.

    What could not be written is counted, and told in the log once it can be written to again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = segments.LIMIT_BYTES,
        total_bytes: int = segments.TOTAL_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = segments.Writer(
            folder, limit_bytes=limit_bytes, total_bytes=total_bytes, dropped=self._tell_of_dropped
        )
        self._total_bytes = total_bytes
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._begun: dict[Stream, bytes] = {}
        self._due_at: dict[Stream, float] = {}
        self._lost_bytes = 0
        self._lost_because: OSError | None = None
        self._closed = False
        self._flusher: threading.Thread | None = None

    def write(self, stream: Stream, data: bytes) -> None:
        """Add what was printed to a stream. Whole lines are in the file when this returns; the rest a moment later."""
        with self._changed:
            if self._closed or not data:
                return
            lines, rest = _split(self._begun.get(stream, b"") + data)
            self._keep(stream, rest, anew=bool(lines))
            if lines:
                self._append(_entries(self._clock(), stream, lines))

    def say(self, text: str) -> None:
        """Add sentences of our own."""
        self.write("runner", text.rstrip("\n").encode("utf-8", "surrogateescape") + b"\n")

    def flush(self, *, durable: bool = False) -> None:
        """Write the beginnings of lines too; with *durable*, to the disk itself."""
        with self._changed:
            for stream in list(self._begun):
                self._flush(stream)
            if durable:
                with contextlib.suppress(OSError):
                    self._files.sync()

    def close(self) -> None:
        """Write what is left, and nothing more; wait until rotated files are compressed."""
        self._files.wait()
        with self._changed:
            self.flush()
            if self._lost_bytes:
                self._append(b"")
            self._closed = True
            self._changed.notify_all()
            self._files.close()
        self._files.wait()

    def _keep(self, stream: Stream, rest: bytes, *, anew: bool) -> None:
        """Keep the beginning of a line for a moment; it may be all that comes."""
        if anew or not rest:
            self._due_at.pop(stream, None)
        self._begun[stream] = rest
        if not rest:
            return
        if not self._due_at:
            self._changed.notify_all()
        self._due_at.setdefault(stream, time.monotonic() + PATIENCE_SECONDS)
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_what_waits, name="ipyrescue-log", daemon=True)
            self._flusher.start()

    def _flush_what_waits(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for stream in [one for one, due_at in self._due_at.items() if due_at <= now]:
                    self._flush(stream)
                self._changed.wait(min(self._due_at.values()) - now if self._due_at else None)

    def _flush(self, stream: Stream) -> None:
        begun = self._begun.pop(stream, b"")
        self._due_at.pop(stream, None)
        if begun:
            self._append(_entries(self._clock(), stream, [(begun, b"P")]))

    def _append(self, data: bytes) -> None:
        """Write entries, after a word on those that were lost, if there are any."""
        told = self._tell_of_lost() if self._lost_bytes else b""
        written, error = self._files.append(told + data)
        if told and written >= len(told):
            self._lost_bytes, self._lost_because = 0, None
        if error is not None:
            self._lost_bytes += len(data) - max(written - len(told), 0)
            self._lost_because = self._lost_because or error
        if self._files.torn:
            self._files.torn = False
            self.say("The last line of the runner before this one may be cut off: it was killed while it wrote.")

    def _tell_of_lost(self) -> bytes:
        why = self._lost_because.strerror if self._lost_because is not None else None
        text = f"{count(self._lost_bytes, 'byte')} of this log could not be written here: {why or 'unknown error'}."
        return _entries(self._clock(), "runner", [(text.encode(), b"F")])

    def _tell_of_dropped(self, name: str, size_bytes: int) -> None:
        self.say(
            f"The oldest output, {name} ({count(size_bytes, 'byte')}), was removed: "
            f"this log keeps at most {count(self._total_bytes, 'byte')}."
        )


class Reader:
    """Reads the log in *folder* from its file *first* on, across rotations, as far as it is there. Never raises."""

    def __init__(self, folder: Path, *, first: int = 1) -> None:
        self._folder = folder
        self._number = first - 1
        self._file: BinaryIO | None = None
        self._rest = b""

    def read(self) -> Iterator[Entry]:
        """Every entry that was not read yet. A last line without its end is left for the next time."""
        while True:
            if self._file is None and not self._open_next():
                return
            yield from self._lines()
            if self._file is not None and segments.is_current(self._folder, self._file):
                return
            yield from self._lines()  # it was rotated, maybe just now, and grows no more
            yield from self.rest()
            self.close()

    def rest(self) -> Iterator[Entry]:
        """The last line if it has no end: nobody will write it."""
        rest, self._rest = self._rest, b""
        if rest:
            yield _parsed(rest)._replace(complete=False)

    def close(self) -> None:
        """Let go of the file; reading goes on with the next one."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open_next(self) -> bool:
        try:
            opened = segments.open_after(self._folder, self._number)
        except OSError:
            opened = None
        if opened is not None:
            self._number, self._file = opened
        return opened is not None

    def _lines(self) -> Iterator[Entry]:
        while self._file is not None:
            try:
                data = self._file.read(_READ_BYTES)
            except (OSError, EOFError, zlib.error) as error:
                reason = f"File {self._number} of this log is damaged from here on: {error}"
                yield Entry(None, "runner", reason.encode("utf-8", "replace"), complete=True)
                self.close()
                return
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from map(_parsed, lines)


def read(folder: Path, *, follow: Callable[[], bool] | None = None) -> Iterator[Entry]:
    """Every entry of the log in *folder*, oldest first. With *follow*, new ones as they come, as long as it says True.

    What was written before *follow* said False is still read.
    """
    reader = Reader(folder)
    try:
        yield from reader.read()
        if follow is not None:
            yield from read_on(reader, follow)
        yield from reader.rest()
    finally:
        reader.close()


def read_on(reader: Reader, follow: Callable[[], bool]) -> Iterator[Entry]:
    """What comes after what was read, as long as *follow* says True."""
    going_on = True
    while going_on:
        going_on = follow()
        found = False
        for entry in reader.read():
            found = True
            yield entry
        if going_on and not found:
            time.sleep(_LOOK_SECONDS)


def read_last(folder: Path, number: int, wanted: Callable[[Entry], bool]) -> tuple[Reader, list[Entry]]:
    """The last *number* lines that are *wanted*, and a reader that stands behind them. Reads no more than it must.

    What a progress bar has written over is left out.
    """
    numbers = [segment.number for segment in segments.rotated(folder)]
    firsts = [*numbers, numbers[-1] + 1 if numbers else 1]
    back = 1
    while True:
        reader = Reader(folder, first=firsts[-back])
        found, lines = _last(filter(wanted, reader.read()), number)
        if lines == number or back == len(firsts):
            return reader, found
        reader.close()
        back = min(2 * back, len(firsts))


def _last(entries: Iterable[Entry], number: int) -> tuple[list[Entry], int]:
    """The entries of the last *number* lines, and how many lines those are."""
    kept: deque[Entry] = deque()
    lines = 0
    for entry in entries:
        while kept and kept[-1].is_overwritten and kept[-1].stream == entry.stream:
            kept.pop()
        kept.append(entry)
        lines += entry.complete
        while lines > number:
            lines -= kept.popleft().complete
    return list(kept), lines


def moment(seconds: float) -> str:
    """When, as entries say it; *seconds* are since the epoch."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _split(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Cut *data* into contents with their tags; what is left is the beginning of one."""
    *whole, rest = data.split(b"\n")
    found: list[tuple[bytes, bytes]] = []
    for line in whole:
        *parts, last = _parts(line) if b"\r" in line or len(line) > LINE_BYTES else (line,)
        found += [(part, b"P") for part in parts]
        found.append((last, b"F"))
    *parts, rest = _parts(rest)
    return found + [(part, b"P") for part in parts], rest


def _parts(line: bytes) -> list[bytes]:
    """Cut a line behind its carriage returns and where it is too long. Those at its very end stay with it."""
    cut = []
    for part in re.findall(rb"[^\r]*\r+|[^\r]+", line) or [b""]:
        cut += [part[start : start + LINE_BYTES] for start in range(0, len(part), LINE_BYTES)] or [b""]
    return cut


def _entries(seconds: float, stream: Stream, contents: list[tuple[bytes, bytes]]) -> bytes:
    """The lines of the file."""
    head = f"{moment(seconds)} {stream} ".encode("ascii")
    return b"".join([b"%b%b %b\n" % (head, tag, content) for content, tag in contents])


def _parsed(line: bytes) -> Entry:
    match = _ENTRY.fullmatch(line)
    if match is None:
        return Entry(None, "runner", line, complete=True)
    at, stream, tag, content = match.groups(b"")
    return Entry(at.decode("ascii"), stream.decode("ascii"), content, complete=tag == b"F")  # type: ignore[arg-type]
