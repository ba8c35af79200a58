"""The processes that a script or a kernel starts and leaves in its group: named, and ended with it.

A script's are adopted by its runner, so that none stays behind as a zombie: on Linux by prctl(2),
PR_SET_CHILD_SUBREAPER; elsewhere the system's first process adopts them. What has a session of its own (setsid(2)) is
touched by nobody here: the user's services, and the processes that write our snapshots.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import psutil

from ipyrescue.store import lives
from ipyrescue.store.lives import Traced

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


def end_group(leader: int, patience_seconds: float) -> str:
    """End what is left of the process group of a *leader* that has ended and was not waited for yet.

    SIGTERM, then SIGKILL. Say who was there, as `names` does; nothing where nobody was.
    """
    return _end(leader, patience_seconds, lambda: reap(leader))


def end_group_of(gone: Traced, patience_seconds: float, *, seen_at: float) -> str:
    """The same for a leader of a session that is *gone*, and was waited for by whoever was its parent.

    While a process is in a session, its number is no other's: so who is in it now, and was there when *gone* was last
    known to run, at *seen_at* (seconds since the epoch), vouches for the whole group. Where nobody does, or the number
    is another process's by now, nobody is touched.
    """
    if not hasattr(os, "killpg") or not lives.in_sight(gone) or _runs(gone.pid):
        return ""
    if not any(_session(pid) == gone.pid and _began(pid) <= seen_at for pid in _members(gone.pid)):
        return ""
    return _end(gone.pid, patience_seconds, lambda: None)


def _end(leader: int, patience_seconds: float, look: Callable[[], None]) -> str:
    rest = _members(leader)
    there, deadline = names(rest), time.monotonic() + patience_seconds
    if rest:
        _signal_group(leader, signal.SIGTERM)
    while rest and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        look()
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


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _began(pid: int) -> float:
    """When a process began, in seconds since the epoch; never where it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return float("inf")


def _runs(pid: int) -> bool:
    return lives.process_facts(pid).start_ticks is not None


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"
