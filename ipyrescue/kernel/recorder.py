"""The Recorder: the object in a kernel that checkpoints after cells. One per kernel.

It asks the schedule after each cell of the user, captures in the pause, and lets the writer put and commit.
Nothing of it ever raises into a cell: what fails is told once, in one line, at the end of a cell.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from IPython.core.error import UsageError

from ipyrescue.capture.schedule import Schedule, due
from ipyrescue.capture.writer import Ticket, Writer
from ipyrescue.cells import Cell
from ipyrescue.checkpointing import imagine
from ipyrescue.errors import RescueError
from ipyrescue.kernel.life import LifeRecorder
from ipyrescue.kernel.notebook import Notebook
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.redaction import redacted, shows_a_secret
from ipyrescue.restoring import Before, Restored, Scope
from ipyrescue.selection import Occasion
from ipyrescue.settings import Configuration
from ipyrescue.stack import raised_in

_DRAIN_SECONDS = 60.0
_CLOSE_SECONDS = 10.0


@dataclass
class Armed:
    """How the kernel is protected: with which settings, since when, and how the last attempts went.

    *since* and *last* are seconds of the monotonic clock.
    """

    settings: Settings
    schedule: Schedule
    since: float
    last: float
    failures: int = 0
    failure: str | None = None


@dataclass
class _Cell:
    """The cell of the user that is running, its text without credentials, and what its names were before."""

    number: int
    source: str
    started: float
    depth: int = 1
    before: dict[str, int] = field(default_factory=dict)


class Recorder:
    """Checkpoints one kernel's namespace: on command and, once armed, after cells."""

    def __init__(self, shell: Any, configuration: Callable[[], Configuration]) -> None:
        self.notebook = Notebook(shell, configuration)
        self.life = LifeRecorder(self.notebook.incarnation, kernel=getattr(shell, "kernel", None))
        self.armed: Armed | None = None
        self.last_snapshot: Snapshot | None = None
        self._shell = shell
        self._writer = Writer()
        self._ticket: Ticket[Snapshot] | None = None
        self._cell: _Cell | None = None
        self._told: str | None = None
        self._unasked = False
        self._listeners: list[Callable[[str], None]] = []

    def start(self, *, unasked: bool = False) -> None:
        """Listen to the shell's cells and begin the life record.

        *unasked*, by a profile that loads us into every kernel, no store is made in a folder without a notebook.
        """
        self._unasked = unasked
        ran = enumerate(self._shell.history_manager.input_hist_raw)
        self.notebook.history.add(Cell(number, redacted(source)) for number, source in ran if source)
        self._shell.events.register("pre_run_cell", self._before_cell)
        self._shell.events.register("post_run_cell", self._after_cell)
        self._follow_identity()
        # Last in, first out: what is being written is finished before the life record says that the kernel ended.
        atexit.register(self._finish_writing)

    def before_cells(self, listener: Callable[[str], None]) -> None:
        """Have *listener* called with the source of each cell of the user before it runs."""
        self._listeners.append(listener)

    def stop(self) -> None:
        """Finish what is being written and leave nothing behind but snapshots."""
        self.disarm()
        for event, hook in (("pre_run_cell", self._before_cell), ("post_run_cell", self._after_cell)):
            with contextlib.suppress(ValueError):  # an interrupted start had not come so far
                self._shell.events.unregister(event, hook)
        atexit.unregister(self._finish_writing)
        self._writer.close(_CLOSE_SECONDS)
        self.notebook.area.release()
        self.life.ends("unload")
        self.life.stop()

    def _finish_writing(self) -> None:
        self._writer.drain(_CLOSE_SECONDS)

    # On command: durable when the call returns, and exceptions reach the caller.

    def checkpoint(self, occasion: Occasion, wanted: Settings) -> Snapshot:
        """Make a snapshot now. Raises `CheckpointError` or `StoreError`; older snapshots are intact then."""
        self._begin_life()
        with self._quiet_area():
            self.last_snapshot = self.notebook.write(self.notebook.capture(occasion, wanted, frame=sys._getframe()))
        self.life.saves(self.last_snapshot.created)
        return self.last_snapshot

    def plan(self, wanted: Settings) -> Any:
        """Capture without writing: a draft that says what a snapshot would hold."""
        with self._quiet_area():
            return self.notebook.capture(Occasion(trigger="dry run"), wanted, frame=sys._getframe())

    def imagine(self, names: Iterable[str]) -> Snapshot:
        """What a snapshot of these names would be now, to compare it with another; nothing is kept of it."""
        wanted = Settings(only=True, tagged=tuple(names))
        with self._quiet_area():
            return imagine(self.notebook.capture(Occasion(trigger="dry run"), wanted, create=False))

    def restore(self, source: str | None, scope: Scope, *, into: MutableMapping[str, Any] | None = None) -> Restored:
        """Bind a snapshot's variables here or *into* a mapping; after a full restore be armed again as it was."""
        self.drain()
        found = self.notebook.find(source, scope.device)
        with self.life.restores(found[0].id, scope.device):
            restored = self.notebook.restore(found, scope, into=into)
        if into is None:
            self._leave_cells_of(restored.names)
        if restored.full:
            # What is live now is what that snapshot holds.
            self.life.saves(restored.snapshot.created)
        if restored.full and restored.snapshot.settings.every_seconds is not None:
            self.arm(restored.snapshot.settings)
        return restored

    def undo(self) -> tuple[Snapshot, Before]:
        """Take the last restore back; return of what, and what was done. Raises `RestoreError`."""
        self.drain()
        snapshot, before = self.notebook.undo()
        self._leave_cells_of(before.names)
        return snapshot, before

    def _leave_cells_of(self, names: Iterable[str]) -> None:
        """The running cell did not make *names*, it only bound them: the cells that made them stay known."""
        if self._cell is not None:
            self._cell.before.update({name: id(self._shell.user_ns.get(name)) for name in names})

    def forget(self, source: str) -> Snapshot:
        """Forget one snapshot by hand."""
        self.drain()
        return self.notebook.forget(source)

    def settled(self, said: Settings) -> Settings:
        """What holds when *said* is added to how the kernel is armed: names are added, settings replaced.

        A snapshot made by hand while armed says so too, so that a restore of it arms again.
        """
        return _merged(self.armed.settings, said) if self.armed is not None else said

    def arm(self, wanted: Settings) -> None:
        """Checkpoint from now on after cells, as *wanted* says."""
        every = wanted.every_seconds
        assert every is not None
        now = time.monotonic()
        long_cell = min(self.notebook.configuration.long_cell_seconds, every)
        self.armed = Armed(wanted, Schedule(every, long_cell), since=now, last=now)
        self._told = None
        self._begin_life()
        self.life.arms(every)

    def disarm(self) -> None:
        """Checkpoint no more by itself; snapshots stay."""
        self.armed = None
        self.life.arms(None)

    def drain(self) -> None:
        """Wait for the snapshot that is being written, and take its verdict."""
        self._writer.drain(_DRAIN_SECONDS)
        self._collect()

    @property
    def writing(self) -> bool:
        """Whether a snapshot is being written beside the kernel."""
        return self._writer.busy

    def _quiet_area(self) -> _QuietArea:
        return _QuietArea(self)

    # After cells: nothing of this raises.

    def _before_cell(self, info: Any) -> None:
        if _is_hidden(info):
            return
        if self._cell is not None:
            self._cell.depth += 1
            return
        before = {name: id(value) for name, value in list(self._shell.user_ns.items())}
        typed = info.raw_cell or ""
        source = redacted(typed)
        self._cell = _Cell(self._number_of_cell(), source, time.monotonic(), before=before)
        self.notebook.cell = self._cell.number
        try:
            self.notebook.history.add([Cell(self._cell.number, source)])
            self._follow_identity()
            self.life.cell_begins(self._cell.number, source, getattr(info, "cell_id", None))
            for listener in self._listeners:
                listener(typed)
        except Exception as error:  # noqa: BLE001 - a hook: it must not break the user's cell
            self._fail(error)

    def _number_of_cell(self) -> int:
        """The execution count of the cell that begins: IPython 9 has raised its own by now, IPython 8 has not."""
        return len(self._shell.history_manager.input_hist_parsed)

    def _follow_identity(self) -> None:
        known, now = self.life.life, self.notebook.identity
        if known is None and self._unasked and now.kind == "console" and not now.store_root.exists():
            return
        if known is None or known.notebook != now.notebook:
            self.life.begin(now.store_root, now)

    def _begin_life(self) -> None:
        """From the first snapshot on there is a store, and with it a record."""
        self._unasked = False
        self._follow_identity()

    def _after_cell(self, result: Any) -> None:
        if self._cell is None or _is_hidden(result.info):
            return
        self._cell.depth -= 1
        if self._cell.depth:
            return
        cell, self._cell = self._cell, None
        try:
            self._note_names(cell)
            self.life.cell_ends(cell.number, cell.source, result.error_in_exec)
            self._collect()
            self._checkpoint_if_due(cell, result)
        except BaseException as error:  # noqa: BLE001 - a hook: it must not break the user's cell
            self._fail(error)

    def _note_names(self, cell: _Cell) -> None:
        for name, value in list(self._shell.user_ns.items()):
            if cell.before.get(name) != id(value):
                self.notebook.cells[name] = cell.number

    def _checkpoint_if_due(self, cell: _Cell, result: Any) -> None:
        armed = self.armed
        if armed is None:
            return
        now, error = time.monotonic(), _error_of_the_user(result)
        decision = due(
            armed.schedule,
            now=now,
            last=armed.last,
            cell_seconds=now - max(cell.started, armed.since),
            raised=error is not None,
            failures=armed.failures,
        )
        if decision is None or self._writer.busy:
            return
        armed.last = now
        failed = raised_in(error, self.notebook.code.is_cell)
        draft = self.notebook.capture(_occasion(decision.trigger, error), armed.settings, frame=failed)
        self._ticket = self._writer.submit(lambda: self.notebook.write(draft))

    def _collect(self) -> None:
        """Take the writer's verdict, on the main thread: nothing prints from another."""
        ticket = self._ticket
        if ticket is None or not ticket.done():
            return
        self._ticket = None
        try:
            self.last_snapshot = ticket.result()
        except BaseException as error:  # noqa: BLE001 - what the thread met is told, whatever it was
            self._fail(error)
        else:
            self._succeed(self.last_snapshot)

    def _succeed(self, snapshot: Snapshot) -> None:
        self.life.saves(snapshot.created)
        if self.armed is not None:
            failed_before = self.armed.failure is not None
            self.armed.failures, self.armed.failure = 0, None
            if failed_before:
                _say(f"Saving works again: snapshot {snapshot.id[:8]}.")
        self._tell_of_lost_tags(snapshot)

    def _fail(self, error: BaseException) -> None:
        text = str(error) if isinstance(error, RescueError) else f"{type(error).__name__}: {error}"
        if self.armed is None:
            _say(text)
            return
        first = self.armed.failure is None
        self.armed.failures += 1
        self.armed.failure = text
        self.life.fails(text)
        if first:
            _say(f"NOT saved: {text} Your program goes on; what was saved before is intact.")

    def _tell_of_lost_tags(self, snapshot: Snapshot) -> None:
        lost = "; ".join(map(str, snapshot.lost))
        if lost and lost != self._told:
            _say(f"Tagged, but not in snapshot {snapshot.id[:8]}: {lost}")
        self._told = lost or None


