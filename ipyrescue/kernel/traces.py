"""The kernel's last words: the stack at a fatal error, at SIGTERM and at SIGHUP, written by C handlers to files.

Python's faulthandler does it, from inside the signal handler, at once and whatever the main thread is at; then the
signal goes on, to its default action or to a `Farewell`, which saves first. Whoever uses faulthandler or handles a
signal already is left alone, and so are children that the kernel forks. A file that stayed empty is removed when the
kernel ends cleanly.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ipyrescue.capture.signals import is_caught, is_farewell
from ipyrescue.incarnations.evidence import SIGNALS
from ipyrescue.store import layout


class _Trace(NamedTuple):
    """One signal's: the file, how long it was when the handler was set, and what stands beneath the handler."""

    file: BinaryIO
    size_bytes: int
    beneath: Any


class Traces:
    """The handlers of one kernel; `begin` may be called again when the store moves."""

    def __init__(self, incarnation: str) -> None:
        self._incarnation = incarnation
        self._enabled = False
        self._registered: dict[int, _Trace] = {}
        self._files: dict[Path, BinaryIO] = {}

    def begin(self, root: Path) -> None:
        """Write from now on into the store at *root*. Raises OSError, having changed nothing more."""
        self.end()
        _in_force.append(self)
        if not faulthandler.is_enabled():
            faulthandler.enable(self._open(root, "fault"), all_threads=True)
            self._enabled = True
        for number in _free_signals():
            self._register(number, self._open(root, signal.Signals(number).name))

    def end(self) -> None:
        """Take the handlers back, and remove what they had no reason to write."""
        self.let_go()
        while self._files:
            _close(*self._files.popitem())

    def let_go(self) -> None:
        """Take the handlers back, without touching a file: a forked child is not the kernel."""
        if self._enabled:
            faulthandler.disable()
        for number in tuple(self._registered):
            self._unregister(number)
        self._enabled = False
        with contextlib.suppress(ValueError):
            _in_force.remove(self)

    @contextlib.contextmanager
    def aside(self, number: int) -> Iterator[None]:
        """Step aside while somebody sets the handler of one signal: it will stand beneath, and be called after."""
        trace = self._unregister(number)
        try:
            yield
        finally:
            if trace is not None:
                self._register(number, trace.file)

    def arrived(self) -> int | None:
        """The number of a signal whose stack was written since its handler was set; from any thread."""
        for number, trace in tuple(self._registered.items()):
            with contextlib.suppress(OSError, ValueError):  # closed meanwhile
                if os.fstat(trace.file.fileno()).st_size > trace.size_bytes:
                    return number
        return None

    def _register(self, number: int, file: BinaryIO) -> None:
        trace = _Trace(file, os.fstat(file.fileno()).st_size, signal.getsignal(number))
        faulthandler.register(number, file, all_threads=False, chain=True)
        self._registered[number] = trace

    def _unregister(self, number: int) -> _Trace | None:
        """Take one handler back, and return what it was; None where whoever has set one since would lose it."""
        trace = self._registered.pop(number, None)
        if trace is None or signal.getsignal(number) is not trace.beneath:
            return None
        faulthandler.unregister(number)
        return trace

    def _open(self, root: Path, what: str) -> BinaryIO:
        path = layout.trace_path(root, self._incarnation, what)
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        self._files[path] = open(os.open(path, flags, 0o600), "wb", buffering=0)  # noqa: SIM115 - open as long as we live
        return self._files[path]


_in_force: list[Traces] = []


def _let_go_in_child() -> None:
    for traces in tuple(_in_force):
        traces.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def _free_signals() -> Iterator[int]:
    """The signals that would end the kernel unheard; none where faulthandler cannot hear them (Windows)."""
    if not hasattr(faulthandler, "register"):
        return
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is None:
            continue
        handler = signal.getsignal(number)
        if is_farewell(handler) or (handler is signal.SIG_DFL and not is_caught(number)):
            yield number


def _close(path: Path, file: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        empty = os.fstat(file.fileno()).st_size == 0
        file.close()
        if empty:
            path.unlink()
