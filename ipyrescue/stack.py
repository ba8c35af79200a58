"""The stack of a thread to the functions of cells that run on it, each with its locals. Knows no pickling, no IPython.

What stands in a function is no variable of the session, so it travels under pseudo-names, which no variable can have:
`train().step`, and `train()#2.step` for the second frame of the same function, counted from the outermost.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

_MOST_FRAMES = 40
"""Of a deep recursion the outermost and the innermost half of so many are kept."""

_KEEPS_COPIES = sys.version_info < (3, 13)
_HOLDERS_OF_A_COPY = 3
"""How many references to the copy of a frame's locals are ours: the frame, the variable, the argument."""

_OF_THE_COMPILER = frozenset({"__class__", "__classdict__"})


@dataclass(frozen=True, eq=False, repr=False)
class Running:
    """A function of a cell that ran when a snapshot was taken: its name, where it stood, and its locals.

    *function* is the qualified name without `<locals>`; *line* counts in *cell*, the execution count of the cell that
    defined it. *number* tells frames of one function apart.
    """

    function: str
    cell: int | None
    line: int
    locals: dict[str, Any]
    number: int = 1

    @property
    def call(self) -> str:
        """What pseudo-names of its locals begin with: `train()`, `train()#2`."""
        return f"{self.function}()" if self.number == 1 else f"{self.function}()#{self.number}"

    @property
    def place(self) -> str:
        """Where it stood, in words."""
        return f"line {self.line}" + (f" of cell [{self.cell}]" if self.cell is not None else "")

    def pseudo_name(self, name: str) -> str:
        """Under which name the local *name* travels."""
        return f"{self.call}.{name}"

    def __repr__(self) -> str:
        return f"<{self.call}, {self.place}: {', '.join(self.locals) or 'no locals'}>"


def running(
    frame: FrameType | None, is_cell: Callable[[CodeType], bool], cell_of: Callable[[CodeType], int | None]
) -> tuple[Running, ...]:
    """The functions whose code *is_cell*, from *frame* outwards; outermost first, with copies of their locals.

    Not the cell itself, bodies of classes, lambdas and comprehensions; nor coroutines that are suspended, which are not
    on the stack. *cell_of* knows the execution count of the cell that defined a code object.
    """
    found = list(_functions(frame, is_cell))[::-1]
    seen: Counter[str] = Counter()
    calls = []
    for each in found:
        name = _name(each.f_code)
        seen[name] += 1
        calls.append((each, name, seen[name]))
    if len(calls) > _MOST_FRAMES:
        calls = calls[: _MOST_FRAMES // 2] + calls[-_MOST_FRAMES // 2 :]
    return tuple(
        Running(name, cell_of(each.f_code), each.f_lineno or each.f_code.co_firstlineno, _locals(each), number)
        for each, name, number in calls
    )


def innermost(frame: FrameType | None, is_cell: Callable[[CodeType], bool]) -> FrameType | None:
    """The first frame from *frame* outwards whose code *is_cell*, whatever kind of code it is."""
    while frame is not None and not is_cell(frame.f_code):
        frame = frame.f_back
    return frame


def raised_in(error: BaseException | None, is_cell: Callable[[CodeType], bool]) -> FrameType | None:
    """The innermost frame of a cell that *error* came through. It has ended, and still has its locals."""
    at, found = error.__traceback__ if error is not None else None, None
    while at is not None:
        found = at.tb_frame if is_cell(at.tb_frame.f_code) else found
        at = at.tb_next
    return found


def let_go(frame: FrameType | None, is_cell: Callable[[CodeType], bool]) -> None:
    """Empty the copies of locals that Python before 3.13 leaves at frames whose locals were asked for.

    As long as they are there, `del x` in the function frees nothing. What `locals()` gave the user is that very copy,
    and stays. Not for a frame whose trace function runs: Python takes the copy for the truth when that returns.
    """
    if not _KEEPS_COPIES or sys.gettrace() is not None:
        return
    for each in _functions(frame, is_cell):
        copy: Any = each.f_locals
        if sys.getrefcount(copy) <= _HOLDERS_OF_A_COPY:
            copy.clear()


def in_trace_function() -> bool:
    """Whether a trace function is running, of whomever: nothing is traced meanwhile, not even by a tracer of ours."""
    before, seen = sys.gettrace(), []
    try:
        sys.settrace(lambda *event: seen.append(event))
        (lambda: None)()
    finally:
        sys.settrace(before)
    return not seen


def _functions(frame: FrameType | None, is_cell: Callable[[CodeType], bool]) -> Iterator[FrameType]:
    while frame is not None:
        code = frame.f_code
        if code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<") and is_cell(code):
            yield frame
        frame = frame.f_back


def _name(code: CodeType) -> str:
    name: str = getattr(code, "co_qualname", code.co_name)
    return name.replace("<locals>.", "")


def _locals(frame: FrameType) -> dict[str, Any]:
    """What is bound, under the names that the code has for it: `locals()["x"] = 1` makes no local."""
    code, bound = frame.f_code, frame.f_locals
    names = dict.fromkeys((*code.co_varnames, *code.co_cellvars, *code.co_freevars))
    return {n: bound[n] for n in names if n in bound and n.isidentifier() and n not in _OF_THE_COMPILER}
