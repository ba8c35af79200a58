"""`ipyrescue logs`: what a run printed, with the times; also while it runs."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import printable, say
from ipyrescue.cli.unread import let_go
from ipyrescue.cli.verb import JsonOption, StoreOption
from ipyrescue.errors import RescueError
from ipyrescue.runs import log, registry, segments
from ipyrescue.runs import record as records
from ipyrescue.runs.log import Entry, Reader
from ipyrescue.runs.record import ENDED, Record
from ipyrescue.settings import parse_duration
from ipyrescue.wording import seconds_of

_STREAMS = ("stdout", "stderr")
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_MOVES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x07\x08]|\x1b[()][0-9A-B]")
_RESET, _CLEAR = "\x1b[0m", "\r\x1b[K"


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the run; ipyrescue ps -a lists them.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it prints, until the run has ended.")
    ] = False,
    timestamps: Annotated[
        bool, typer.Option("--timestamps/--no-timestamps", "-t/-T", help="Whether each line begins with its time.")
    ] = True,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="10m", help="Only what was printed so long ago, or since a moment (ISO 8601)."),
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", metavar="N", min=0, help="Only the last N lines of what is there.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="stdout|stderr", help="Only one of the two streams.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a run has printed, both streams as they came, with the time of each line; -f goes on with it.

    Lines of ipyrescue itself are among it, marked so. On a terminal, times are local, colours stay, and whatever else
    would move the cursor is taken out. Into a file or a pipe the bytes go as they were, and times as they are in the
    log, in UTC: `ipyrescue logs -T --stream stdout train > out.txt` is exactly what went to stdout. Ctrl-C ends
    the watching, not the run.

    \b
    --json prints {"run", "entries": [{"time", "stream", "text", "complete"}]},
      with -f one such entry a line; what is no UTF-8 has "base64" too;
      time is null where the log is damaged
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    folder = registry.find(name, store)
    wanted = _Wanted(_stream(stream), _moment(since))
    printer = _printer(folder.name, timestamps=timestamps, as_json=as_json, follow=follow)
    reader, there = _there(folder, tail, wanted)
    try:
        printer.begin()
        printer.print(there)
        if follow:
            _follow(folder, reader, wanted, printer)
        printer.print(filter(wanted, reader.rest()))
        printer.end()
    finally:
        reader.close()


@contextlib.contextmanager
def shown_meanwhile(folder: Path) -> Iterator[None]:
    """Print what the run in *folder* prints while the block runs, without times, each stream to its own."""
    reader, _ = log.read_last(folder, 0, lambda entry: True)
    is_over = threading.Event()

    def show() -> None:
        with contextlib.suppress(OSError):
            _pass_on(log.read_on(reader, lambda: not is_over.is_set()))

    thread = threading.Thread(target=show, name="ipyrescue-logs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        reader.close()


def _pass_on(entries: Iterable[Entry]) -> None:
    """Print what a script prints where it would have gone without us; not what ipyrescue says of it."""
    lines = _ForTerminal(timestamps=False)
    files = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    for entry in entries:
        if entry.stream in files:
            file = files[entry.stream]
            try:
                file.write(lines.form(entry) if file.isatty() else entry.output)
                file.flush()
            except OSError:  # whoever read it is gone; the run is not
                let_go(file)


class _Wanted:
    """Tells which entries are asked for; a damaged one counts as printed when the one before it was."""

    def __init__(self, stream: str | None, since: str | None) -> None:
        self._stream = stream
        self._since = since or ""
        self._at = ""
        self.first_seconds = seconds_of(since) if since is not None else None

    def __call__(self, entry: Entry) -> bool:
        self._at = entry.at or self._at
        return self._at >= self._since and self._stream in (None, entry.stream)


def _stream(said: str | None) -> str | None:
    if said is not None and said not in _STREAMS:
        raise typer.BadParameter(f"`{said}` is no stream. Write stdout or stderr.", param_hint="--stream")
    return said


def _moment(since: str | None) -> str | None:
    """The beginning of what is asked for, as entries write it."""
    if since is None:
        return None
    try:
        return log.moment(time.time() - parse_duration(since))
    except ValueError as error:
        seconds = seconds_of(since)
        if seconds is None:
            raise typer.BadParameter(f"{error} Or a moment: 2026-11-21T16:30", param_hint="--since") from error
        return log.moment(seconds)


def _there(folder: Path, tail: int | None, wanted: _Wanted) -> tuple[Reader, Iterable[Entry]]:
    """What is in the log by now, and the reader that stands behind it once that was taken."""
    if tail is not None:
        return log.read_last(folder, tail, wanted)
    first = 1
    if wanted.first_seconds is not None:
        earlier = [one.number for one in segments.rotated(folder) if one.changed < wanted.first_seconds]
        first = max(earlier, default=0) + 1
    reader = Reader(folder, first=first)
    return reader, filter(wanted, reader.read())


def _follow(folder: Path, reader: Reader, wanted: _Wanted, printer: _Printer) -> None:
    try:
        printer.print(filter(wanted, log.read_on(reader, lambda: _lives(folder))))
    except KeyboardInterrupt:
        printer.end()
        raise typer.Exit(Exit.INTERRUPTED) from None
    _tell_of_death(folder)


def _lives(folder: Path) -> bool:
    record = _judged(folder)
    return record is not None and record.state not in ENDED


def _judged(folder: Path) -> Record | None:
    """The run's record as it is true now; None where it is gone or damaged."""
    try:
        return records.judged(records.read(folder), folder)
    except RescueError:
        return None


