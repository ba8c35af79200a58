"""What is in progress: the loops, loaders and trainers of this process, into plain data for a snapshot and back.

A Pass is one time through an iterable. It registers itself while it runs, and what it stands at becomes part of every
snapshot (`states`). After a restore (`resume`) the pass of the same kind and name takes up its state, once. Needs no
notebook and no snapshots to work: in a plain script nothing is ever resumed, and loops are just loops. Forked children
(DataLoader workers, the snapshot's writer) leave the registry of their parent alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ipyrescue.errors import RescueError
from ipyrescue.training import statements, streams
from ipyrescue.training.statements import Place
from ipyrescue.wording import clean, shortened

if TYPE_CHECKING:
    from ipyrescue.training.returned import Returned, Watch

TRAINER = "trainer"
"""The kind of a pass that a bridge to a trainer's library has begun."""

_MOST_LEFT = 32
_MOST_STANDING = 8
_STANDING_CHARACTERS = 80

Key = tuple[str, str]
"""A kind and a name: `("loop", "train")`."""


class Pass:
    """One time through an iterable, or one run of a trainer. Subclasses say what they stand at."""

    kind = "pass"
    reading: ClassVar[attrgetter[tuple[Any, ...]] | None] = None
    """Reads name, items handed out, `between` and length, within C: see `standing`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: tuple[Place, ...] = ()
        """Who asked for the item that is in use: see `statements.places_asking`."""
        self.in_for = True
        """Whether a `for` statement asked for it, rather than a `next()` somewhere."""
        self.between = True
        """Whether no item is in use: before the first one, or while the next one is being made."""
        self.finished_within: dict[Key, int] = {}
        """How many other passes ended within the iteration that this one is in."""
        self.thread = threading.get_ident()
        self.began_in: statements.CellRun | None = None
        self.cell: statements.CellRun | None = None

    @property
    def key(self) -> Key:
        """What no other running pass has."""
        return self.kind, self.name

    def state(self, *, complete: bool) -> dict[str, Any]:
        """What another process needs to go on; *complete* says whether the item in use is done with."""
        raise NotImplementedError

    def is_complete_at(self, frame: FrameType | None, header: int | None) -> bool:
        """Whether all that is done with the item in use has been done when *frame* is at the loop header *header*.

        That is so at the header of the loop around the place that asked for the item; and when nothing runs any more
        that asked by `next()`, for an iterator that a variable holds.
        """
        if self.between:
            return True
        if frame is None or header is None:
            return not self.in_for and not statements.is_on_stack(self.places)
        lines = statements.lines_of_loop(frame.f_code, header)
        return any(place == id(frame) and code is frame.f_code and line in lines for place, code, line in self.places)


@dataclass
class _Left:
    """A pass that was left before its end, by `break` or by an exception: a traceback will tell."""

    state: dict[str, Any]
    finished_within: dict[Key, int]
    places: tuple[Place, ...]
    cell: statements.CellRun | None


class _Running(NamedTuple):
    """A pass that runs, known without being kept: *proxy* is for other threads."""

    reference: weakref.ref[Pass]
    proxy: Any
    reading: attrgetter[tuple[Any, ...]] | None


@dataclass
class _Registry:
    """All that this module remembers; `finished` counts the passes that ended in *cell*, within no other pass.

    *whole* is what *pending* was before anything was taken up, *returned* what was restored with it.
    """

    running: dict[Key, _Running] = field(default_factory=dict)
    left: dict[Key, _Left] = field(default_factory=dict)
    pending: dict[Key, dict[str, Any]] = field(default_factory=dict)
    streams: dict[str, Any] = field(default_factory=dict)
    cell: statements.CellRun | None = None
    finished: dict[Key, int] = field(default_factory=dict)
    warned: bool = False
    returned: Returned | None = None
    whole: dict[Key, dict[str, Any]] = field(default_factory=dict)
    watch: Watch | None = None
    awaited: Callable[[FrameType], None] | None = None
    forked: bool = False

    def alive(self) -> Iterator[Pass]:
        """The running passes, outermost (first begun) first."""
        for running in list(self.running.values()):
            if (one := running.reference()) is not None:
                yield one


_registry = _Registry()


def states(place_frame: FrameType | None, header: int | None, *, raised: BaseException | None = None) -> dict[str, Any]:
    """Say what everything in progress stands at, as plain data that `resume` takes; `{}` if nothing is in progress.

    *place_frame* and *header* are where control stands: a frame, and the line of the loop header it has reached. For a
    call that is the last statement of a loop's body, `header_of_tail(frame)` is that header. A pass whose own header
    it is has its iteration complete; any other is in the middle of one, and does that one again,
    but for the passes that had ended within it. *raised* is the
    exception that ended the cell: the loops it came through count as in progress, those left by `break` do not.
    """
    found: dict[Key, dict[str, Any]] = {} if raised is None else _left_by(raised)
    cells = {one.cell for key, one in _registry.left.items() if key in found}
    cells |= {statements.cell_run_of(place_frame)} if place_frame is not None else set()
    for one in _registry.alive():
        cells.add(one.cell)
        complete = one.is_complete_at(place_frame, header)
        _add(found, one.key, one.state(complete=complete), {} if complete else one.finished_within)
    if _registry.cell in cells:
        _add_finished(found, _registry.finished)
    rewound = streams.read() if found else _registry.streams  # nothing was taken up yet: they are still to come
    found = _registry.pending | found
    if not found:
        return {}
    return {"passes": [(*key, state) for key, state in found.items()], "streams": rewound}


def _add(
    found: dict[Key, dict[str, Any]], key: Key, state: Mapping[str, Any], finished_within: Mapping[Key, int]
) -> None:
    """Add a pass to *found*, with those that ended within its iteration and that it would otherwise do again."""
    found[key] = found.get(key, {}) | dict(state)
    _add_finished(found, finished_within)


def _add_finished(found: dict[Key, dict[str, Any]], finished: Mapping[Key, int]) -> None:
    for key, times in finished.items():
        if times:
            found[key] = found.get(key, {}) | {"finished": times}


def header_of_tail(frame: FrameType) -> int | None:
    """The header that *frame* reaches next if its current statement is the last of a loop's body; see `states`."""
    return statements.header_of_tail(frame)


