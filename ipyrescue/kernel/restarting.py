"""A script whose last process died, and that did not ask for it by `resume`: whether it goes on, and where.

Turns the first loop or guard that it comes to into a restore, or into one sentence why it begins from zero. Only from a
snapshot that was made in `ipyrescue.loop` or `batches`: any other loop would do all its iterations again over what was
saved. And only at the top level: what stands in a function cannot be put back. A script that says `ipyrescue.resume()`
decides by itself, and is not protected before that: what its beginning has half made is nothing to go on from.
"""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Collection
from functools import partial
from types import FrameType

from ipyrescue.errors import RescueError
from ipyrescue.kernel import resuming, session
from ipyrescue.manifest import PROGRESS, Snapshot
from ipyrescue.training import progress

_OURS = frozenset({"resume", "guard", "loop", "batches"})
_GENERATOR = 0x20  # inspect.CO_GENERATOR
_NOTHING_OF_OURS = "nothing in it says where to go on. Write: for ... in ipyrescue.loop(...)"
_NOTHING_LEFT = (
    "no process of it that died has left a snapshot from within ipyrescue.loop() or batches(). To go on from any "
    "other, say ipyrescue.resume() where it is to be restored."
)


def prepare(
    path: str, source: bytes, begin: Callable[[FrameType], None], *, again: bool, runs: Collection[str] = ()
) -> None:
    """Have the script at *path* protected by *begin*, and restored where it can go on, if it is run *again*.

    *runs* are the incarnations whose snapshots count; without any, all of this script that died.
    """
    used, title = _used(source), os.path.basename(path)
    if "resume" in used:
        with contextlib.suppress(RescueError):  # `resume` is going to raise it
            session.recorder()  # a process that dies before that is on record all the same, where there is a store
        _Restart(title, begin=begin, says_resume=True, again=again).wait()
        return
    if again:
        restart = _Restart(title)
        reason = restart.choose(runs) if used else _NOTHING_OF_OURS
        if reason is None:
            restart.wait()
        else:
            restart.tell_of_zero(reason)
    begin(sys._getframe())


class _Restart:
    """One script, until it has come to its first `resume`, guard or loop."""

    def __init__(
        self,
        title: str,
        *,
        begin: Callable[[FrameType], None] = lambda frame: None,
        says_resume: bool = False,
        again: bool = True,
    ) -> None:
        self._title = title
        self._begin = begin
        self._says_resume = says_resume
        self._again = again
        self._chosen: Snapshot | None = None
        self._process = os.getpid()

    def choose(self, runs: Collection[str]) -> str | None:
        """Choose a snapshot of those that the dead processes left (any, or *runs*), or say why there is none."""

        def fits(snapshot: Snapshot) -> bool:
            return PROGRESS in snapshot.pseudo_names and (not runs or snapshot.incarnation in runs)

        try:
            self._chosen = resuming.cut_off(session.recorder(), fits)
        except RescueError as error:
            return str(error)
        return _NOTHING_LEFT if self._chosen is None else None

    def wait(self) -> None:
        """Be called when the script comes to what decides it."""
        resuming.awaited = self._comes_to
        progress.before_next_pass(partial(self._comes_to, "loop"))

    def _comes_to(self, what: str, frame: FrameType) -> None:
        if os.getpid() != self._process:
            return
        if threading.current_thread() is not threading.main_thread():
            self.wait()
            return
        resuming.awaited = None
        progress.before_next_pass(None)
        if self._says_resume:
            if self._again and what != "resume":
                self.tell_of_zero(f"it came to its first {what} without saying ipyrescue.resume().")
            self._begin(frame)
        elif what != "resume":
            reason = self._go_on(what, frame)
            if reason is not None:
                self.tell_of_zero(reason)

    def _go_on(self, what: str, frame: FrameType) -> str | None:
        """Restore, or say why not."""
        function = _function_of(frame)
        if function is not None:
            return (
                f"its first ipyrescue.{what} is inside of {function}, whose variables cannot be put back. To go on, "
                f"say ipyrescue.resume() at the top level of {self._title}, above what leads there."
            )
        assert self._chosen is not None
        try:
            with session.worded() as here:
                resuming.go_on(here, self._chosen)
        except RescueError as error:
            return str(error)
        return None

    def tell_of_zero(self, reason: str) -> None:
        """Say that it begins from zero, and why."""
        resuming.say(f"{self._title} begins from zero: {reason}")


def _function_of(frame: FrameType) -> str | None:
    """The function that *frame* is in; None for the top level of the script. Generators, such as tqdm, hand on."""
    at: FrameType | None = frame
    while at is not None and at.f_code.co_flags & _GENERATOR:
        at = at.f_back
    if at is None or (at.f_code.co_name == "<module>" and at.f_globals is vars(sys.modules["__main__"])):
        return None
    return "another module" if at.f_code.co_name == "<module>" else f"{at.f_code.co_name}()"


def _used(source: bytes) -> frozenset[str]:
    """What of ours the text of a script uses."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = [(node, alias) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    ours = {alias.asname or "ipyrescue" for _, alias in imported if alias.name.partition(".")[0] == "ipyrescue"}
    said = {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_name(node.value, ours)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "ipyrescue":
            said |= {alias.name for alias in node.names}
    return _OURS & said


def _is_name(node: ast.expr, names: Collection[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names
