"""What every forked child of ours does first, and how its parent sees that it is gone.

A child has the memory of this process as it stood, and none of its threads. It leaves the kernel's files, sockets,
signals and process group alone, and what it writes goes nowhere but to the descriptors that it was left.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

if sys.platform != "win32":
    import fcntl
    import resource

Result = TypeVar("Result")

STACK_BYTES = 256 << 20
"""The stack on which a child pickles: as deep as a list of lists goes."""

_DEPTH = 100_000
_PR_SET_PDEATHSIG = 1
_PATIENCE_SECONDS = (0.001, 0.004, 0.02, 0.1, 0.3, 0.6)


def available() -> bool:
    """Whether there are children to be had: macOS forbids its frameworks in them, Windows has none."""
    return sys.platform == "linux"


# --- the child's side -------------------------------------------------------------------------------------------


def leave_the_kernel(kept: set[int]) -> None:
    """Be no part of the kernel any more: own session, default signals, no files but the descriptors that are *kept*."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a thread that blocks its alarm would never be ended by it
    faulthandler.disable()
    _let_go(kept)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with(parent: int) -> None:
    """Have this process killed when *parent*, which forked it, ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def give_way(niceness: int) -> None:
    """Leave the processor to the kernel where both want it.

    Where sessions are groups for the scheduler (sched(7), autogroup), only the group's own nice value tells.
    """
    os.nice(niceness)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as file:
        file.write(str(niceness))


def on_a_deep_stack(work: Callable[[], Result]) -> Result:
    """Run *work* in a thread whose stack does not depend on how deep the kernel stood; raise what it raises."""
    done: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        torch: Any = sys.modules.get("torch")
        if hasattr(torch, "set_num_threads"):
            torch.set_num_threads(1)  # OpenMP's threads are not forked; torch's own DataLoader workers do the same
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised where the thread is waited for
            raised.append(error)

    sys.setrecursionlimit(max(sys.getrecursionlimit(), _DEPTH))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return done[0]


def write_all(file: io.FileIO, data: memoryview) -> None:
    """Write *data* to its end. Raises OSError."""
    while data:
        data = data[file.write(data) or 0 :]


def _let_go(kept: set[int]) -> None:
    """Write nowhere but to *kept*: buffers were forked too, and what is flushed here would stand in files twice.

    What is printed would stand in the cell's output, or wait for a thread that was not forked.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        with contextlib.suppress(OSError):  # the one that listed them is closed
            writes = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if writes and descriptor not in kept and descriptor != nowhere:
                os.dup2(nowhere, descriptor)
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(nowhere, "w"), encoding="utf-8", errors="replace")


# --- the parent's side ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_warning_of_threads() -> Iterator[None]:
    """3.12, and JAX, warn of forks in processes with threads; what a child of ours does not touch is said above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def has_ended(child: int) -> bool:
    """Whether *child* has ended; it is not waited for, so that its number stays taken."""
    with contextlib.suppress(ChildProcessError):  # somebody here waits for children of all kinds
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def in_words(status: int) -> str:
    """What an object does whose code made a process end like this, from the wait status."""
    if os.WIFSIGNALED(status):
        return f"crashes the process ({name(os.WTERMSIG(status))})"
    return f"ends the process (exit status {os.waitstatus_to_exitcode(status)})"


def name(number: int) -> str:
    """The name of a signal, or its number where it has none."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


def end(child: int, how: str, in_words: Callable[[int], str] = in_words) -> str:
    """See that *child* and its children are gone; say *how* it ended: given, all are killed at once."""
    for pause_seconds in () if how else _PATIENCE_SECONDS:
        if has_ended(child):
            break
        time.sleep(pause_seconds)
    else:
        how = how or "did not end"
    for kill in (os.killpg, os.kill):  # it is the leader of its group, and not yet waited for
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        status = os.waitpid(child, 0)[1]
        return how or in_words(status)
    return how or "did not end"
