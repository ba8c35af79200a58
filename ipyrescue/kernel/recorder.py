"""The Recorder: the object in a kernel that checkpoints on command and, once armed, by itself. One per kernel.

It follows the cells of the user, keeps the life record, and holds what a kernel that saves by itself consists of (see
`ipyrescue.kernel.armed`). Nothing of it ever raises into a cell.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from ipyrescue import stack
from ipyrescue.cells import Cell
from ipyrescue.checkpointing import imagine
from ipyrescue.errors import RescueError
from ipyrescue.kernel import shortage
from ipyrescue.kernel.armed import Armed, say
from ipyrescue.kernel.cell_code import only_looks
from ipyrescue.kernel.life import LifeRecorder
from ipyrescue.kernel.notebook import Notebook, Spot
from ipyrescue.kernel.panel import Panel
from ipyrescue.kernel.saving import WAYS, Saver
from ipyrescue.kernel.script import ScriptCode
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.redaction import redacted
from ipyrescue.restoring import Before, Restored, Scope
from ipyrescue.selection import Occasion
from ipyrescue.settings import Configuration
from ipyrescue.training import progress

_DRAIN_SECONDS = 60.0
_CLOSE_SECONDS = 10.0


@dataclass
class _Cell:
    """The cell of the user that is running, its text without credentials, and what its names were before.

    *only_looks*: it changes no variable, so it is no work that is to be protected.
    """

    number: int
    source: str
    started: float
    only_looks: bool
    depth: int = 1
    before: dict[str, int] = field(default_factory=dict)


class Recorder:
    """Checkpoints one kernel's namespace: on command and, once armed, after cells."""

    def __init__(self, shell: Any, configuration: Callable[[], Configuration]) -> None:
        self.notebook = Notebook(shell, configuration)
        self.life = LifeRecorder(
            self.notebook.incarnation, kernel=getattr(shell, "kernel", None), before_end=self._before_end
        )
        self.armed: Armed | None = None
        self.last_snapshot: Snapshot | None = None
        self.panel = Panel(shell)
        self.supervised = False
        """Whether somebody runs the cells who asks for a snapshot after each that ends well: see `cell_is_done`."""
        self._shell = shell
        self._saver = Saver(self.notebook, self.life.is_written_here)
        self._cell: _Cell | None = None
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
        self._saver.close(_CLOSE_SECONDS)
        self.notebook.area.release()
        self.life.ends("unload")
        self.life.stop()

    def _before_end(self, how: str) -> None:
        if self.armed is not None:
            self.armed.before_end(how)

    def _finish_writing(self) -> None:
        if self.armed is not None:
            self.armed.stop()
        self._saver.drain(_CLOSE_SECONDS)

    # On command: durable when the call returns, and exceptions reach the caller.

    def checkpoint(self, occasion: Occasion, wanted: Settings) -> Snapshot:
        """Make a snapshot now. Raises `CheckpointError` or `StoreError`; older snapshots are intact then."""
        self._begin_life()
        here = self._here(sys._getframe())
        with self._quiet_area(kept=wanted.every_seconds is not None):
            self.last_snapshot = self.notebook.write(self.notebook.capture(occasion, wanted, spot=here))
        self.life.saves(self.last_snapshot.created, waited=True, pause_seconds=self.last_snapshot.pause_seconds)
        if self.armed is not None:
            self.armed.is_commanded(self.last_snapshot)
        return self.last_snapshot

    def cell_is_done(self) -> Snapshot:
        """Save what the last cell has left, before the next one begins. Raises as `checkpoint` does."""
        progress.take_up_no_more()
        with self._undisturbed():
            snapshot = self.checkpoint(Occasion(trigger="run"), self.settled(Settings()))
        if self.armed is not None:
            self.armed.is_saved(snapshot)
        return snapshot

    def _undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """For what is done between two cells: the clock wakes nobody meanwhile."""
        return self.armed.points.held() if self.armed is not None else contextlib.nullcontext()

    def _here(self, frame: FrameType) -> Spot:
        """Where a command stands: as the last statement of a loop's body, at the header that comes next."""
        called_from = stack.innermost(frame, self.notebook.code.is_cell)
        return Spot(frame, progress.header_of_tail(called_from) if called_from is not None else None)

    def plan(self, wanted: Settings) -> Any:
        """Capture without writing: a draft that says what a snapshot would hold."""
        with self._quiet_area():
            return self.notebook.capture(Occasion(trigger="dry run"), wanted, spot=self._here(sys._getframe()))

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
            self.last_snapshot = restored.snapshot
            self.life.saves(restored.snapshot.created, waited=True)
        if restored.full and restored.snapshot.settings.every_seconds is not None and not self.notebook.is_script:
            self.arm(restored.snapshot.settings)
        return restored

    def restore_safely(self, source: str | None, scope: Scope, *, into: Any = None) -> Restored:
        """Bind what can be had without unpickling, here or *into* a mapping or a live module."""
        self.drain()
        restored = self.notebook.restore_safely(source, scope, into=into)
        if into is None:
            self._leave_cells_of(restored.names)
        return restored

    def restore_between_cells(self, snapshot_id: str) -> Restored:
        """Bind all of one snapshot, and be armed as its kernel was, or as this one is if that is more often."""
        before = self.armed.settings if self.armed is not None else None
        with self._undisturbed():
            restored = self.restore(snapshot_id, Scope())
        if before is not None and self.armed is not None:
            now = self.armed.settings
            self.arm(replace(now, every_seconds=min(filter(None, (now.every_seconds, before.every_seconds)))))
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
        """Checkpoint from now on after cells and inside them, as *wanted* says."""
        self._begin_life()
        if self.armed is None:
            self.armed = Armed(self.notebook, self.life, self.panel, self._saver, wanted)
            self.armed.last_snapshot = self.last_snapshot
            self.armed.start(running=self._cell is not None)
        else:
            self.armed.adjust(wanted)
        self.life.arms(wanted.every_seconds)

    def go_back_to(self, settings: Settings | None, error: BaseException | None) -> None:
        """Be armed with these settings again, or not at all; what a cell within this one did is saved first.

        *error* is what ended that cell.
        """
        if self.armed is not None:
            self.armed.save_now(error)
        if settings is not None:
            self.arm(settings)
        else:
            self.disarm()

    def show_panel(self) -> None:
        """Show how well the work is protected, where it stays true; in a cell."""
        if self.armed is not None:
            self.panel.show(self.armed.panel_state())

    def disarm(self) -> None:
        """Checkpoint no more by itself; snapshots stay."""
        armed, self.armed = self.armed, None
        if armed is not None:
            armed.stop()
            self._saver.drain(_DRAIN_SECONDS)
            armed.collect()
            armed.catch_up()
            self._saver.drain(_DRAIN_SECONDS)
            armed.collect()
            armed.tell()
            self.last_snapshot = armed.last_snapshot
        self.life.arms(None)
        if armed is not None:
            self.panel.update(armed.panel_state())
            self.notebook.area.release()

    def guards(self, wanted: Settings, frame: FrameType, source: str) -> None:
        """Arm for a block that begins at *frame*, with the line *source*. In a script it stands for a cell."""
        begins = self.armed is None
        if isinstance(self.notebook.code, ScriptCode) and begins:
            self.notebook.code.pin_sources(frame)
            self.life.wake()
        self.arm(wanted)
        if not self.notebook.is_script:
            self.show_panel()
        if begins and self._cell is None and self.armed is not None:
            self.life.cell_begins(None, redacted(source))
            self.armed.cell_begins()

    def guards_no_more(
        self, before: Settings | None, entered: float, frame: FrameType, error: BaseException | None
    ) -> None:
        """A block is left that was *entered* at this moment of the monotonic clock, by *error* or at its end.

        Be armed as *before*. In a script nothing but the outermost block ends like a cell. Never raises.
        """
        try:
            if before is not None and (error is not None or self.notebook.is_script):
                self.arm(before)
            elif not self.notebook.is_script:
                self.go_back_to(before, error)
            elif self.armed is not None:
                self._end_block(entered, frame, error)
        except Exception as wrong:  # noqa: BLE001 - the block has ended, however ours does
            self._fail(wrong)
        if self._cell is None and self.armed is None:
            self.life.cell_ends(error=error)

    def _end_block(self, entered: float, frame: FrameType, error: BaseException | None) -> None:
        assert self.armed is not None
        self._shell.left_by = error if isinstance(error, SystemExit) else None
        ours = isinstance(error, RescueError)
        self.armed.cell_ends(started=entered, error=None if ours else error, frame=frame)
        self.disarm()
        self._rest()

    def _rest(self) -> None:
        """Leave no thread, handler or memory of ours until the next guard or snapshot."""
        self._saver.close(_CLOSE_SECONDS)
        self._saver = Saver(self.notebook, self.life.is_written_here)
        self.notebook.area.release()
        self.life.rest()

    def drain(self) -> None:
        """Wait for the snapshot that is being written, and take its verdict."""
        self._saver.drain(_DRAIN_SECONDS)
        if self.armed is not None:
            self.armed.collect()

    @property
    def writing(self) -> bool:
        """Whether a snapshot is being written beside the kernel."""
        return self._saver.writing

    @property
    def way(self) -> str:
        """Who writes the snapshots that this kernel makes by itself, in words."""
        return WAYS[self._saver.way if self.shortage is None else "at once"]

    @property
    def shortage(self) -> str | None:
        """Why the last snapshot was written while the cell waited; None if it was not."""
        return self._saver.shortage

    def _quiet_area(self, *, kept: bool = False) -> _QuietArea:
        return _QuietArea(self, kept=kept)

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
        self._cell = _Cell(self._number_of_cell(), source, time.monotonic(), only_looks(typed), before=before)
        self.notebook.cell = self._cell.number
        try:
            self.notebook.history.add([Cell(self._cell.number, source)])
            self._follow_identity()
            self.life.cell_begins(self._cell.number, source, getattr(info, "cell_id", None))
            if self.armed is not None and not self._cell.only_looks:
                self.armed.cell_begins()
            for listener in self._listeners:
                listener(typed)
        except Exception as error:  # noqa: BLE001 - a hook: it must not break the user's cell
            self._fail(error)

    def _number_of_cell(self) -> int:
        """The execution count of the cell that begins: IPython 9 has raised its own by now, IPython 8 has not."""
        return len(self._shell.history_manager.input_hist_parsed)

    def _follow_identity(self) -> None:
        known, now = self.life.life, self.notebook.identity
        if known is None and self._unasked and now.kind != "notebook" and not now.store_root.exists():
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
            self._tell_of_shortage(result.error_in_exec)
            if self.armed is not None and cell.only_looks:
                self.armed.tell()
            elif self.armed is not None:
                ends_well = self.supervised and result.success
                error = _error_of_the_user(result)
                self.armed.cell_ends(started=cell.started, error=error, is_saved_next=ends_well)
        except BaseException as error:  # noqa: BLE001 - a hook: it must not break the user's cell
            self._fail(error)

    def _tell_of_shortage(self, error: BaseException | None) -> None:
        """After an exception that says that memory ran out: what holds it, and what frees it."""
        hints = shortage.hints(error, self._shell.user_ns)
        if hints is not None:
            print(hints, file=sys.stderr, flush=True)  # noqa: T201 - in a cell, on the main thread

    def _note_names(self, cell: _Cell) -> None:
        for name, value in list(self._shell.user_ns.items()):
            if cell.before.get(name) != id(value):
                self.notebook.cells[name] = cell.number

    def _fail(self, error: BaseException) -> None:
        text = str(error) if isinstance(error, RescueError) else f"{type(error).__name__}: {error}"
        say(self.notebook.worded(text))


class _QuietArea:
    """The staging area for a command: nobody writes from it meanwhile. A kernel that is armed has its memory *kept*."""

    def __init__(self, recorder: Recorder, *, kept: bool) -> None:
        self._recorder = recorder
        self._kept = kept

    def __enter__(self) -> None:
        self._recorder.drain()

    def __exit__(self, *_: object) -> None:
        if self._recorder.armed is None and not self._kept:
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
    complaint = getattr(sys.modules.get("IPython.core.error"), "UsageError", RescueError)
    return None if isinstance(error, (complaint, RescueError)) else error
