"""What a process and all that it started have used: CPU seconds and memory. Linux tells; elsewhere it is coarser.

`python -m benchmarks.pause.accounting PID` watches the memory of a process tree until its standard input ends, and
prints the peak in bytes: another process, so that the watching is not charged to the watched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LOOK_EVERY_SECONDS = 0.01


def adopt_orphans() -> None:
    """Become the parent of what our children leave behind, so that nothing escapes the accounts or the end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_the_parent() -> None:
    """Be killed when our parent ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def cpu_seconds() -> float:
    """CPU time of this process, of the children that it has waited for, and of all descendants that still exist."""
    own, waited_for = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    existing = sum(map(_seconds_of, descendants()))
    return own.ru_utime + own.ru_stime + waited_for.ru_utime + waited_for.ru_stime + existing


def _seconds_of(process: psutil.Process) -> float:
    """The process's own time by its CPU clock, which counts nanoseconds where /proc counts hundredths of a second."""
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        children = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        own = times.user + times.system
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                own = time.clock_gettime((~process.pid << 3) | 2)  # clock_getcpuclockid(3)
        return float(own + children)
    return 0.0


def descendants() -> set[psutil.Process]:
    """What this process has started, and what that has left."""
    return set(psutil.Process().children(recursive=True))


def end(processes: Collection[psutil.Process]) -> None:
    """Kill *processes*, and wait for the end of them."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(list(processes), timeout=10)


@dataclass
class Peak:
    """The largest memory that was seen; 0 while it is still being watched."""

    size_bytes: int = 0


@contextlib.contextmanager
def watched_memory() -> Iterator[Peak]:
    """Watch the memory of this process and all descendants; pages that several share are counted once."""
    peak = Peak()
    command = [sys.executable, "-m", "benchmarks.pause.accounting", str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()  # it watches
        try:
            yield peak
        finally:
            told, _ = watcher.communicate()
            peak.size_bytes = int(told)


def tree_bytes(root: psutil.Process) -> int:
    """Memory of a process tree without this process: the proportional set size, or the nearest thing there is."""
    return sum(_bytes_of(p) for p in [root, *root.children(recursive=True)] if p.pid != os.getpid())


def _bytes_of(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error, OSError):
        info = process.memory_full_info()
        return int(getattr(info, "pss", info.uss))
    return 0


def _watch(pid: int) -> int:
    root = psutil.Process(pid)
    peak = tree_bytes(root)
    print("watching", flush=True)
    while not select.select([sys.stdin], [], [], _LOOK_EVERY_SECONDS)[0]:
        peak = max(peak, tree_bytes(root))
    return max(peak, tree_bytes(root))


if __name__ == "__main__":
    print(_watch(int(sys.argv[1])))
