"""`ipyrescue.guard(every="5m")`: snapshots by themselves while a block runs, in a notebook, a script or at a prompt.

Arms what `%checkpoint_vars every=5m` arms, and puts back what was before when the block is left. Where no cell runs the
block stands for one. Nothing of it raises out of the block but what the block raised.
"""

from __future__ import annotations

import linecache
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType, TracebackType

from ipyrescue.errors import RescueError
from ipyrescue.kernel import resuming, session
from ipyrescue.manifest import Settings
from ipyrescue.settings import parse_duration, parse_size


class guard:  # noqa: N801 - used like a function
    """Make snapshots by themselves while the block runs, at most every so often, also in the middle of its loops.

        with ipyrescue.guard(every="5m"):
            for epoch in ipyrescue.loop(range(100), name="train"): ...

    *names* (globs allowed) must be in every snapshot, and are loud if they cannot; all other variables of the notebook,
    or of the script's `__main__`, are saved as far as they can be, and so are the locals of running functions (see
    `ipyrescue.frames`). *every* is a duration such as `30s`, `5m`, `1h30m`, or seconds. With *only* nothing but *names*
    is saved; *exclude* are patterns never to save, *allow* names to save although they look like credentials. *keep*
    and *max_size* (`20GB`, or bytes) bound what stays on disk.

    At the end of the block everything is as before it: guards nest, and one within an armed notebook changes its
    settings for the block. An exception, Ctrl-C, SIGTERM and SIGHUP leave a last snapshot, marked `interrupted`, and go
    on as they would have. What cannot be saved is told on stderr, once; the block goes on.

    In a script, `ipyrescue.resume()` above the guard makes it complete: started again after a death, it goes on. Works
    on the main thread only, and does nothing in the worker processes of `multiprocessing`. Raises `RescueError` and
    `ValueError` before the block, never in it.
    """

    def __init__(
        self,
        *names: str,
        every: str | float = "5m",
        only: bool = False,
        exclude: Sequence[str] = (),
        allow: Sequence[str] = (),
        keep: int | None = None,
        max_size: str | int | None = None,
    ) -> None:
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f'guard() takes names, as text: ipyrescue.guard("model", every="5m"), not {type(name)}')
        if only and not names:
            raise RescueError('only=True saves nothing but names that are said: ipyrescue.guard("model", only=True)')
        self._said = Settings(
            every_seconds=parse_duration(every) if isinstance(every, str) else float(every),
            keep=keep,
            max_size_bytes=parse_size(max_size) if isinstance(max_size, str) else max_size,
            only=only,
            tagged=names,
            exclude=tuple(exclude),
            allow=tuple(allow),
        )
        self._before: Settings | None = None
        self._entered: float | None = None

    def __enter__(self) -> None:
        if session.is_worker():
            return
        if threading.current_thread() is not threading.main_thread():
            raise RescueError("guard() works on the main thread only: put it around what waits for this one.")
        frame = sys._getframe(1)
        resuming.comes_to("guard", frame)
        recorder = session.recorder()
        self._before = recorder.armed.settings if recorder.armed is not None else None
        if self._before is None:
            resuming.remind(recorder)
        recorder.guards(recorder.settled(self._said), frame, _line(frame))
        self._entered = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            session.recorder().guards_no_more(self._before, entered, sys._getframe(1), error)


def _line(frame: FrameType) -> str:
    """The line that the block begins with, as it is typed."""
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() or "a guarded block"
