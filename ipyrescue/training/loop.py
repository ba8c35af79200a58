"""`ipyrescue.loop(iterable)`: a `for` loop that goes on where it was, when its cell is run again after a restore."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from operator import attrgetter
from types import FrameType
from typing import Any, Generic, TypeVar

from ipyrescue.errors import RescueError
from ipyrescue.training import bars, naming, progress, statements
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

    *name* must be the only one among the loops that run at the same time; without one the place in the source is the
    name (see `ipyrescue.training.naming`), so name it if the cell is going to be edited. When the resumed loop starts,
    a length or type other than what was saved raises `RescueError`; so does a name that is taken.
    """
    return over(iterable, "loop", name or naming.name_of(sys._getframe(1)), source_of(iterable))


class Loop(Generic[T]):
    """What `loop` and `batches` return: an iterable whose passes are in progress while they run."""

    def __init__(self, iterable: Iterable[T], kind: str, name: str, source: Source) -> None:
        self._iterable = iterable
        self._kind = kind
        self.name = name
        self._source = source

    def __iter__(self) -> LoopPass:
        return _begun(LoopPass(self._kind, self.name, self._source), sys._getframe(1))

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

    def __init__(self, kind: str, name: str, source: Source) -> None:
        super().__init__(name)
        self.kind = kind
        self.source = source
        self.steps = 0
        """Items handed out, those of the run that died included."""
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

    def end(self) -> None:
        """Begin at the end: this pass was through already."""
        self._ended = True

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
        return item

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
                f"was over {was}; now it is over {now}. Make it what it was, and run the cell again. To begin at the "
                f"beginning instead, type: ipyrescue.{self.kind}(..., name={self.name + ' again'!r})"
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
            one.start()
        elif progress.take_finished(one):
            one.end()
            progress.rewind_streams()
            return one
        else:
            one.go_on(state)
            progress.rewind_streams()
            _show_start(one, frame)
    except BaseException:
        one.end()  # it never ran, so it was not left either
        raise
    progress.run(one)
    return one


def _show_start(one: LoopPass, frame: FrameType) -> None:
    bar = bars.bar_asking(frame)
    if bar is not None:
        one.counting = bars.Counting(bar, one.steps)
    elif isinstance(one.source, BarSource):
        bars.begin_at(one.source.bar, one.steps)


def _described(iterable: str, length: int | None) -> str:
    return iterable if length is None else f"{iterable} of length {length}"