def resume(states: Mapping[str, Any], returned: Returned | None = None) -> None:
    """Let passes of the same kind and name go on from *states*, each once; what was to be resumed before is forgotten.

    With *returned*, what was restored beside them, each tells that it goes on, and is refused where that is lost.
    Called from within a loop that is running, it changes nothing for loops: that one goes on by itself.
    """
    _registry.pending, _registry.warned = {}, False
    _registry.cell, _registry.finished = None, {}
    _registry.left.clear()
    frame = sys._getframe(1)
    if any(_is_running(one, frame) for one in _registry.alive()):
        return
    _registry.running.clear()
    _registry.pending = {(kind, name): state for kind, name, state in states.get("passes", ())}
    _registry.whole, _registry.returned = dict(_registry.pending), returned
    _registry.streams = dict(states.get("streams", {}))


def take_up_no_more() -> None:
    """Forget what no pass has taken up: the cell that a restore has left it for is done."""
    _registry.pending, _registry.streams = {}, {}
    _registry.whole, _registry.returned = {}, None


def frames_are_taken() -> None:
    """Somebody has asked for the locals that a restore hands out, so what a loop in a function needs is in reach."""
    if _registry.returned is not None:
        _registry.returned.is_out_of_reach = False


def sentences(states: Mapping[str, Any]) -> list[str]:
    """For people: where each pass of *states* goes on when its cell is run again."""
    return [
        f"{kind} {name!r} goes on {position(state)}"
        for kind, name, state in states.get("passes", ())
        if "steps" in state
    ]


def position(state: Mapping[str, Any]) -> str:
    """For people: after how many iterations *state* is."""
    length = state.get("length")
    return f"after {state['steps']}" + ("" if length is None else f" of {length}")


def standing() -> tuple[str, ...]:
    """For people: what the running passes stand at just now, outermost first: `train 12/100`. On any thread.

    No pass is held meanwhile, not for one instruction: dropped here it would seem to have been left in this thread.
    """
    found = islice(_readings(), _MOST_STANDING)
    told = (f"{clean(name)} {_fraction(steps - (not between), length)}" for name, steps, between, length in found)
    return tuple(shortened(words, _STANDING_CHARACTERS) for words in told)


