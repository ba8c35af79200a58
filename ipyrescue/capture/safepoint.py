"""Where in a running cell a snapshot may be cut: requests into one call at a safe point, on the main thread.

Turns `request` (any thread) into one call of `reached(place)`. Knows neither IPython nor what a snapshot is. Best is
the iteration boundary: after a step of an optimizer, when control reaches the header of the loop whose body encloses
the steps of all optimizers at work. Then an `await`, the step hook itself where a library runs the loop, and a line of
the cell's own code with a clean stack. Nothing is traced unless a request is pending, and not while it waits for a
step.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import CodeType, FrameType
from typing import Any

from ipyrescue.capture.attention import Attention, shielded
from ipyrescue.capture.boundaries import Boundaries, Place
from ipyrescue.capture.headers import Position, Syntax, in_linecache
from ipyrescue.capture.stacks import Stacks, Standing, outwards
from ipyrescue.capture.steps import Stepped, Steps
from ipyrescue.capture.tracing import Tracing
from ipyrescue.trained import Trained

PATIENCE_SECONDS = 10.0
"""How long a request waits for the end of an iteration before a clean line will do, ..."""
PATIENCE_INTERVALS = 5
"""... or this many times the usual time between two steps, if that is longer."""
HEADER_PATIENCE_SECONDS = 1.0
"""How long the header of a loop is preferred to other lines, ..."""
LOOP_PATIENCE_SECONDS = 10.0
"""... and how long within a loop, where another line is in the middle of an iteration."""
TRACING_SECONDS = 5.0
"""Tracing slows Python code down, so it lasts no longer than this in one piece, ..."""
TRACING_INTERVALS = 2
"""... or this many times the usual time between two steps, if that is longer; ..."""
RARE = 10
"""... then it goes on at one of so many visits."""
TRACED = "a debugger or coverage tool holds the tracer"

_installed: SafePoints | None = None


def current() -> SafePoints | None:
    """Return the safe points that are installed in this process, if any."""
    return _installed


class SafePoints:
    """Calls *reached* once for each request, where a cut is safe. *is_cell* says which code is the user's own.

    *clock* is monotonic, in seconds; *source* returns the text that a code object was compiled from. All but `request`,
    `withdraw` and `wake` belongs to the main thread.
    """

    pending: bool
    paused: str | None
    _event_loop: asyncio.AbstractEventLoop | None
    _watching_since: float | None
    _line_since: float | None
    _traced_since: float | None

    def __init__(
        self,
        is_cell: Callable[[CodeType], bool],
        reached: Callable[[Place], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        source: Callable[[CodeType], str | None] = in_linecache,
    ) -> None:
        self._is_cell = is_cell
        self._reached = reached
        self._clock = clock
        self._syntax = Syntax(source)
        self._stacks = Stacks(is_cell, self._syntax)
        self._steps = Steps()
        self._boundaries = Boundaries(self._stacks, self._syntax, self._steps)
        self._tracing = Tracing(self)
        self._attention = Attention(self._visit)
        self._main = threading.main_thread().ident
        self._process = os.getpid()
        self._hook: Any = None
        self._hook_lock = threading.Lock()
        self._cells = 0
        self._serial = 0
        self.pending = False
        self._forget_cell()

    @property
    def step_times(self) -> deque[float]:
        """When the last 64 optimizer steps of this cell were made, by *clock*."""
        return self._steps.times

    # --- life -------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Take a free signal number and torch's post-step hook. On the main thread."""
        global _installed
        _installed = self
        self._attention.take()
        self._watch_optimizers()

    def uninstall(self) -> None:
        """Give everything back. On the main thread."""
        global _installed
        self.pending = False
        self._forget_cell()
        self._attention.give_back()
        with self._hook_lock:
            if _installed is self:
                _installed = None
            if self._hook is not None:
                self._hook.remove()
            self._hook = None

    def cell_begins(self) -> None:
        """A cell of the user runs from now on; cells may nest."""
        self._cells += 1
        if self._cells == 1:
            self._serial += 1
            self._forget_cell()
            self._watch_optimizers()
            self._watching_since = None
            self._note_event_loop()

    def cell_ends(self) -> None:
        """The cell has ended, however it did."""
        self._cells = max(0, self._cells - 1)
        if self._cells == 0:
            self._forget_cell()

    def _forget_cell(self) -> None:
        self._tracing.off()
        self._steps.forget()
        self._stacks.forget()
        self._syntax.forget()
        self._event_loop = None
        self._nudged = False
        self._watching_since = None
        self.paused = None
        self._begin_request()

    def _begin_request(self) -> None:
        self._asked = self._clock()
        self._boundaries.ask_anew()
        self._line_since = None
        self._traced_since = None
        self._visits = 0

    # --- asking: any thread -----------------------------------------------------------------------------------------

    def request(self) -> None:
        """Ask for one call of `reached`. While it is pending, call this again every 0.1 s: patience is judged then."""
        if os.getpid() != self._process:
            return
        self._watch_optimizers()
        if not self.pending:
            self._begin_request()
            self.pending = True
        self._attention.ask()
        self._nudge_event_loop()

    def withdraw(self) -> None:
        """Ask no longer."""
        self.pending = False
        self._attention.ask()

    def wake(self, callback: Callable[[], None]) -> None:
        """Run *callback* once on the main thread, as soon as that can: in the middle of a cell, or of being idle."""
        self._attention.wake(callback, idle=not self._cells)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Disturb nobody meanwhile; who was to be woken is called afterwards. On the main thread, not nested."""
        return self._attention.held()

    def _nudge_event_loop(self) -> None:
        """Be called by the loop that runs the cell, as soon as the cell awaits something: nothing of it runs then."""
        event_loop = self._event_loop
        if event_loop is not None and not self._nudged:
            self._nudged = True
            with contextlib.suppress(RuntimeError):  # it is closed
                event_loop.call_soon_threadsafe(self._at_await, self._serial)

    # --- the main thread, between two instructions of any frame -----------------------------------------------------

    def _visit(self, frame: FrameType | None) -> None:
        """See whether the request has waited long enough for the end of an iteration."""
        if _is_ours(frame):
            return
        if not (self.pending and self._cells):
            self._stop()
            return
        frames = self._stacks.cell_frames(frame)
        if self._is_taken(frames):
            return
        if self._waits_for_a_step():
            self._trace_no_longer_than_it_pays()
        elif frames:
            self._trace_lines(frames)
        else:
            self._note_event_loop()
            self._nudge_event_loop()

    def _waits_for_a_step(self) -> bool:
        now, times = self._clock(), self._steps.times
        patience = max(PATIENCE_SECONDS, PATIENCE_INTERVALS * self._steps.round_seconds)
        if now - self._asked > patience:
            return False
        unseen = self._watching_since is not None and now - self._watching_since < patience
        return unseen or (bool(times) and now - times[-1] <= patience)

    def _trace_no_longer_than_it_pays(self) -> None:
        """After a step comes the header soon, or else an evaluation that would be slowed down; a step comes again."""
        longest = max(TRACING_SECONDS, TRACING_INTERVALS * self._steps.round_seconds)
        if self._traced_since is not None and self._clock() - self._traced_since > longest:
            self._stop()

    def _trace_lines(self, frames: list[FrameType]) -> None:
        now = self._clock()
        self._line_since = now if self._line_since is None else self._line_since
        self._visits += 1
        if now - self._line_since <= TRACING_SECONDS or self._visits % RARE == 0:
            self._trace(frames)
        else:
            self._stop()

    def _note_event_loop(self) -> None:
        with contextlib.suppress(RuntimeError):  # none is running
            self._event_loop = asyncio.get_running_loop()

    def _at_await(self, serial: int) -> None:
        self._nudged = False
        if os.getpid() != self._process or not (self.pending and self._cells and self._serial == serial):
            return
        frames = self._stacks.cell_frames(sys._getframe())
        if not frames and not self._is_taken(frames) and not self._waits_for_a_step():
            self._fire(Place("await", None, None))

    def _is_taken(self, frames: list[FrameType]) -> bool:
        taken = self._tracing.is_taken(frames)
        self.paused = TRACED if taken else None
        return taken

    # --- steps ------------------------------------------------------------------------------------------------------

    def stepped(self, optimizer: object, args: object = (), kwargs: object = None) -> None:
        """Note that *optimizer* has just made a step; torch's global post-step hook."""
        if not self._cells or threading.get_ident() != self._main:
            return
        step = self._steps.note(optimizer, self._clock())
        if self.pending and os.getpid() == self._process:
            shielded(partial(self._step_while_pending, step, sys._getframe(1)))

    def training(self) -> tuple[Trained, ...]:
        """What is trained where control stands, of what stepped while a snapshot was wanted. On the main thread."""
        running = {each.f_code for each in outwards(sys._getframe())}
        active = [(one.alive(), one.within) for one in self._steps.active() if one.within in running]
        return tuple(Trained(made, None if self._is_cell(code) else code) for made, code in active if code is not None)

    def iteration_ends(self) -> None:
        """Say that an iteration of a library is complete: a boundary. For bridges to trainers; on the main thread."""
        if not (self.pending and self._cells and threading.get_ident() == self._main and os.getpid() == self._process):
            return
        frames = self._stacks.cell_frames(sys._getframe(1))
        if not self._is_taken(frames):
            self._fire(Place("boundary", frames[0] if frames else None, None))

    def _step_while_pending(self, step: Stepped, frame: FrameType) -> None:
        frames = self._stacks.cell_frames(frame)
        if self._is_taken(frames):
            return
        step.within = self._stacks.trainer(frame)
        if self._boundaries.stepped(step, frames):
            self._fire(Place("in_hook", frames[0] if frames else None, None))
            return
        if self._waits_for_a_step():
            self._line_since = None
        if self._boundaries.awaited:
            self._trace(frames)

    # --- traced lines -----------------------------------------------------------------------------------------------

    def follows(self, frame: FrameType) -> bool:
        """Whether a frame that begins is to be traced; `tracing.Wants`."""
        if not self.pending:
            self._stop()
        return self._line_since is not None and self.pending and self._is_cell(frame.f_code)

    def line(self, frame: FrameType, before: Position, now: Position) -> Callable[[], None] | None:
        """A traced frame is at a line; `tracing.Wants`."""
        place = None
        if self.pending:
            place = self._boundaries.arrived(frame, before, now) or self._at_a_line(frame, before, now)
        if place is not None:
            return partial(self._fire, place)
        self._rest()
        return None

    def left(self, frame: FrameType) -> None:
        """A traced frame has ended; `tracing.Wants`."""
        self._boundaries.left(frame)
        self._rest()

    def _at_a_line(self, frame: FrameType, before: Position, now: Position) -> Place | None:
        """Whether any line will do by now, and this is one with a clean stack."""
        if self._line_since is None or not self._stacks.is_statement(frame):
            return None
        ends = any(loop.reached(before, now) for loop in self._syntax.loops(frame.f_code))
        patience = LOOP_PATIENCE_SECONDS if self._is_in_a_loop(frame) else HEADER_PATIENCE_SECONDS
        if not ends and self._clock() - self._line_since < patience:
            return None
        clean = self._stacks.standing(frame) is Standing.CLEAN
        return Place("line", frame, now.line if ends else None) if clean else None

    def _is_in_a_loop(self, frame: FrameType) -> bool:
        """Whether *frame* is in the middle of a loop of a cell's, or was called from there."""
        frames = self._stacks.cell_frames(frame)
        return any(loop.holds(each.f_lineno) for each in frames for loop in self._syntax.loops(each.f_code))

    def _trace(self, frames: list[FrameType]) -> None:
        if self._traced_since is None:
            self._traced_since = self._clock()
        self._tracing.on(frames)

    def _rest(self) -> None:
        """Trace no longer when only a step can bring the next boundary."""
        if not self.pending or (not self._boundaries.awaited and self._line_since is None):
            self._stop()

    def _stop(self) -> None:
        self._tracing.off()
        self._boundaries.drop()
        self._traced_since = None

    # --- there ------------------------------------------------------------------------------------------------------

    def _fire(self, place: Place) -> None:
        """Call `reached`, once, with nothing of ours left behind."""
        self._stop()
        self._begin_request()
        self.pending = False
        with self._attention.held():
            shielded(partial(self._reached, place))

    def _watch_optimizers(self) -> None:
        """Ask torch for its hook, as soon as the user has imported it."""
        register = getattr(sys.modules.get("torch.optim.optimizer"), "register_optimizer_step_post_hook", None)
        if register is None or self._hook is not None:
            return
        with self._hook_lock:
            if self._hook is None and _installed is self:
                self._hook = register(self.stepped)
                self._watching_since = self._clock()  # in the middle of a cell: steps may have been made before


def _is_ours(frame: FrameType | None) -> bool:
    """Whether this module is in the middle of something."""
    while frame is not None:
        if frame.f_globals is globals() or frame.f_globals.get("__name__") == Tracing.__module__:
            return True
        frame = frame.f_back
    return False
