"""A check from the kernel's side: digests of the live variables, fresh processes, and verdicts from what they tell.

A process that dies or hangs costs the group that it was at; another one goes on with the rest. Of the live values
nothing leaves the kernel but digests. Ctrl-C ends the process, and the verdicts so far stand.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ipyrescue.checking.orders import Found, Namespace, Order
from ipyrescue.checking.verdicts import (
    DIFFERS,
    FAILED,
    INCOMPARABLE,
    RANDOM_STREAMS,
    SAME,
    UNCHECKED,
    Checked,
    Verdict,
)
from ipyrescue.manifest import Snapshot
from ipyrescue.pickling import randomness
from ipyrescue.pickling.digests import Digest, digests, first_difference, tokens
from ipyrescue.settings import format_duration, format_size

MOST_PROCESSES = 10
_SLOWEST_BYTES_PER_SECOND = 10 << 20
_PATIENCE_BEFORE_LOADING = 10
"""Reading every byte and importing libraries may take so many times as long as loading one variable."""
_LISTENS_SECONDS = 0.5
_CLOSES_SECONDS = 10.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where the snapshot stands, and the key that signed it."""

    store: Path
    key_path: Path


def check(
    snapshot: Snapshot,
    namespace: dict[str, Any],
    place: Place,
    *,
    timeout_seconds: float,
    room_bytes: int,
    progress: Progress,
) -> Checked:
    """Restore *snapshot* in a fresh process and compare each name with that of *namespace*.

    *timeout_seconds* is how long one group may take to load or to be compared; large ones get more. A snapshot that
    would need more than *room_bytes* of memory is not loaded.
    """
    started = time.perf_counter()
    checkup = _Checkup(snapshot, Namespace(namespace), place, timeout_seconds, progress)
    try:
        if snapshot.size_bytes > room_bytes:
            free, needed = format_size(room_bytes), format_size(snapshot.size_bytes)
            checkup.give_up(f"a second process would need {needed} of memory for it, {free} are free")
        else:
            checkup.look_at_live_values()
            checkup.run()
    except KeyboardInterrupt:
        checkup.give_up("it was interrupted")
    return Checked(checkup.verdicts(), time.perf_counter() - started, checkup.processes)


