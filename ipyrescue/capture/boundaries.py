"""Where an iteration ends: the loops around a step, and the arrival at their headers.

Turns a step and the lines that follow it into a `Place`. Knows no tracing and no clock. The loop that counts is the
innermost one whose body encloses the steps of all active optimizers; the loops inside it are noticed only, the ones
around it count when it is left without coming to its header again (`break`, an exception, the end of a function).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType

from ipyrescue.capture.headers import Loop, Position, Syntax
from ipyrescue.capture.stacks import Stacks, Standing
from ipyrescue.capture.steps import Chain, Stepped, Steps, chain_of


@dataclass(frozen=True)
class Place:
    """Where control stands when a snapshot may be cut.

    *cut* is `boundary`, `await`, `line` or `in_hook`; *frame* the innermost frame of a cell, none at an await; *header*
    the line at which that frame stands if it is the header of a loop whose iteration is complete.
    """

    cut: str
    frame: FrameType | None
    header: int | None


@dataclass(frozen=True, eq=False)
class _Aim:
    """A loop around a step, awaited at its header. Not *usable*: noticed only, as it is not around all the steps."""

    frame: FrameType
    loop: Loop
    standing: Standing
    usable: bool


class Boundaries:
    """The loops that are awaited at their headers since the last step, innermost first."""

    def __init__(self, stacks: Stacks, syntax: Syntax, steps: Steps) -> None:
        self._stacks = stacks
        self._syntax = syntax
        self._steps = steps
        self._aims: list[_Aim] = []
        self._since_header: dict[int, Chain] = {}

    @property
    def awaited(self) -> bool:
        """Whether there is any."""
        return bool(self._aims)

    def ask_anew(self) -> None:
        """Forget what was seen for the last request."""
        self._aims = []
        self._since_header = {}
        self._steps.forget_chains()

    def drop(self) -> None:
        """Await none until the next step."""
        self._aims = []

    def stepped(self, step: Stepped, frames: list[FrameType]) -> bool:
        """Take in that *step* was made below *frames*; whether a library runs the loop.

        It does where the same step came again and no header of the cell's own loops was reached in between.
        """
        step.chain = chain_of(frames)
        if not frames:
            return True
        again = self._since_header.get(id(step)) == step.chain
        self._since_header[id(step)] = step.chain
        if again and self._stacks.standing(frames[0]) is not Standing.SHUT and self._steps.completes(step):
            return True
        self._aims = self._around(frames)
        return False

    def arrived(self, frame: FrameType, before: Position, now: Position) -> Place | None:
        """Take in that *frame* went on to another line; the place if an iteration is complete there.

        A loop that a library calls is complete, but the library may be half done: that is no boundary of a cell.
        """
        while self._aims and self._aims[0].frame is frame:
            aim = self._aims[0]
            if aim.loop.reached(before, now):
                self._since_header = {}
                if aim.usable:
                    return Place("boundary" if aim.standing is Standing.CLEAN else "in_hook", frame, now.line)
            elif aim.loop.holds(now.line):
                return None
            del self._aims[0]
        return None

    def left(self, frame: FrameType) -> None:
        """Take in that *frame* has ended."""
        self._aims = [aim for aim in self._aims if aim.frame is not frame]

    def _around(self, frames: list[FrameType]) -> list[_Aim]:
        active, aims = self._steps.active(), []
        for frame in frames:
            standing = self._stacks.standing(frame)
            for loop in self._syntax.around(frame.f_code, frame.f_lineno):
                usable = standing is not Standing.SHUT and all(one.stepped_in(loop) for one in active)
                aims.append(_Aim(frame, loop, standing, usable))
        return aims
