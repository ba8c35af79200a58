"""A kernel that saves by itself: when, where in the program, how, and what came of it.

A clock thread asks the schedule while a cell runs, and requests a safe point; there the session is frozen, on the main
thread, and a writer goes on beside it. The clock takes the verdicts too. Nothing of it raises into a cell, and no
thread of it prints: what is to be told waits for the end of the cell, and the panel is redrawn.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from ipyrescue import stack
from ipyrescue.capture.boundaries import Place
from ipyrescue.capture.safepoint import SafePoints
from ipyrescue.capture.schedule import Costs, Schedule, due, due_inside, slowdown_seconds, stretched_seconds
from ipyrescue.capture.standstill import standstill
from ipyrescue.errors import RescueError
from ipyrescue.kernel.foresight import Foresight
from ipyrescue.kernel.life import LifeRecorder
from ipyrescue.kernel.notebook import Notebook, Spot
from ipyrescue.kernel.obstacle import Obstacle
from ipyrescue.kernel.occasions import occasion_of
from ipyrescue.kernel.outside import Outside
from ipyrescue.kernel.panel import Panel, PanelState
from ipyrescue.kernel.saving import Cut, Saver, Verdict
from ipyrescue.kernel.scrubbing import Scrubber
from ipyrescue.kernel.verified import in_words
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.redaction import redacted
from ipyrescue.selection import Occasion
from ipyrescue.stack import raised_in
from ipyrescue.store.scrub import Tally
from ipyrescue.trained import unsaved_in
from ipyrescue.training import progress

_LOOK_SECONDS = 0.25
_PENDING_SECONDS = 0.1
_OBSTRUCTED_SECONDS = 60.0
_EXACT_SECONDS = 10.0, 60.0
"""How long, at least and at most, a place is awaited from which the user's loops go on exactly: for an interval."""

_MEASURED_SECONDS = 5.0
_LAST_WRITE_SECONDS = 1.5
_NOWHERE = Spot()
_JOIN_SECONDS = 5.0


@dataclass
class _Measuring:
    """The price of a snapshot that is known in part: the pause, not yet how much slower training was meanwhile."""

    pause_seconds: float
    before: list[float]
    began: float
    ended: float