def _readings() -> Iterator[tuple[Any, ...]]:
    for running in list(_registry.running.values()):
        with contextlib.suppress(ReferenceError):  # it is over
            if running.reading is not None:
                yield running.reading(running.proxy)


def _fraction(steps: int, length: int | None) -> str:
    return f"{steps}" if length is None else f"{steps}/{length}"


# What passes call.


def before_next_pass(call: Callable[[FrameType], None] | None) -> None:
    """Have *call* called, once, with the frame that the next pass begins in, before it takes anything up."""
    _registry.awaited = call


def begin(one: Pass, frame: FrameType) -> dict[str, Any] | None:
    """Register *one*, begun in *frame*; return the state that it is to go on from, if a restore left one for it.

    A state stays until `took_up` is called. Raises `RescueError` if a pass of this kind and name is running.
    """
    if _registry.forked:
        return None
    awaited, _registry.awaited = _registry.awaited, None
    if awaited is not None:
        awaited(frame)
    older = _running(one.key)
    if older is not None and _is_running(older, frame):
        raise RescueError(
            f"Two loops called {one.name!r} cannot be in progress at once: what a restore goes on with would be "
            f"anybody's guess. Give one of them another name: ipyrescue.{one.kind}(..., name={one.name + ' 2'!r})"
        )
    _watch_no_more()
    one.began_in, one.cell = statements.CellRun(frame), statements.cell_run_of(frame)
    _registry.left.pop(one.key, None)
    state = _registry.pending.get(one.key)
    if state is None:
        _warn_of_what_is_pending(one)
    return state


def goes_on(key: Key) -> bool:
    """Whether the next pass of this kind and name is one that a restore has left in its middle, or after its end."""
    state = _registry.pending.get(key, {})
    return bool(state.get("steps") or state.get("finished"))


def is_protected() -> bool:
    """Whether snapshots are made by themselves just now."""
    capture = sys.modules.get("ipyrescue.capture.safepoint")
    return capture is not None and capture.current() is not None


def run(one: Pass) -> None:
    """From now on *one* is in progress; what it took up is no longer pending."""
    if _registry.forked:
        return
    _registry.pending.pop(one.key, None)
    _registry.running.pop(one.key, None)
    _registry.running[one.key] = _Running(weakref.ref(one), weakref.proxy(one), one.reading)


def take_finished(one: Pass) -> bool:
    """Whether a pass like *one* had ended already within the iteration that is being done again: then it is skipped."""
    state = _registry.pending.get(one.key, {})
    if not state.get("finished"):
        return False
    state = state | {"finished": state["finished"] - 1}
    if state == {"finished": 0}:
        del _registry.pending[one.key]
    else:
        _registry.pending[one.key] = state
    _count(one)
    return True


def rewind_streams() -> None:
    """Put the global random streams back to where the snapshot that is being resumed found them."""
    streams.put_back(_registry.streams)


def boundary(*passes: Pass) -> None:
    """For bridges to trainers: an iteration of the library is complete, so a snapshot may be cut here.

    Nothing happens unless one is wanted. On the main thread.
    """
    from ipyrescue.capture import safepoint

    current = safepoint.current()
    if current is None:
        return
    kept = [one.between for one in passes]
    for one in passes:
        one.between = True
    try:
        current.iteration_ends()
    finally:
        for one, between in zip(passes, kept, strict=True):
            one.between = between


def is_between(place_frame: FrameType | None, header: int | None) -> bool:
    """Whether a snapshot that is cut there goes on exactly: some pass is between two iterations, or none is running.

    In the middle of all of them the iteration that is in use would be done again, with other random numbers.
    """
    running = list(_registry.alive())
    return not running or any(one.is_complete_at(place_frame, header) for one in running)


def returned() -> Returned | None:
    """What was restored with the states that are being taken up; nothing where a trainer sees to that itself."""
    trained_by_itself = any(one.kind == TRAINER for one in _registry.alive())
    return None if trained_by_itself else _registry.returned


def watch(watching: Watch) -> None:
    """Let *watching* see the first step that comes; whatever was watched before is not any more."""
    if _registry.watch is not None:
        _registry.watch.stop()
    _registry.watch = watching