def _tell_of_death(folder: Path) -> None:
    """Say what a runner could not write into the log: that it is gone."""
    record = _judged(folder)
    if record is not None and record.state == "dead" and record.reason is not None:
        say(record.reason)


class _Printer:
    """Entries to stdout, as bytes; flushed after each where somebody follows. *form* makes the bytes of one."""

    def __init__(self, form: Callable[[Entry], bytes], *, begin: bytes, end: Callable[[], bytes], follow: bool) -> None:
        self._form = form
        self._begin = begin
        self._end = end
        self._follow = follow
        self._file = sys.stdout.buffer

    def begin(self) -> None:
        """What stands before all entries."""
        self._file.write(self._begin)

    def print(self, entries: Iterable[Entry]) -> None:
        """Print them as they come."""
        for entry in entries:
            self._file.write(self._form(entry))
            if self._follow:
                self._file.flush()

    def end(self) -> None:
        """What stands behind all entries."""
        self._file.write(self._end())
        self._file.flush()


def _printer(name: str, *, timestamps: bool, as_json: bool, follow: bool) -> _Printer:
    if as_json:
        return _json(name, follow=follow)
    lines = _ForTerminal(timestamps=timestamps) if sys.stdout.isatty() else _ForFile(timestamps=timestamps)
    return _Printer(lines.form, begin=b"", end=lines.end, follow=follow)


class _ForFile:
    """Bytes as they were; with *timestamps*, the time before each line, and each line of one stream alone."""

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._open: str | None = None

    def form(self, entry: Entry) -> bytes:
        """The bytes of one entry."""
        said = _mark(entry) + entry.output
        if not self._timestamps:
            return said
        before = b"\n" if self._open not in (None, entry.stream) else b""
        if self._open != entry.stream:
            before += f"{entry.at or '-'} ".encode()
        self._open = None if entry.complete else entry.stream
        return before + said

    def end(self) -> bytes:
        """Nothing is added to what was printed, but an end of a line behind a time."""
        return b"\n" if self._timestamps and self._open is not None else b""


class _ForTerminal:
    """Text that a terminal may be given; of a progress bar each state stands in the place of the last one."""

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._open: Entry | None = None

    def form(self, entry: Entry) -> bytes:
        """The bytes of one entry."""
        before = self._before(entry)
        text = harmless(entry.data.rstrip(b"\r").decode("utf-8", "backslashreplace"))
        self._open = None if entry.complete else entry
        end = "\n" if entry.complete else ""
        reset = _RESET if "\x1b" in text else ""
        return f"{before}{_mark(entry).decode()}{text}{reset}{end}".encode("utf-8", "replace")

    def end(self) -> bytes:
        """The end of a line that has none."""
        return b"\n" if self._open is not None else b""

    def _before(self, entry: Entry) -> str:
        at = f"{_local(entry.at)} " if self._timestamps else ""
        if self._open is None:
            return at
        if self._open.stream != entry.stream:
            return "\n" + at
        return _CLEAR + at if self._open.is_overwritten else ""


def harmless(text: str) -> str:
    """A line that a terminal may be given: colours and tabs stay, what else would move its cursor is taken out."""
    parts = _COLOUR.split(_MOVES.sub("", text))
    return "".join(
        part if position % 2 else "\t".join(map(printable, part.split("\t"))) for position, part in enumerate(parts)
    )


def _mark(entry: Entry) -> bytes:
    return b"ipyrescue: " if entry.stream == "runner" and entry.at is not None else b""


def _local(at: str | None) -> str:
    seconds = seconds_of(at[:26].rstrip("Z") if at is not None else None)
    if seconds is not None:
        with contextlib.suppress(ValueError, OverflowError, OSError):  # a moment that no calendar has
            return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
    return " " * 19


def _json(name: str, *, follow: bool) -> _Printer:
    if follow:
        return _Printer(lambda entry: _object(entry) + b"\n", begin=b"", end=bytes, follow=True)
    between = b""

    def form(entry: Entry) -> bytes:
        nonlocal between
        before, between = between, b",\n"
        return before + _object(entry)

    begin = b'{"run": %b, "entries": [\n' % json.dumps(name).encode()
    return _Printer(form, begin=begin, end=lambda: b"\n]}\n", follow=False)


def _object(entry: Entry) -> bytes:
    fields: dict[str, Any] = {
        "time": entry.at,
        "stream": entry.stream,
        "text": entry.data.decode("utf-8", "replace"),
        "complete": entry.complete,
    }
    try:
        entry.data.decode("utf-8")
    except UnicodeDecodeError:
        fields["base64"] = base64.b64encode(entry.data).decode("ascii")
    return json.dumps(fields).encode("ascii")