class Armed:
    """How the kernel is protected, from `start` to `stop`: with which settings, since when, how attempts went.

    *since* and *last* (when the last attempt began) are seconds of the monotonic clock.
    """

    def __init__(self, notebook: Notebook, life: LifeRecorder, panel: Panel, saver: Saver, settings: Settings) -> None:
        self.since = self.last = time.monotonic()
        self.failures = 0
        self.failure: str | None = None
        self.last_snapshot: Snapshot | None = None
        self.tally: Tally | None = None
        """How far the reading of what is kept has come."""
        self._drawn: Tally | None = None
        self.points = SafePoints(notebook.code.is_cell, self._reached, source=notebook.code.source)
        self._notebook, self._life, self._panel, self._saver = notebook, life, panel, saver
        self._costs = Costs()
        self._measuring: _Measuring | None = None
        self._before: list[float] = []
        self._running = self._cutting = False
        self._unsaved_since: float | None = None
        self._in_flight_since: float | None = None
        self._trigger: str | None = None
        self._missed: tuple[str, BaseException | None, FrameType | None] | None = None
        """Why and where a cell ended, if that is to be saved once the snapshot before it is written."""
        self._ended = Occasion()
        """How the last cell ended: what an exception left stays what it is until another cell has run."""
        self._outside = Outside(self._place)
        self._obstacle = Obstacle(notebook.room)
        self._foresight = Foresight(notebook)
        self._farewell = life.farewell(self._leave)
        self._pending_since: float | None = None
        self._read: FrameType | None = None
        self._untold: deque[str] = deque()
        self._will_tell = False
        self._lost: str | None = None
        self._lacking: str | None = None
        self._main = threading.main_thread().ident or 0
        self._process = os.getpid()
        self._stopped = threading.Event()
        self._clock: threading.Thread | None = None
        self._scrubber: Scrubber | None = None
        self.adjust(settings)

    def adjust(self, settings: Settings) -> None:
        """Go on with other settings."""
        every, configured = settings.every_seconds, self._notebook.configuration
        assert every is not None
        self.settings = settings
        self.schedule = Schedule(every, min(configured.long_cell_seconds, every), configured.max_share)

    @property
    def interval_seconds(self) -> float:
        """The interval in force: longer than asked for where snapshots cost too much."""
        every = self.schedule.every_seconds or 0.0
        return stretched_seconds(every, self._costs.typical_seconds, self.schedule.max_share)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self, *, running: bool) -> None:
        """Watch from now on, on the main thread; *running*: in the middle of a cell."""
        self.points.install()
        self._farewell.install()
        if running:
            self.cell_begins()
        clock = threading.Thread(target=self._watch, name="ipyrescue-clock", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had: then there are snapshots between cells only
            clock.start()
            self._clock = clock
        self._start_scrub()

    def stop(self) -> None:
        """Watch no more; what is being written goes on."""
        self._stopped.set()
        if self._scrubber is not None:
            self._scrubber.stop()
        if self._clock is not None:
            self._clock.join(_JOIN_SECONDS)
        self._farewell.uninstall()
        self.points.uninstall()
        self._outside.stop()

    # --- the scrub: on a thread of its own ----------------------------------------------------------------------------

    def _start_scrub(self) -> None:
        every = self._notebook.configuration.scrub_seconds
        if every is not None:
            self._scrubber = Scrubber(self._notebook, every, self._is_saving, self._hear)
            self._scrubber.start()

    def _is_saving(self) -> bool:
        return self._cutting or self._saver.busy or self.points.pending

    def _hear(self, tally: Tally) -> None:
        """Take what the scrub found. If the newest snapshot is damaged, its objects still live: they are saved anew."""
        known = {snapshot_id for snapshot_id, _ in self.tally.damaged} if self.tally is not None else set()
        self.tally = tally
        self._life.finds_damage(in_words(tally.damaged) if tally.damaged else None)
        new = [(snapshot_id, found) for snapshot_id, found in tally.damaged if snapshot_id not in known]
        if new:
            self._untold.append(in_words(new))
        if self.last_snapshot is not None and self.last_snapshot.id in (snapshot_id for snapshot_id, _ in new):
            self._want("damage")

    # --- cells: on the main thread ----------------------------------------------------------------------------------

    def cell_begins(self) -> None:
        """A cell of the user runs from now on."""
        self._running = True
        if self._missed is not None:  # the moment is gone, what was done is not
            self._missed, self._trigger = None, self._trigger or "every"
        self._unsaved_since = self._unsaved_since or time.monotonic()
        self.points.cell_begins()

    def cell_ends(
        self,
        *,
        started: float,
        error: BaseException | None,
        frame: FrameType | None = None,
        is_saved_next: bool = False,
    ) -> None:
        """The cell is at its end: save if that is due, and tell what has happened meanwhile.

        *frame* is where the program stands, if it is no cell that ends but a block. With *is_saved_next* somebody else
        is about to save the end of this cell.
        """
        self._running, self._read = False, None
        self._ended = occasion_of("every", error)
        self.points.cell_ends()
        with self.points.held():  # the clock takes the kernel for idle
            self._save_end(started, error, frame, is_saved_next=is_saved_next)
        self.points.withdraw()
        self.tell()

    def _save_end(
        self, started: float, error: BaseException | None, frame: FrameType | None, *, is_saved_next: bool
    ) -> None:
        if error is not None:  # the state at this moment comes only once
            self._saver.drain(_LAST_WRITE_SECONDS)
        self.collect()
        now = time.monotonic()
        decision = due(
            self.schedule,
            now=now,
            last=self.last,
            cell_seconds=now - max(started, self.since),
            raised=error is not None,
            failures=self.failures,
            cost_seconds=self._costs.typical_seconds,
        )
        if decision is not None and not is_saved_next:
            self._missed = decision.trigger, error, frame
            self.catch_up()

    def catch_up(self) -> None:
        """Save the end of the last cell, if that is still to be done and nothing is being written."""
        if self._missed is not None and not self._saver.busy:
            missed, self._missed, self._trigger = self._missed, None, None
            self._cut_after(*missed)

    def is_commanded(self, snapshot: Snapshot) -> None:
        """A command in the running cell has made *snapshot*: what was to be caught up with is in it."""
        self.last_snapshot = snapshot
        if self._trigger == "every":
            self._trigger = None

    def is_saved(self, snapshot: Snapshot) -> None:
        """All that was done is in *snapshot*, which was made by somebody else while no cell ran."""
        self.last, self._unsaved_since, self._trigger, self._missed = time.monotonic(), None, None, None
        self.last_snapshot, self.failures, self.failure = snapshot, 0, None
        self._outside.answer(snapshot)

    def save_now(self, error: BaseException | None) -> None:
        """Save what a cell within the running one has done."""
        self._saver.drain(_LAST_WRITE_SECONDS)
        self.collect()
        self._cut_after("every" if error is None else "exception", error)

    def _cut_after(self, trigger: str, error: BaseException | None, frame: FrameType | None = None) -> None:
        spot = Spot(raised_in(error, self._notebook.code.is_cell) or frame, raised=error)
        self._cut(occasion_of(trigger, error), spot)

    def tell(self) -> None:
        """Tell what has happened and was not told yet, on the main thread."""
        self._will_tell = False
        while self._untold:
            say(self._notebook.worded(self._untold.popleft()))

    def _tell_soon(self) -> None:
        """In a script the next end of a cell may be nine hours away."""
        if self._untold and self._notebook.is_script and not self._will_tell:
            self._will_tell = True
            self.points.wake(self.tell)

    # --- safe points ------------------------------------------------------------------------------------------------

    def _reached(self, place: Place) -> None:
        """Save where control stands, on the main thread."""
        trigger = self._wanted()
        if trigger is not None and not self._saver.busy and (trigger == "memory" or self._is_exact(place)):
            sparing, self._trigger, self._pending_since = trigger == "memory", None, None
            occasion = Occasion(trigger=trigger, cut=place.cut, trained=self.points.training())
            self._cut(occasion, Spot(place.frame, place.header), sparing=sparing)
            self._read = place.frame

    def _is_exact(self, place: Place) -> bool:
        """Whether loops of ipyrescue's go on exactly from there; for a while it is worth waiting for such a place."""
        frame = stack.innermost(place.frame, self._notebook.code.is_cell)
        if progress.is_between(frame, place.header):
            return True
        waited = time.monotonic() - (self._pending_since or time.monotonic())
        return waited > min(_EXACT_SECONDS[1], max(_EXACT_SECONDS[0], self.interval_seconds))

    def _let_go(self) -> None:
        """Forget, on the main thread, what reading its locals left at a frame; the clock asks until that can be."""
        if self._read is not None and self._notebook.let_go(self._read):
            self._read = None

    def _cut(self, occasion: Occasion, spot: Spot = _NOWHERE, *, sparing: bool = False) -> None:
        """Freeze the session, and have it written. Only a Ctrl-C of the user is raised from here."""
        now = time.monotonic()
        self.last, self._before, self._cutting = now, list(self.points.step_times), True
        self._in_flight_since = self._unsaved_since
        try:
            verdict = self._saver.save(Cut(occasion, self.settings, spot), sparing=sparing)
        except Exception as error:  # noqa: BLE001 - in a cell of the user, which must not know
            self._fail(error)
            return
        finally:
            self._cutting = False
        self._unsaved_since = time.monotonic() if self._running else None
        if verdict is not None:
            self._take(verdict)

    # --- ends, and requests from outside ------------------------------------------------------------------------------

    def _leave(self, name: str) -> None:
        """Save a last time, on the main thread: a signal is about to end this process."""
        if self._cutting:
            return
        self._saver.drain(_LAST_WRITE_SECONDS)
        self.collect()
        if self._running:
            trained = self.points.training()
            self._cut(
                Occasion(trigger="signal", cut="interrupted", reason=name, trained=trained), Spot(sys._getframe())
            )
        elif self._unsaved_since is not None:
            self._cut(replace(self._ended, trigger="signal", reason=name))
        if self._saver.way != "child":
            self._saver.drain(_LAST_WRITE_SECONDS)

    def before_end(self, how: str) -> None:
        """Save what no snapshot holds before a `shutdown` or a `restart` that was asked for."""
        done = threading.Event()

        def save() -> None:
            try:
                self._saver.drain(_LAST_WRITE_SECONDS)
                self.collect()
                if not self._running and self._unsaved_since is not None and not self._saver.busy:
                    self._cut(replace(self._ended, trigger=how))
            finally:
                done.set()

        if not self._running and self._unsaved_since is not None:
            self.points.wake(save)
            done.wait(_LAST_WRITE_SECONDS)
            if self._saver.way != "child":
                self._saver.drain(_LAST_WRITE_SECONDS)

    def _save_idle(self) -> None:
        """Do what was asked for from outside, or what is due, on the main thread, where no cell runs."""
        trigger = self._wanted()
        if trigger is None or self._running:
            return
        if self._trigger is None and stack.innermost(sys._getframe(), self._notebook.code.is_cell) is not None:
            return  # a task or a callback of the user's is in the middle of something: what is due can wait for its end
        if trigger == "memory" or self._missed is None:
            self._trigger = self._missed = None
            # Who asks for a snapshot by hand wants what is there.
            occasion = Occasion(trigger=trigger) if trigger == "now" else replace(self._ended, trigger=trigger)
            self._cut(occasion, sparing=trigger == "memory")
        self.catch_up()

    def _look_outside(self) -> None:
        """Do what was asked for from outside at the next safe point, or, where no cell runs, at once."""
        trigger = self._outside.look()
        if trigger is None:
            return
        if trigger == "memory":
            self._untold.append(f"{self._outside.crossed}. A snapshot is made early.")
        self._want(trigger)

    def _want(self, trigger: str) -> None:
        """Have a snapshot made at the next safe point, or, where no cell runs, at once."""
        self._trigger = trigger
        if not self._running:
            self.points.wake(self._save_idle)

    def _place(self) -> tuple[Path, str]:
        return self._notebook.identity.store_root, self._notebook.incarnation

    # --- verdicts: on any thread ------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take the writer's verdict, if there is one."""
        verdict = self._saver.collect()
        if verdict is not None:
            self._take(verdict)
            if verdict.way == "child":
                self._life.writes(None)

    def _take(self, verdict: Verdict) -> None:
        if verdict.again:
            self._trigger = "every"
        elif verdict.snapshot is None:
            self._fail(verdict.error or RescueError("The snapshot was not made."))
        else:
            self._succeed(verdict.snapshot, verdict)

    def _succeed(self, snapshot: Snapshot, verdict: Verdict) -> None:
        self.last_snapshot = snapshot
        self._outside.answer(snapshot)
        self._measuring = _Measuring(verdict.pause_seconds, self._before, verdict.began, verdict.ended)
        lacking, pause_seconds = unsaved_in(snapshot.warnings), snapshot.pause_seconds
        self._life.saves(
            snapshot.created, interval_seconds=self.interval_seconds, pause_seconds=pause_seconds, lacking=lacking
        )
        self._note_what_it_lacks(snapshot, lacking)
        if self.failure is not None:
            self._untold.append(f"Saving works again: snapshot {snapshot.id[:8]}.")
        self.failures, self.failure = 0, None
        lost = "; ".join(map(str, snapshot.lost))
        if lost and lost != self._lost:
            self._untold.append(f"Tagged, but not in snapshot {snapshot.id[:8]}: {lost}")
        self._lost = lost or None
        self._obstacle.pass_by()

    def _note_what_it_lacks(self, snapshot: Snapshot, lacking: str | None) -> None:
        """Tell it once. What a cell trained is mostly in a variable when it has ended: then it is saved at once."""
        if lacking is not None and lacking != self._lacking:
            self._untold.append(f"Snapshot {snapshot.id[:8]} lacks something. {lacking}")
        self._lacking = lacking
        if lacking is not None and not self._running:
            self._want("every")

    def _fail(self, error: BaseException) -> None:
        text = redacted(str(error) if isinstance(error, RescueError) else f"{type(error).__name__}: {error}")
        is_full = self._obstacle.meet(self.last_snapshot.size_bytes if self.last_snapshot is not None else 0)
        if self.failure is None:
            again = " It is tried again once there is room." if is_full else ""
            self._untold.append(f"NOT saved: {text} Your program goes on; what was saved before is intact.{again}")
        # What it would have held is in no snapshot still.
        self._unsaved_since = self._in_flight_since or self._unsaved_since
        self._outside.refuse(text)
        self.failures += 1
        self.failure = text
        self._life.fails(text)

    # --- the clock: on a thread of its own ---------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopped.wait(_PENDING_SECONDS if self.points.pending else _LOOK_SECONDS):
            if os.getpid() != self._process:
                return
            with contextlib.suppress(Exception):  # whatever it is, without a clock there would be no protection
                self._look()

    def _look(self) -> None:
        self.collect()
        self._measure()
        self._look_outside()
        if self._obstacle.is_less(self.interval_seconds):
            self._want("every")
        if not self._is_saving() and self._foresight.look(self.settings, self.last_snapshot):
            self._life.foresees(self._foresight.outlook)
        self._tell_soon()
        if self._read is not None:
            self.points.wake(self._let_go)
        if self._running:
            self._request()
        elif self._wanted() is not None:
            self.points.wake(self._save_idle)
        self._panel.update(self.panel_state())

    def panel_state(self) -> PanelState:
        """What the panel is drawn from just now. While no cell runs, reading on is no reason to draw it again."""
        if self._running or self._drawn is None:
            self._drawn = self.tally
        return PanelState(self._life.life, time.time(), self.last_snapshot, self._drawn)

    def _wanted(self) -> str | None:
        """Why a snapshot is wanted just now, inside the running cell or where none runs; None if none is."""
        if self._saver.busy:
            return None
        if self._trigger is not None or self._missed is not None:
            return self._trigger or "every"
        now = time.monotonic()
        decision = due_inside(
            self.schedule,
            now=now,
            last=self.last,
            unsaved_since=self._unsaved_since or now,
            failures=self.failures,
            cost_seconds=self._costs.typical_seconds,
        )
        return decision.trigger if decision is not None else None

    def _request(self) -> None:
        if self._wanted() is None:
            self._pending_since = None
            self.points.withdraw()
            self._life.obstructs(self.points.paused)
            return
        now = time.monotonic()
        self._pending_since = self._pending_since or now
        self.points.request()
        late = now - self._pending_since > min(_OBSTRUCTED_SECONDS, self.interval_seconds)
        stands = standstill(sys._current_frames().get(self._main), self._notebook.code.is_cell) if late else None
        self._life.obstructs(self.points.paused or stands)

    def _measure(self) -> None:
        """Once it can be known, note how much slower training was while the last snapshot was written."""
        measuring, times = self._measuring, list(self.points.step_times)
        if measuring is None:
            return
        seen = bool(times) and times[-1] > measuring.ended
        if not seen and self._running and time.monotonic() - measuring.ended < _MEASURED_SECONDS:
            return
        self._measuring = None
        slowdown = slowdown_seconds(measuring.before, times, began=measuring.began, ended=measuring.ended)
        self._costs.add(measuring.pause_seconds, slowdown)
        self._life.slows(slowdown, self.interval_seconds)


def say(text: str) -> None:
    """Tell the user something, on the main thread, in a cell."""
    print(f"ipyrescue: {text}", file=sys.stderr, flush=True)  # noqa: T201 - as said
