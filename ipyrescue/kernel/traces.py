"""The kernel's last words: the stack at a fatal error, at SIGTERM and at SIGHUP, written by C handlers to files.

Python's faulthandler does it, from inside the signal handler, so that nothing is delayed: a signal ends the kernel as
soon as it would have without us. Whoever uses faulthandler or handles a signal already is left alone, and so are
children that the kernel forks. A file that stayed empty is removed when the kernel ends cleanly.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ipyrescue.incarnations.evidence import SIGNALS
from ipyrescue.store import layout


class Traces:
    """The handlers of one kernel; `begin` may be called again when the store moves."""

    def __init__(self, incarnation: str) -> None:
        self._incarnation = incarnation
        self._enabled = False
        self._registered: list[int] = []
        self._files: dict[Path, BinaryIO] = {}

    def begin(self, root: Path) -> None:
        """Write from now on into the store at *root*. Raises OSError, having changed nothing more."""
        self.end()
        _in_force.append(self)
        if not faulthandler.is_enabled():
            faulthandler.enable(self._open(root, "fault"), all_threads=True)
            self._enabled = True
        for number in _free_signals():
            file = self._open(root, signal.Signals(number).name)
            faulthandler.register(number, file, all_threads=False, chain=True)
            self._registered.append(number)

    def end(self) -> None:
        """Take the handlers back, and remove what they had no reason to write."""
        self.let_go()
        while self._files:
            _close(*self._files.popitem())

    def let_go(self) -> None:
        """Take the handlers back, without touching a file: a forked child is not the kernel."""
        if self._enabled:
            faulthandler.disable()
        for number in self._registered:
            # Whoever has set a handler since would lose it.
            if signal.getsignal(number) is signal.SIG_DFL:
                faulthandler.unregister(number)
        self._enabled = False
        self._registered.clear()
        with contextlib.suppress(ValueError):
            _in_force.remove(self)

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
        if number is not None and signal.getsignal(number) is signal.SIG_DFL and not _is_caught(number):
            yield number


def _is_caught(number: int) -> bool:
    """Whether a handler that Python knows nothing of is there: the user's faulthandler, or a library's (proc(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text("ascii", "replace")
        return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)
    return False


def _close(path: Path, file: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        empty = os.fstat(file.fileno()).st_size == 0
        file.close()
        if empty:
            path.unlink()