class _QuietArea:
    """The staging area for a command: nobody writes from it meanwhile, and unless armed its memory is given back."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder.drain()

    def __exit__(self, *_: object) -> None:
        if self._recorder.armed is None:
            self._recorder.notebook.area.release()


def _merged(old: Settings, new: Settings) -> Settings:
    return replace(
        new,
        every_seconds=new.every_seconds or old.every_seconds,
        keep=new.keep or old.keep,
        on_death=new.on_death or old.on_death,
        max_size_bytes=new.max_size_bytes or old.max_size_bytes,
        tagged=tuple(dict.fromkeys((*old.tagged, *new.tagged))),
        exclude=tuple(dict.fromkeys((*old.exclude, *new.exclude))),
        allow=tuple(dict.fromkeys((*old.allow, *new.allow))),
    )


def _is_hidden(info: Any) -> bool:
    """Whether a cell is not the user's: widgets, debuggers and VS Code run silent or unstored ones."""
    return bool(info.silent or not info.store_history)


def _error_of_the_user(result: Any) -> BaseException | None:
    """What the cell raised; a magic's own complaint is no failure of the user's program."""
    error: BaseException | None = result.error_in_exec
    return None if isinstance(error, (UsageError, RescueError)) else error


def _occasion(trigger: str, error: BaseException | None) -> Occasion:
    if error is None:
        return Occasion(trigger=trigger)
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[-1][:300]
    if shows_a_secret(reason):
        reason = type(error).__name__
    return Occasion(trigger=trigger, cut="interrupted", reason=reason)


def _say(text: str) -> None:
    print(f"ipyrescue: {text}", file=sys.stderr, flush=True)  # noqa: T201 - on the main thread, in a cell
