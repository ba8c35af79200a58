"""SIGTERM and SIGHUP: a last snapshot, then the end that would have come without us.

Turns the arrival of a signal into one call of `save`, and hands the signal on to whatever stood there before. Knows no
snapshots. Python runs a handler when the C call on the main thread has returned, so a thread counts the seconds since
the signal arrived, and ends the process when neither the call nor `save` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

NAMES = ("SIGTERM", "SIGHUP")
GRACE_SECONDS = 8.0
"""`docker stop` kills 10 seconds after its SIGTERM."""

LOOK_SECONDS = 0.5
"""How often it is looked whether a signal has arrived that Python could not yet be told of."""

_JOIN_SECONDS = 5.0


class Farewell:
    """Hears SIGTERM and SIGHUP for one process, between `install` and `uninstall`."""

    def __init__(
        self,
        save: Callable[[str], None],
        *,
        grace_seconds: float = GRACE_SECONDS,
        arrived: Callable[[], int | None] = lambda: None,
        aside: Callable[[int], AbstractContextManager[None]] = lambda _number: nullcontext(),
    ) -> None:
        """Make one that hears nothing yet.

        *save* is called with the signal's name on the main thread; whatever it raises, the signal is handed on.
        *arrived* tells, from any thread, the number of a signal that has reached the process, also while the main
        thread is in a C call. Within *aside* no C handler of ours stands over the signal of that number.
        """
        self._save = save
        self._grace_seconds = grace_seconds
        self._arrived = arrived
        self._aside = aside
        self._handler = self._hear  # one object, by which it is known again
        self._previous: dict[int, Any] = {}
        self._active, self._process = False, os.getpid()
        self._rung, self._stopped = threading.Event(), threading.Event()
        self._hearing: int | None = None
        self._interrupt: Any = None
        self._watch: threading.Thread | None = None

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of the signals that are heard."""
        return tuple(signal.Signals(number).name for number in self._previous) if self._active else ()

    def install(self) -> tuple[str, ...]:
        """Hear what nobody ignores; return the names of the signals that are heard: none beside the main thread.

        SIG_IGN (nohup) stays, and so does a C handler that Python does not know.
        """
        if self._active or threading.current_thread() is not threading.main_thread():
            return self.signals
        self._previous.clear()
        for number in _numbers():
            with self._aside(number):
                before = signal.getsignal(number)
                if callable(before) or (before is signal.SIG_DFL and not is_caught(number)):
                    self._previous[number] = before
                    signal.signal(number, self._handler)
        if self._previous:
            self._active, self._process = True, os.getpid()
            _installed.append(self)
            self._begin_to_watch()
        return self.signals

    def uninstall(self) -> None:
        """Put back what was there, unless somebody has set another handler since; then it only hands on."""
        self._let_go()
        self._stopped.set()
        self._rung.set()
        if self._watch is not None:
            self._watch.join(_JOIN_SECONDS)

    def _let_go(self) -> None:
        self._active = False
        with contextlib.suppress(ValueError):
            _installed.remove(self)
        with contextlib.suppress(ValueError):  # beside the main thread
            self._step_back()

    def _step_back(self) -> None:
        for number, before in self._previous.items():
            self._exchange(number, self._handler, before)

    def _step_forth(self) -> None:
        for number, before in self._previous.items():
            self._exchange(number, before, self._handler)

    def _exchange(self, number: int, present: Any, wanted: Any) -> None:
        with self._aside(number):
            if signal.getsignal(number) is present:
                signal.signal(number, wanted)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """What Python calls, on the main thread."""
        if not self._active or os.getpid() != self._process:
            self._hand_on(number, frame)
            return
        self._take_leave(number)
        if callable(self._previous[number]):
            self._listen_again()
            self._hand_on(number, frame)
        else:
            self._hand_on(number, frame)
            self._listen_again()  # only a container's first process comes here: default actions spare it

    def _take_leave(self, number: int) -> None:
        self._hearing = number
        self._rung.set()
        try:
            # From here on a second signal goes where it would have gone without us.
            self._step_back()
            if not callable(self._previous[number]):
                self._interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._save(signal.Signals(number).name)
        except BaseException:  # noqa: S110, BLE001 - nothing may keep the process from its end, not even a Ctrl-C
            pass

    def _listen_again(self) -> None:
        self._hearing = None
        self._rung.clear()
        if self._interrupt is not None:
            signal.signal(signal.SIGINT, self._interrupt)
            self._interrupt = None
        if self._active:
            self._step_forth()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        before = self._previous[number]
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    # The thread that counts.

    def _begin_to_watch(self) -> None:
        self._stopped.clear()
        self._rung.clear()
        watch = threading.Thread(target=self._count, name="ipyrescue-farewell", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had: then a long call delays the end
            watch.start()
            self._watch = watch

    def _count(self) -> None:
        end = _Death()
        while not self._stopped.is_set():
            late_seconds = 0.0 if self._rung.wait(LOOK_SECONDS) else LOOK_SECONDS
            number = self._here()
            if number is None or self._stopped.wait(max(self._grace_seconds - late_seconds, 0)):
                continue
            if number == self._here():
                end(number)

    def _here(self) -> int | None:
        """The number of a signal that has arrived and not ended the process yet."""
        return self._hearing or self._arrived()


class _Death:
    """The default action of a signal, brought about from any thread; found beforehand, for it must not fail then."""

    def __init__(self) -> None:
        self._set_action: Any = None
        with contextlib.suppress(OSError, AttributeError, TypeError):
            self._set_action = ctypes.CDLL(None).signal
            self._set_action.argtypes, self._set_action.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p

    def __call__(self, number: int) -> None:
        # Python's own signal.signal wants the main thread, which is what hangs.
        if self._set_action is not None:
            self._set_action(number, None)
        os.kill(os.getpid(), number if self._set_action is not None else getattr(signal, "SIGKILL", number))


def is_farewell(handler: object) -> bool:
    """Whether a handler of a signal is that of a `Farewell`."""
    return isinstance(getattr(handler, "__self__", None), Farewell)


def is_caught(number: int) -> bool:
    """Whether the process has a handler for a signal, also one that Python knows nothing of (proc(5), `SigCgt`)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text("ascii", "replace")
        return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)
    return False


def _numbers() -> list[int]:
    """The numbers of `NAMES` on this machine; none on Windows, where both end a process without a word."""
    known = (getattr(signal, name, None) for name in NAMES)
    return [number for number in known if number is not None] if os.name == "posix" else []


# A child that forks from the process is not it: it hears nothing, also between fork(2) and the hook that takes the
# handlers back. A C handler there would write into files, and into the parent's mind, that a signal has arrived.

_installed: list[Farewell] = []
_masks = threading.local()


def _hold_back() -> None:
    if _installed:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, _numbers())


def _let_through() -> None:
    before = getattr(_masks, "before", None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _masks.before = None


def _let_go_in_child() -> None:
    for farewell in tuple(_installed):
        farewell._let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_back, after_in_child=_let_go_in_child)
    for _ in range(2):  # should a Ctrl-C end the first call, the second lets the signals through
        os.register_at_fork(after_in_parent=_let_through, after_in_child=_let_through)
