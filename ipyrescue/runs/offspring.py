"""The processes that a script starts and leaves: adopted by its runner, so that none stays behind as a zombie.

On Linux by prctl(2), PR_SET_CHILD_SUBREAPER; elsewhere the system's first process adopts them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

import psutil

from ipyrescue.store import lives

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_SECONDS = 0.02
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def adopt() -> None:
    """Become the parent of every orphan among the descendants of this process."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(spared: int) -> None:
    """Wait for every child of this process that has ended, up to the one of number *spared*, which is waited for last.

    Who started other children through `subprocess` loses their exit status.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, _ENDED)) is not None and ended.si_pid != spared:
            os.waitpid(ended.si_pid, os.WNOHANG)


def has_ended(child: int) -> bool:
    """Whether a child has ended, without waiting for it: as long as nobody does, its number stays its own."""
    try:
        return os.waitid(os.P_PID, child, _ENDED) is not None
    except ChildProcessError:
        return True


def names(pids: list[int]) -> str:
    """Say which processes: `sleep (pid 812), python (pid 815)`."""
    return ", ".join(f"{_name(pid)} (pid {pid})" for pid in pids)


def end_group(leader: int, patience_seconds: float) -> list[int]:
    """End what is left of the process group of a *leader* that has ended and was not waited for yet.

    SIGTERM, then SIGKILL. Return who was there.
    """
    there = rest = _members(leader)
    deadline = time.monotonic() + patience_seconds
    if there:
        _signal_group(leader, signal.SIGTERM)
    while rest and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        reap(leader)
        rest = _members(leader)
    if rest:
        _signal_group(leader, signal.SIGKILL)
    return there


def kill_group(leader: int) -> None:
    """SIGKILL a process and its group."""
    _signal_group(leader, signal.SIGKILL)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _members(leader: int) -> list[int]:
    """The processes of a group that run, without its leader."""
    return [pid for pid in psutil.pids() if pid != leader and _group(pid) == leader and _runs(pid)]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _runs(pid: int) -> bool:
    return lives.process_facts(pid).start_ticks is not None


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"
