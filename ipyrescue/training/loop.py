"""`ipyrescue.loop(iterable)`: a `for` loop that goes on where it was, when its cell is run again after a restore."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from types import FrameType
from typing import Any, Generic, TypeVar, cast

from ipyrescue.errors import RescueError
from ipyrescue.training import bars, naming, progress, statements
from ipyrescue.training.counting import counter_asking
from ipyrescue.training.returned import Watch
from ipyrescue.training.sources import BarSource, Source, source_of

T = TypeVar("T")


def loop(iterable: Iterable[T], *, name: str | None = None) -> Loop[T]:
    """Iterate over *iterable*; the same cell, run again after a full restore, starts at the saved position.

        for epoch in ipyrescue.loop(range(100), name="train"): ...

    The position is the number of completed iterations. An iteration is complete when control is back at the loop's
    header: there is where snapshots inside of cells are taken after an optimizer step. A snapshot from the middle of
    an iteration starts that iteration again; loops that had ended within it are skipped, other statements are not. The
    global random streams are put back to where the snapshot found them, also if the cell begins with a seed.

    Sequences go on by index: no skipped element is evaluated. Of any other iterable the first elements are read and
    thrown away. `tqdm(loop(...))` and `loop(tqdm(...))` show the right start. A loop that was left by `break`, or
    ended, is not in progress any more.

    Two things for what stands beside the loop: `loop(...).enumerate()` numbers the items, and goes on counting where
    `enumerate(loop(...))` would begin at zero; and `goes_on` tells, before a loop begins, whether it will be in its
    middle, so that sums over it are not set to zero.

        steps = ipyrescue.batches(loader)
        if not steps.goes_on:
            running = 0.0
        for i, (x, y) in steps.enumerate(): ...

    *name* must be the only one among the loops that run at the same time; without one the place in the source is the
    name (see `ipyrescue.training.naming`), so name it if the cell is going to be edited. When the resumed loop starts,
    a length or type other than what was saved raises `RescueError`; so does a name that is taken, an `enumerate` or
    `zip` that would begin at zero beside it, and the first step of an optimizer of torch in it whose parameters stood
    there before the loop, and neither came back nor have the values of those that did.
    """
    return over(iterable, "loop", name or naming.name_of(sys._getframe(1)), source_of(iterable))


class Loop(Generic[T]):
    """What `loop` and `batches` return: an iterable whose passes are in progress while they run."""

    def __init__(self, iterable: Iterable[T], kind: str, name: str, source: Source) -> None:
        self._iterable = iterable
        self._kind = kind
        self.name = name
        self._source = source
        self._first_number: int | None = None
        self._latest: Callable[[], LoopPass | None] = lambda: None

    def __iter__(self) -> LoopPass:
        one = _begun(LoopPass(self._kind, self.name, self._source, self._first_number), sys._getframe(1))
        self._latest = weakref.ref(one)
        return one

    @property
    def goes_on(self) -> bool:
        """Whether the pass that runs, or else the next one, goes on after items that were done before a restore.

        Then sums over the pass are what came back, and not zero.
        """
        one = self._latest()
        return one.goes_on if one is not None and one.is_running else progress.goes_on((self._kind, self.name))

    def enumerate(self, start: int = 0) -> Loop[tuple[int, T]]:
        """The same loop with its items numbered from *start*; the numbers go on where the loop does."""
        numbered: Any = copy.copy(self)
        numbered._first_number = start
        return cast("Loop[tuple[int, T]]", numbered)

    def __repr__(self) -> str:
        return f"ipyrescue.{self._kind}({self._iterable!r}, name={self.name!r})"


class SizedLoop(Loop[T]):
    """A Loop over an iterable that has a length."""

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type]


def over(iterable: Iterable[T], kind: str, name: str, source: Source) -> Loop[T]:
    """The Loop over *iterable*, with a length if that has one."""
    return (SizedLoop if hasattr(iterable, "__len__") else Loop)(iterable, kind, name, source)


class LoopPass(progress.Pass):
    """One time through a Loop."""

    reading = attrgetter("name", "steps", "between", "source.length")

    def __init__(self, kind: str, name: str, source: Source, first_number: int | None = None) -> None:
        super().__init__(name)
        self.kind = kind
        self.source = source
        self.steps = 0
        """Items handed out, those of the run that died included."""
        self.goes_on = False
        """Whether it took up a position after the first item."""
        self._first_number = first_number
        self.counting: bars.Counting | None = None
        self._items: Iterator[Any] = iter(())
        self._frame_id = self._instruction = -1
        self._ended = False

    def start(self) -> None:
        """Begin at the beginning."""
        self._items = self.source.start()

    def go_on(self, state: dict[str, Any]) -> None:
        """Begin where *state* says."""
        self._refuse_change(state)
        self._items = self.source.go_on(state["source"], state["steps"])
        self.steps = state["steps"]
        self.goes_on = self.steps > 0

    def end(self) -> None:
        """Begin at the end: this pass was through already."""
        self._ended = True

    @property
    def is_running(self) -> bool:
        """Whether it has not come to its end yet."""
        return not self._ended

    def state(self, *, complete: bool) -> dict[str, Any]:
        """The number of completed iterations, and what the source needs to hand out the next item."""
        steps = self.steps if complete else self.steps - 1
        described = {"iterable": self.source.described, "length": self.source.length}
        return described | {"steps": steps, "source": self.source.state(steps, complete=complete)}

    def __iter__(self) -> LoopPass:
        return self

    def __next__(self) -> Any:
        frame = sys._getframe(1)
        if frame.f_lasti != self._instruction or id(frame) != self._frame_id:
            self._asked_from(frame)
        self.between = True
        if self.finished_within:
            self.finished_within = {}
        if self.counting is not None:
            self.counting.show(self.steps)
        try:
            item = next(self._items)
        except StopIteration:
            self._end()
            raise
        self.steps += 1
        self.between = False
        return item if self._first_number is None else (self._first_number + self.steps - 1, item)

    def _asked_from(self, frame: FrameType) -> None:
        self.places, self.in_for = statements.places_asking(frame)
        if (
            self.in_for and len(self.places) == 1
        ):  # a for statement asks at one instruction only; what hands items on may be asked by anybody
            self._frame_id, self._instruction = id(frame), frame.f_lasti

    def _end(self) -> None:
        self._ended = True
        progress.finish(self)
        if self.counting is not None:
            self.counting.close()

    def _refuse_change(self, state: dict[str, Any]) -> None:
        was, now = _described(state["iterable"], state["length"]), _described(self.source.described, self.source.length)
        if was != now:
            raise RescueError(
                f"The {self.kind} {self.name!r} cannot go on: when it was saved, after {state['steps']} iterations, it "
                f"was over {was}; now it is over {now}. Make it what it was, and run the cell again. {_anew(self)}"
            )

    def __del__(self) -> None:
        if not self._ended:
            if self.counting is not None:
                self.counting.close()
            progress.leave(self)


def _begun(one: LoopPass, frame: FrameType) -> LoopPass:
    """Start *one*, or let it take up what a restore has left for it."""
    try:
        state = progress.begin(one, frame)
        if state is None:
            _warn_of_another_count(one, frame)
            one.start()
        elif progress.take_finished(one):
            one.end()
            progress.rewind_streams()
            return one
        else:
            _refuse_another_count(one, state, frame)
            _refuse_what_is_out_of_reach(one, state)
            one.go_on(state)
            progress.rewind_streams()
            _show_start(one, frame)
    except BaseException:
        one.end()  # it never ran, so it was not left either
        raise
    progress.run(one)
    if one.goes_on:
        _watch_first_step(one, frame)
    return one


def _refuse_what_is_out_of_reach(one: LoopPass, state: dict[str, Any]) -> None:
    """Raise `RescueError` where nothing came back but locals of functions, and nobody has taken those."""
    returned = progress.returned() if state.get("steps") else None
    if returned is not None and returned.is_out_of_reach:
        raise RescueError(
            f"The {one.kind} {one.name!r} cannot go on {progress.position(state)}: no variable came back from snapshot "
            f"{returned.snapshot_id[:8]}, but locals of functions, which Python cannot put back. Take them from "
            "ipyrescue.frames() before the loop (asking for them is enough where it needs none), or keep what it needs "
            f"at the top level. {_anew(one)}"
        )


def _watch_first_step(one: LoopPass, frame: FrameType) -> None:
    """Say where *one* goes on; before the first step within it, see whether what that trains came back."""
    returned = progress.returned()
    if returned is None:
        return
    at = f"{one.kind} {one.name!r} goes on {progress.position({'steps': one.steps, 'length': one.source.length})}"
    bars.say(f"ipyrescue: {at}, from snapshot {returned.snapshot_id[:8]} (its goes_on is True, for sums over it).")
    reference = weakref.ref(one)

    def is_running() -> bool:
        one = reference()
        return one is not None and one.is_running and one.thread == threading.get_ident()

    def refuse(optimizer: object) -> None:
        said = (
            f"The {at}, from snapshot {returned.snapshot_id[:8]}, but what its {type(optimizer).__name__} trains was "
            "made anew before it: the iterations that were done are in none of those weights."
        )
        if not returned.has_parameters:
            warnings.warn(f"{said} If they come from a file of yours, all is well.", stacklevel=4)
            return
        progress.give_up()
        raise RescueError(
            f"{said} Nothing was trained. Make model and optimizer in a cell of their own, or only where the loop "
            f"begins: steps = ipyrescue.{kind}(..., name={name!r}), then `if not steps.goes_on:`. In a function take "
            f"them from ipyrescue.frames(). Then restore once more, and run this again. {anew}"
        )

    kind, name, anew = one.kind, one.name, _anew(one)
    progress.watch(Watch(returned, frame, is_running, refuse))


def _anew(one: LoopPass) -> str:
    return f"To begin at the beginning instead, type: ipyrescue.{one.kind}(..., name={one.name + ' again'!r})"


def _refuse_another_count(one: LoopPass, state: dict[str, Any], frame: FrameType) -> None:
    """Raise `RescueError` where what counts beside *one* would begin at zero, and it goes on later."""
    word = counter_asking(frame, _ours()) if state.get("steps") else None
    if word is not None:
        raise RescueError(
            f"The {one.kind} {one.name!r} cannot go on in this {word}(): it goes on {progress.position(state)}, and "
            f"{word} begins at its beginning, so what belongs together would be torn apart. {_counted(one)}, and "
            "run the cell again."
        )


def _warn_of_another_count(one: LoopPass, frame: FrameType) -> None:
    """Where snapshots are made, say in time what will not go on after a restore."""
    word = counter_asking(frame, _ours()) if progress.is_protected() else None
    if word is not None:
        warnings.warn(
            f"After a restore the {one.kind} {one.name!r} will be refused in this {word}(), which begins at its "
            f"beginning where the loop goes on. {_counted(one)}.",
            stacklevel=4,
        )


def _counted(one: LoopPass) -> str:
    return (
        f"Let the loop count, and find by its number what is beside it: "
        f"for i, item in ipyrescue.{one.kind}(..., name={one.name!r}).enumerate()"
    )


def _ours() -> tuple[Any, ...]:
    from ipyrescue.training.batches import batches

    return loop, batches, Loop, LoopPass


def _show_start(one: LoopPass, frame: FrameType) -> None:
    bar = bars.bar_asking(frame)
    if bar is not None:
        one.counting = bars.Counting(bar, one.steps)
    elif isinstance(one.source, BarSource):
        bars.begin_at(one.source.bar, one.steps)


def _described(iterable: str, length: int | None) -> str:
    return iterable if length is None else f"{iterable} of length {length}"
