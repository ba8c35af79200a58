"""Where a cell stands still while no safe point comes: the stack of its thread into a few words for people.

Looks at frames of a running thread and touches nothing of them. Knows no reason beyond what a stack shows: one long
call, or one that waits for other processes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FrameType

_OF_PROCESSES = (
    "multiprocessing.", "torch.multiprocessing.", "torch.distributed.", "concurrent.futures.", "subprocess.",
    "pexpect.", "joblib.", "loky.", "ray.", "dask.", "accelerate.launchers.", "IPython.utils._process_posix.",
)  # fmt: skip
"""Modules in which a call of the user's waits for processes, or for threads that wait for them."""

_SHOWN_PARTS = 2


def standstill(innermost: FrameType | None, is_cell: Callable[[CodeType], bool]) -> str | None:
    """Say in which call the cell stands whose thread is at the *innermost* frame; None if no cell is on its stack.

    Take the frame from `sys._current_frames()`, by the id of the main thread; any thread may ask.
    """
    below: list[FrameType] = []
    frame = innermost
    while frame is not None and not is_cell(frame.f_code):
        below.append(frame)
        frame = frame.f_back
    if frame is None:
        return None
    return f"{_line(frame)} {_doing(below)}"


def _line(frame: FrameType) -> str:
    """Name a line of a cell, or of a function that a cell defined."""
    name = frame.f_code.co_name
    return f"line {frame.f_lineno} of {'the cell' if name.startswith('<') else f'{name}()'}"


def _doing(below: list[FrameType]) -> str:
    if not below:
        return "is in one long call"
    called = f"{below[-1].f_code.co_name}() of {'.'.join(_module(below[-1]).split('.')[:_SHOWN_PARTS])}"
    waits = any(f"{_module(frame)}.".startswith(_OF_PROCESSES) for frame in below)
    return f"waits for other processes in {called}" if waits else f"is in one long call, {called}"


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if type(name) is str else "?"