def give_up() -> None:
    """What was taken up is left again, for whoever runs the cell anew: it could not go on."""
    _registry.pending = dict(_registry.whole)


def _watch_no_more() -> None:
    if _registry.watch is not None and _registry.watch.is_over:
        _registry.watch.stop()
        _registry.watch = None


def finish(one: Pass) -> None:
    """*one* came to its end."""
    _watch_no_more()
    if _running(one.key) is one:
        _count(one)
        del _registry.running[one.key]


def leave(one: Pass) -> None:
    """*one* was dropped before its end. Never raises: it is called from `__del__`."""
    if _registry is None or sys.is_finalizing() or _registry.forked:
        return
    running = _registry.running.get(one.key)
    if running is None or running.reference() not in (None, one):  # a weak reference is dead by the time of __del__
        return
    _count(one)
    del _registry.running[one.key]
    try:
        left = _Left(one.state(complete=one.between), one.finished_within, one.places, one.cell)
    except Exception:  # noqa: BLE001 - a loader that cannot say where it stands any more costs an interrupted snapshot
        return
    _registry.left[one.key] = left
    while len(_registry.left) > _MOST_LEFT:
        del _registry.left[next(iter(_registry.left))]


def _count(one: Pass) -> None:
    """Note in the pass around *one*, or else for its cell, that it is over."""
    around = [other for other in _registry.alive() if other is not one and _is_in_an_iteration(other, one.thread)]
    if around:
        finished = around[-1].finished_within
    elif statements.repeats_by_while(sys._getframe(1)):
        return  # what it counts by is restored, so the passes that had ended are not begun again
    else:
        if _registry.cell != one.cell:
            _registry.cell, _registry.finished = one.cell, {}
        finished = _registry.finished
    finished[one.key] = finished.get(one.key, 0) + 1


def _is_in_an_iteration(one: Pass, thread: int) -> bool:
    return one.thread == thread and one.in_for and not one.between


def _running(key: Key) -> Pass | None:
    running = _registry.running.get(key)
    return None if running is None else running.reference()


def _is_running(older: Pass, frame: FrameType) -> bool:
    """Whether *older* is more than an iterator that some variable still holds: its loop is around *frame*."""
    if older.thread != threading.get_ident():
        return any(thread.ident == older.thread for thread in threading.enumerate())
    if older.places and not older.in_for:
        return False  # who asks by next() may as well have begun anew
    at: FrameType | None = frame
    while at is not None:
        begun_here = not older.places and statements.CellRun(at) == older.began_in
        if begun_here or statements.is_within(at, at.f_lineno, older.places):
            return True
        at = at.f_back
    return False


def _left_by(raised: BaseException) -> dict[Key, dict[str, Any]]:
    """The states of the passes that *raised* came through."""
    left = {key: one for key, one in _registry.left.items() if _came_through(raised, one.places)}
    found: dict[Key, dict[str, Any]] = {}
    for key, one in left.items():
        others = {other: times - (other in left) for other, times in one.finished_within.items()}
        _add(found, key, one.state, others)
    return found


def _came_through(raised: BaseException, places: tuple[Place, ...]) -> bool:
    at = raised.__traceback__
    while at is not None:
        if statements.is_within(at.tb_frame, at.tb_lineno, places):
            return True
        at = at.tb_next
    return False


def _warn_of_what_is_pending(one: Pass) -> None:
    """Say once that a loop begins at its beginning although the restored snapshot stood inside of another one."""
    others = [
        (name, state) for (kind, name), state in _registry.pending.items() if kind == one.kind and "steps" in state
    ]
    if not others or _registry.warned:
        return
    _registry.warned = True
    name, state = others[0]
    warnings.warn(
        f"This {one.kind} starts at its beginning. What the restored snapshot stood in goes by another name: {name!r}, "
        f"{position(state)}. If it is the same one, edited, type: ipyrescue.{one.kind}(..., name={name!r})",
        stacklevel=4,
    )


def _forget_in_child() -> None:
    _registry.forked = True
    _registry.running.clear()
    _registry.pending.clear()
    _registry.left.clear()


os.register_at_fork(after_in_child=_forget_in_child)
