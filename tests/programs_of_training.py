"""Programs that die and are run again: one text, run as a cell is, in a process or a thread of this one that "died"."""

from __future__ import annotations

import linecache
import pickle
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from textwrap import dedent
from typing import Any

from ipyrescue.training import progress

_numbers = count()


class Died(BaseException):
    """The process was killed here. Nothing catches it."""


def run(source: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run *source* as a cell: compiled anew under a file name of its own, its text in linecache."""
    source = dedent(source)
    name = f"<cell {next(_numbers)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), namespace)
    return namespace


class Snapshots:
    """`checkpoint()` for programs: keeps pickles of the progress and of the *names*, and may kill the program."""

    def __init__(self, namespace: dict[str, Any], names: tuple[str, ...], *, die_at: Callable[[int], bool]) -> None:
        self.namespace = namespace
        self.names = names
        self.die_at = die_at
        self.taken: list[bytes] = []

    def __call__(self) -> None:
        frame = sys._getframe(1)
        self.take(frame, progress.header_of_tail(frame))

    def take(self, frame: Any, header: int | None) -> None:
        states = progress.states(frame, header)
        values = {name: self.namespace[name] for name in self.names}
        self.taken.append(pickle.dumps((states, values)))
        if self.die_at(len(self.taken)):
            raise Died


def run_until(source: str, names: tuple[str, ...], die_at: int, setup: Mapping[str, Any]) -> bytes:
    """Run *source* until the *die_at*-th call of `checkpoint()`; return that snapshot."""
    namespace = {**setup, "__name__": "__main__"}
    namespace["checkpoint"] = snapshots = Snapshots(namespace, names, die_at=lambda taken: taken == die_at)
    with suppress(Died):
        run(source, namespace)
    progress.resume({})
    return snapshots.taken[-1]


def run_again(source: str, snapshot: bytes, setup: Mapping[str, Any]) -> dict[str, Any]:
    """Run *source* again as after a restore of *snapshot*, to its end."""
    states, values = pickle.loads(snapshot)
    namespace = {**setup, "__name__": "__main__", "checkpoint": lambda: None, **values}
    progress.resume(states)
    return run(source, namespace)
