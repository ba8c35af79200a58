"""The first process of a container: starts servers, reaps orphans, and lets every kernel save before the end.

    python entrypoint.py COMMAND [ARGUMENT ...] [-- COMMAND [ARGUMENT ...]] ...

Several commands stand apart by `--`. At SIGTERM (docker stop), SIGINT or SIGHUP, and when one of the servers ends by
itself, the rest ends in this order:

1. Every kernel, every `ipyrescue run` and every other Python program gets SIGTERM if it catches that, wherever in the
   container it was started, by `docker exec` and over SSH too. An armed kernel makes a last snapshot. Who started one
   is held meanwhile (SIGSTOP), so that no server starts a new kernel in the place of one that has ended.
2. They are waited for, and so are the processes that still write a dead kernel's snapshot.
3. The servers get SIGTERM before they go on, and are waited for.

IPYRESCUE_STOP_SECONDS (50) is the time for all of it: some seconds less than the container's stop timeout.

Exit code: 0 when all ended in time; 124 when something had to be killed; the code of the server that ended by itself
first, or 128 and the number of its signal; 2 for a wrong command line; 127 for a command that cannot be started.

Nothing but the standard library of Python 3.10 on Linux. Where it is not process 1 it makes itself a subreaper.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

STOP_SECONDS = 50.0
SERVER_SECONDS = 5.0
"""Of the time for the end, how much is left to the servers."""
POLL_SECONDS = 0.05
TIMED_OUT, NOT_STARTED, USAGE = 124, 127, 2

_PR_SET_CHILD_SUBREAPER = 36
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Process(NamedTuple):
    """A process as /proc shows it; *start* tells it from a later one of the same number."""

    pid: int
    parent: int
    state: str
    start: int
    words: tuple[str, ...]

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.start


def main(arguments: list[str]) -> int:
    """Start the servers, live as long as they do, end everything; return the exit code."""
    commands = split(arguments)
    if not commands:
        print(__doc__, file=sys.stderr)
        return USAGE
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDS, signal.SIGCHLD})
    become_reaper()
    servers: set[int] = set()
    try:
        servers.update(start(command) for command in commands)
    except OSError as error:
        say(f"{error.filename or commands[len(servers)][0]} cannot be started: {error.strerror}")
        end(servers, Deadline(SERVER_SECONDS))
        return NOT_STARTED
    code = live(servers)
    all_in_time = end(servers, Deadline(stop_seconds()))
    return code if code is not None else 0 if all_in_time else TIMED_OUT


def split(arguments: list[str]) -> list[list[str]]:
    """The commands of a command line, at each word that is `--`."""
    commands: list[list[str]] = [[]]
    for word in arguments:
        if word == "--":
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def stop_seconds() -> float:
    said = os.environ.get("IPYRESCUE_STOP_SECONDS", "")
    try:
        return max(float(said), 0.0)
    except ValueError:
        if said:
            say(f"IPYRESCUE_STOP_SECONDS={said} is no number of seconds; {STOP_SECONDS:g} are taken.")
        return STOP_SECONDS


def become_reaper() -> None:
    """Have orphans below become children of ours; process 1 has that by itself (prctl(2))."""
    if os.getpid() != 1:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(command: list[str]) -> int:
    """Start a server that hears signals as usual, in a process group of its own. Raises OSError."""
    return os.posix_spawnp(command[0], command, os.environ, setpgroup=0, setsigmask=())


def live(servers: set[int]) -> int | None:
    """Reap until a signal asks for the end (None), or a server ends by itself: its exit code."""
    while True:
        heard = signal.sigtimedwait({*_ENDS, signal.SIGCHLD}, 1.0)
        for pid, code in reap():
            if pid in servers:
                servers.discard(pid)
                say(f"A server ended by itself, with exit code {code}.")
                return code
        if heard is not None and heard.si_signo in _ENDS:
            say(f"{signal.Signals(heard.si_signo).name}: kernels save, then all ends.")
            return None


def reap() -> Iterator[tuple[int, int]]:
    """Every child that has ended since, and its exit code."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        yield pid, code if code >= 0 else 128 - code