@dataclass
class _Checkup:
    """One check: what is expected, what was found so far, and what a process is at."""

    snapshot: Snapshot
    namespace: Namespace
    place: Place
    timeout_seconds: float
    progress: Progress
    processes: int = 0
    _expected: dict[int, dict[str, Digest]] = field(default_factory=dict)
    _found: dict[str, Verdict] = field(default_factory=dict)
    _checked: list[int] = field(default_factory=list)
    _lost: list[int] = field(default_factory=list)
    _lost_imports: list[str] = field(default_factory=list)
    _at: tuple[str, Any] = ("start", None)
    _is_done: bool = False

    def look_at_live_values(self) -> None:
        """Digest every variable of the snapshot as it is now."""
        self.namespace.know_classes(self.snapshot.names)
        for position, group in enumerate(self.snapshot.groups):
            self.progress(f"looking at {', '.join(group.names[:3]) or 'the rest'}")
            self._expected[position] = self._digests(position)

    def _digests(self, position: int) -> dict[str, Digest]:
        values = self._live(position)
        return digests(values, self.namespace.of_group(values))

    def _live(self, position: int) -> dict[str, Any]:
        group = self.snapshot.groups[position]
        if group.kind == "randomness":
            return {"": randomness.capture()}
        return {name: self.namespace.values[name] for name in group.names if name in self.namespace.values}

    def run(self) -> None:
        """Start processes until everything was checked."""
        while not self._is_done and self.processes < MOST_PROCESSES:
            self.processes += 1
            self._at = ("start", None)
            with _Fresh(self._order) as process:
                ended = self._listen(process)
            if not self._is_done:
                self._blame(ended)
        self.give_up(f"{MOST_PROCESSES} fresh processes died")

    def _order(self, report: int) -> Order:
        return Order(
            store=str(self.place.store),
            key_path=str(self.place.key_path),
            snapshot=self.snapshot.id,
            report=report,
            path=tuple(sys.path),
            expected=self._expected,
            checked=tuple(self._checked),
            lost=tuple(self._lost),
            lost_imports=tuple(self._lost_imports),
        )

    def _listen(self, process: _Fresh) -> str:
        """Take in what a process tells, until it ends or does nothing for too long; return how it ended."""
        heard = time.monotonic()
        while True:
            for line in process.lines():
                self._hear(json.loads(line))
                heard = time.monotonic()
            if process.has_ended:
                return process.how_it_ended()
            patience = self._patience_seconds()
            if time.monotonic() - heard > patience:
                return f"did not end in {format_duration(patience)}"

    def _patience_seconds(self) -> float:
        step, of = self._at
        if step not in ("load", "compare"):
            return self.timeout_seconds * _PATIENCE_BEFORE_LOADING
        group = self.snapshot.groups[of]
        size_bytes: int = group.stream.size_bytes + sum(buffer.size_bytes for buffer in group.buffers)
        return self.timeout_seconds + size_bytes / _SLOWEST_BYTES_PER_SECOND

    def _hear(self, said: dict[str, Any]) -> None:
        if "began" in said:
            self._at = said["began"], said["of"]
            self._tell_progress()
        elif "imported" in said:
            failure = said["failed"]
            self._judge(said["imported"], FAILED if failure else SAME, why=failure or "")
        elif "failed" in said:
            self._fail(said["at"], said["failed"])
        elif "found" in said:
            self._compared(said["at"], {name: Found.read(found) for name, found in said["found"].items()})
        elif "error" in said:
            self.give_up(said["error"])
            self._is_done = True
        else:
            self._is_done = True

    def _tell_progress(self) -> None:
        step, of = self._at
        if step == "import":
            self.progress(f"importing {of}")
        elif of is not None:
            verb = "loading" if step == "load" else "comparing"
            names = self.snapshot.groups[of].names
            self.progress(f"{verb} {', '.join(names[:3]) or 'the rest'} ({of + 1} of {len(self.snapshot.groups)})")

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def _blame(self, ended: str) -> None:
        """A process ended before its time: what it was at is the culprit."""
        step, of = self._at
        if step == "load":
            self._fail(of, f"the fresh process {ended} while it was loaded")
            self._lost.append(of)
        elif step == "compare":
            self._checked.append(of)
            for name in self._names(of):
                self._judge(name, INCOMPARABLE, why=f"the fresh process {ended} while it was compared")
        elif step == "import":
            self._judge(of, FAILED, why=f"the fresh process {ended} while it was imported")
            self._lost_imports.append(of)
        else:
            self.give_up(f"the fresh process {ended} before anything was loaded")
            self._is_done = True

    def _fail(self, position: int, reason: str) -> None:
        for name in self._names(position):
            self._judge(name, FAILED, why=reason)

    def _names(self, position: int) -> tuple[str, ...]:
        group = self.snapshot.groups[position]
        return (RANDOM_STREAMS,) if group.kind == "randomness" else group.names

    def _compared(self, position: int, found: dict[str, Found]) -> None:
        self._checked.append(position)
        chunks = {name: f.chunk for name, f in found.items() if f.chunk is not None}
        is_quiet = not chunks or self._digests(position) == self._expected[position]
        values = self._live(position) if chunks else {}
        live = tokens(values, self.namespace.of_group(values), chunks) if chunks else {}
        for name, what in found.items():
            known = self._expected[position].get(name, Digest())
            if what.incomparable is not None or known.incomparable is not None:
                self._judge(name or RANDOM_STREAMS, INCOMPARABLE, why=known.incomparable or what.incomparable or "")
            elif what.chunk is None:
                self._judge(name or RANDOM_STREAMS, SAME)
            elif not is_quiet:
                self._judge(name or RANDOM_STREAMS, INCOMPARABLE, why="it changes while it is looked at")
            else:
                difference = first_difference(live[name], what.tokens)
                where, why = (difference.where, difference.what) if difference else (name, "another value")
                self._judge(name or RANDOM_STREAMS, DIFFERS, where, why)

    def _judge(self, name: str, outcome: str, where: str = "", why: str = "") -> None:
        self._found[name] = Verdict(name, self._type(name), outcome, where, why)

    def _type(self, name: str) -> str:
        return next((v.type for v in self.snapshot.variables if v.name == name), "module" if name[0] != "(" else "")

    def give_up(self, why: str) -> None:
        """Say of all that has no verdict yet that it was not checked."""
        for name in self.snapshot.names:
            if name not in self._found:
                self._judge(name, UNCHECKED, why=why)

    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts in the order of the snapshot's names; the random streams only where they are lost."""
        streams = self._found.get(RANDOM_STREAMS)
        bad = (streams,) if streams is not None and streams.outcome in (DIFFERS, FAILED) else ()
        return (*(self._found[name] for name in self.snapshot.names), *bad)


class _Fresh:
    """One fresh process: started with its order, read line by line, and gone with all its children in the end."""

    def __init__(self, order: Callable[[int], Order]) -> None:
        self._order = order

    def __enter__(self) -> _Fresh:
        self._read_from, report = os.pipe()
        self._said, self.has_ended = b"", False
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            with tempfile.TemporaryFile() as order:
                order.write(self._order(report).to_bytes())
                order.seek(0)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "ipyrescue.checking"],
                    stdin=order,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
                    pass_fds=(report,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._read_from)
            self._errors.close()
            raise
        finally:
            os.close(report)
        return self

    def lines(self) -> Iterator[bytes]:
        """The lines that came since, waiting a moment for the first."""
        ready, _, _ = select.select([self._read_from], [], [], _LISTENS_SECONDS)
        if not ready:
            # One of its children may hold the pipe open.
            self.has_ended = self._process.poll() is not None
            return
        read = os.read(self._read_from, 1 << 20)
        self.has_ended = not read
        *lines, self._said = (self._said + read).split(b"\n")
        yield from lines

    def how_it_ended(self) -> str:
        """In words, as the end of a sentence about the process."""
        try:
            code = self._process.wait(_CLOSES_SECONDS)
        except subprocess.TimeoutExpired:
            return "fell silent"
        if code < 0:
            return f"died of {signal.Signals(-code).name}"
        return f"ended with exit status {code}{self._last_words()}"

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f" ({lines[-1][:200]})" if lines else ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._read_from)
        self._errors.close()