class Deadline:
    """A moment of the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    @property
    def left_seconds(self) -> float:
        return max(self.at - time.monotonic(), 0.0)

    def wait_until(self, is_done: Callable[[], bool], *, reserved_seconds: float = 0.0) -> bool:
        """Reap and look until *is_done*, or until no more than *reserved_seconds* are left; whether it was done."""
        while True:
            for _ in reap():
                pass
            if is_done():
                return True
            if self.left_seconds <= reserved_seconds:
                return False
            signal.sigtimedwait({signal.SIGCHLD}, POLL_SECONDS)


def end(servers: set[int], deadline: Deadline) -> bool:
    """Let kernels save and end, then the servers, then kill what is left. True when nothing had to be killed."""
    reserved = min(SERVER_SECONDS, deadline.left_seconds / 2)
    with Held() as held:
        saved = end_savers(servers, held, deadline, reserved)
        send(signal.SIGTERM, [process for process in ours() if process.pid in servers])
    closed = deadline.wait_until(lambda: not living(servers))
    rest = [process for process in ours() if os.getpid() != 1]  # of process 1 the kernel takes all with it
    send(signal.SIGKILL, rest)
    Deadline(SERVER_SECONDS).wait_until(lambda: not living(process.pid for process in rest))
    return saved and closed


class Held:
    """Processes that stand still until the end of a block, so that they start nothing new within it."""

    def __init__(self) -> None:
        self._held: list[Process] = []

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        send(signal.SIGCONT, self._held)

    def add(self, processes: list[Process]) -> None:
        """Hold these too."""
        self._held += processes
        send(signal.SIGSTOP, processes)


def end_savers(servers: set[int], held: Held, deadline: Deadline, reserved_seconds: float) -> bool:
    """SIGTERM to all that may save, with who started them held; whether all of them ended in time."""
    told: dict[tuple[int, int], Process] = {}

    def are_gone() -> bool:
        now = ours()
        new = [process for process in savers(now, servers) if process.identity not in told]
        held.add([process for process in now if process.pid in {one.parent for one in new}])
        told.update({process.identity: process for process in new})
        send(signal.SIGTERM, new)
        return not any(still_saves(process, told) for process in now)

    def are_gone_for_good() -> bool:
        """A kernel may have forked its writer after the first list was made, and died before it was looked at."""
        return are_gone() and are_gone()

    all_gone = deadline.wait_until(are_gone_for_good, reserved_seconds=reserved_seconds)
    if not all_gone:
        say("Not everything ended in time: a last snapshot may be missing.")
    return all_gone


def still_saves(process: Process, told: dict[tuple[int, int], Process]) -> bool:
    """Whether it was told to end and has not, or writes for a kernel or program that is dead: a fork of that."""
    if process.identity in told:
        return True
    is_fork = is_kernel(process.words) or process.words in {one.words for one in told.values()}
    return is_fork and process.parent == os.getpid()


def savers(processes: list[Process], servers: set[int]) -> list[Process]:
    """The topmost processes that save when they are told. What stands below a kernel or a run is its own business."""
    below: dict[int, list[Process]] = {}
    for process in processes:
        below.setdefault(process.parent, []).append(process)
    known = {process.pid for process in processes}
    waiting = [process for process in processes if process.parent not in known]
    found = []
    while waiting:
        process = waiting.pop()
        if process.pid not in servers and saves(process):
            found.append(process)
        elif not is_kernel(process.words):
            waiting += below.get(process.pid, [])
    return found


def saves(process: Process) -> bool:
    """A Python program that catches SIGTERM and is no server: a kernel, a run, a script under `ipyrescue.guard`.

    What does not catch it has nothing to say, and the fork of a kernel that writes its snapshot would die of it.
    """
    return is_python(process.words) and not is_jupyter(process.words) and catches_sigterm(process.pid)


def is_kernel(words: tuple[str, ...]) -> bool:
    return any(word in ("ipykernel", "ipykernel_launcher") for word in words[1:6])


def is_python(words: tuple[str, ...]) -> bool:
    return bool(words) and PurePosixPath(words[0]).name.startswith("python")


def is_jupyter(words: tuple[str, ...]) -> bool:
    name = PurePosixPath(program_of(words)).name
    return name.startswith("jupyter") and not name.endswith(".py")


def program_of(words: tuple[str, ...]) -> str:
    """What a Python of this command line runs: the module behind `-m`, else the first word that is no option's."""
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            return word
        if word in ("-W", "-X"):
            next(rest, "")
        elif re.fullmatch("-[A-VYZa-z]*m", word):
            return next(rest, "")
        elif word == "-c":
            break
    return ""


def catches_sigterm(pid: int) -> bool:
    """Whether a process has a handler for it (proc_pid_status(5), `SigCgt`)."""
    caught = read(f"/proc/{pid}/status").partition("SigCgt:")[2].split()
    return bool(caught) and bool(int(caught[0], 16) >> (signal.SIGTERM - 1) & 1)


def ours() -> list[Process]:
    """Every living process of the container, or, of a subreaper, every one below it; not this one."""
    found = {process.pid: process for process in map(look, pids()) if process is not None}
    me = os.getpid()
    if me == 1:
        return [process for process in found.values() if process.pid != me and process.state not in "ZX"]

    def is_below(process: Process) -> bool:
        seen = {process.pid}
        while process.parent != me and process.parent in found and process.parent not in seen:
            process = found[process.parent]
            seen.add(process.pid)
        return process.parent == me

    return [process for process in found.values() if process.state not in "ZX" and is_below(process)]


def living(numbers: Iterable[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    found = map(look, numbers)
    return [process.pid for process in found if process is not None and process.state not in "ZX"]


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def look(pid: int) -> Process | None:
    """One process; None when it is gone. Its name in brackets may hold anything; what follows is regular."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    words = tuple(word for word in read(f"/proc/{pid}/cmdline").split("\0") if word)
    return Process(pid, int(fields[1]), fields[0], int(fields[19]), words)


def read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def send(number: signal.Signals, processes: Iterable[Process]) -> None:
    """A signal to each that is still the same process and may be signalled by us."""
    for process in processes:
        now = look(process.pid)
        if now is not None and now.start == process.start:
            try:
                os.kill(process.pid, number)
            except (ProcessLookupError, PermissionError):
                continue


def say(text: str) -> None:
    print(f"ipyrescue: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
