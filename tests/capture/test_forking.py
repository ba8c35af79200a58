"""The forked writer: real children, and what becomes of them, of the kernel and of each other."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from ipyrescue.capture import children, forking
from ipyrescue.capture.forking import Childless, ForkingWriter
from ipyrescue.errors import CheckpointError, StoreError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are children on Linux only")

SECONDS = 60.0


@pytest.fixture
def writer():
    before = set(os.listdir("/proc/self/fd")), set(threading.enumerate()), signal.getsignal(signal.SIGINT)
    made = ForkingWriter()
    yield made
    assert made.close(SECONDS)
    after = set(os.listdir("/proc/self/fd")), set(threading.enumerate()), signal.getsignal(signal.SIGINT)
    assert after == before, "a descriptor, a thread or a handler was left"
    assert psutil.Process().children() == [], "a child was left over, or was not waited for"


def array(mebibytes=4):
    return np.full(mebibytes << 20, 7, np.uint8)


def span(numbers):
    return numbers.ctypes.data, numbers.nbytes


def bytes_of(numbers):
    return lambda: numbers.tobytes()[:3]


def wait_until(true):
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# --- verdicts ---------------------------------------------------------------------------------------------------


def test_what_a_job_returns_comes_back_from_a_process_of_its_own(writer):
    ticket = writer.submit(lambda: str(os.getpid()).encode())

    assert ticket.result(SECONDS) == str(ticket.child).encode() != str(os.getpid()).encode()
    assert ticket.done()
    assert ticket.ended is not None
    assert ticket.ended >= ticket.began
    assert ticket.result() == ticket.result(), "a verdict can be asked for again"


@pytest.mark.parametrize("said", [b"", b"x" * (1 << 20) + b"end"], ids=["nothing", "more than a pipe holds"])
def test_a_verdict_has_any_length(writer, said):
    ticket = writer.submit(lambda: said)

    assert ticket.result(SECONDS) == said


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreError("No space is left."), "No space is left."),
        (ValueError("x"), "ValueError: x"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ValueError("\udcff\u2713"), "ValueError: ??"),
        (ValueError("long " * 5000), "ValueError: long long"),
    ],
)
def test_what_a_job_raises_comes_back_in_words(writer, error, told, capfd):
    def fail():
        print("noise")
        raise error

    with pytest.raises(CheckpointError) as raised:
        writer.submit(fail).result(SECONDS)

    assert str(raised.value).replace("\N{CHECK MARK}", "?").startswith(told)
    assert len(str(raised.value)) <= 4000
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (lambda: os._exit(0), "ended before that (exit status 0)"),
        (lambda: os._exit(7), "ended before that (exit status 7)"),
        (lambda: ctypes.string_at(0), "was killed (SIGSEGV)"),
        (os.abort, "was killed (SIGABRT)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed (SIGKILL)"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "was killed (SIGTERM)"),
        (lambda: os.kill(os.getpid(), 40), "was killed (40)"),
    ],
)
def test_a_child_that_dies_is_told_and_the_next_one_succeeds(writer, deed, told):
    ticket = writer.submit(lambda: deed() or b"never")

    with pytest.raises(CheckpointError) as raised:
        ticket.result(SECONDS)

    assert str(raised.value) == f"The snapshot was not made: the process that wrote it {told}."
    assert not writer.busy
    assert writer.submit(lambda: b"next").result(SECONDS) == b"next"


def test_a_child_that_somebody_kills_is_told_and_the_next_one_succeeds(writer):
    ticket = writer.submit(lambda: time.sleep(1e6) or b"")
    assert writer.busy
    with pytest.raises(CheckpointError, match="the one before is still being written"):
        writer.submit(lambda: b"")
    with pytest.raises(CheckpointError, match="still being written"):
        ticket.result(0.01)

    os.kill(ticket.child, signal.SIGKILL)

    with pytest.raises(CheckpointError, match=r"was killed \(SIGKILL\)"):
        ticket.result(SECONDS)
    assert writer.submit(lambda: b"next").result(SECONDS) == b"next"


def test_half_a_verdict_is_none(writer, monkeypatch):
    def half(file, data):
        file.write(data[: len(data) // 2])
        os._exit(0)

    with monkeypatch.context() as patch:
        patch.setattr(children, "write_all", half)
        ticket = writer.submit(lambda: b"x" * 1000)
    with pytest.raises(CheckpointError):
        ticket.result(SECONDS)


def test_a_child_that_somebody_else_has_waited_for_counts_by_what_it_said(writer):
    """A program may wait for children of all kinds: os.wait(), or a SIGCHLD handler that does."""
    said, died = writer.submit(lambda: b"said"), None
    os.waitpid(said.child, 0)
    assert said.result(SECONDS) == b"said"

    died = writer.submit(lambda: os._exit(0))
    os.waitpid(died.child, 0)
    with pytest.raises(CheckpointError, match="The snapshot was not made"):
        died.result(SECONDS)


# --- ends -------------------------------------------------------------------------------------------------------


def _spin():
    while True:
        pass


@pytest.mark.parametrize("deed", [lambda: time.sleep(1e6), _spin], ids=["sleeps", "spins"])
def test_a_child_that_hangs_ends_itself(writer, deed):
    """Also where the thread that forked it blocks all signals, which children inherit."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    try:
        ticket = writer.submit(deed, deadline_seconds=0.3)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    wait_until(lambda: ended(ticket.child))

    with pytest.raises(CheckpointError, match=r"wrote it did not end within 0\.3 s"):
        ticket.result(SECONDS)


def test_a_child_that_hangs_in_a_hook_of_its_fork_is_ended_by_its_ticket(writer, monkeypatch):
    """Before it can set an alarm: libraries that start threads have such hooks, and they wait for locks."""
    monkeypatch.setattr(forking, "_SECONDS_TO_BEGIN", 0.1)
    monkeypatch.setattr(children, "leave_the_kernel", lambda kept: time.sleep(1e6))

    ticket = writer.submit(lambda: b"never", deadline_seconds=0.2)

    with pytest.raises(CheckpointError, match=r"wrote it did not end within 0\.2 s"):
        ticket.result(SECONDS)


def test_a_child_that_does_not_leave_holds_nobody_up(writer, monkeypatch):
    """It has said its verdict, and hangs where its memory is taken apart: the next one begins beside it."""
    with monkeypatch.context() as patch:
        patch.setattr(forking.children, "has_ended", lambda child: False)
        patch.setattr(time, "sleep", _no_waiting)
        first = writer.submit(lambda: b"done")
        _spin_until(first.done)
        assert not writer.busy
        assert not writer.crowded
        second = writer.submit(lambda: b"again")
        _spin_until(second.done)
        writer.tidy()
        assert not writer.busy
        assert writer.crowded, "the third had better wait, unless it is urgent"
        assert [first.result(), second.result()] == [b"done", b"again"]

    assert writer.drain(SECONDS)
    writer.tidy()
    assert not writer.crowded


def _no_waiting(seconds):
    raise AssertionError("somebody waits")


def _spin_until(true):
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline


def test_a_child_gives_way_unless_it_is_urgent(writer):
    """A kernel that is about to be killed waits for what it saves: there it must not be the last in the queue."""
    mine = os.nice(0)

    assert int(writer.submit(lambda: str(os.nice(0)).encode()).result(SECONDS)) > mine
    assert int(writer.submit(lambda: str(os.nice(0)).encode(), urgent=True).result(SECONDS)) == mine


def test_children_of_the_child_end_with_it(writer, tmp_path):
    """One that holds the pipe open is not waited for, and none goes on with the memory of the kernel."""

    def work():
        if os.fork() == 0:
            (tmp_path / "pid~").write_text(str(os.getpid()))
            os.rename(tmp_path / "pid~", tmp_path / "pid")
            time.sleep(1e6)
        wait_until((tmp_path / "pid").exists)
        return b"done"

    ticket = writer.submit(work)

    assert ticket.result(SECONDS) == b"done"
    assert ticket.wait(SECONDS, gone=True)
    wait_until(lambda: ended(int((tmp_path / "pid").read_text())))


ORPHANED = """
import os, signal, sys, time
from pathlib import Path
from ipyrescue.capture.forking import ForkingWriter
folder = Path(sys.argv[1])
def work():
    (folder / "began").write_text(str(os.getpid()))
    while not (folder / "killed").exists(): time.sleep(0.01)
    (folder / "written").write_text("whole")
    time.sleep(1e6)
ForkingWriter().submit(work, deadline_seconds=float(sys.argv[2]))
while not (folder / "began").exists(): time.sleep(0.01)
os.killpg(0, signal.SIGINT) if sys.argv[3] == "SIGINT" else os.kill(os.getpid(), signal.SIGKILL)
time.sleep(1e6)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_child_goes_on_without_its_kernel_and_ends_itself(tmp_path, name):
    """SIGKILL of the kernel, and Jupyter's signals to its whole process group."""
    command = [sys.executable, "-c", ORPHANED, str(tmp_path), "2.0", name]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE) as parent:
        assert parent.wait(SECONDS) == -getattr(signal, name)
    child = int((tmp_path / "began").read_text())
    (tmp_path / "killed").touch()

    wait_until((tmp_path / "written").exists)
    wait_until(lambda: ended(child))


def test_close_lets_the_child_finish_and_takes_no_more(tmp_path):
    writer = ForkingWriter()
    ticket = writer.submit(lambda: wait_until((tmp_path / "go").exists) or b"done")
    assert not writer.close(0.02)
    (tmp_path / "go").touch()

    assert writer.close(SECONDS)

    assert ticket.result(0) == b"done"
    with pytest.raises(CheckpointError, match="unloaded"):
        writer.submit(lambda: b"")


def test_a_ticket_is_asked_by_many_threads(writer):
    for number in range(5):
        ticket = writer.submit(lambda number=number: bytes([number]) * 100_000)
        with ThreadPoolExecutor(8) as threads:
            heard = list(threads.map(ticket.result, [SECONDS] * 8))
        assert heard == [bytes([number]) * 100_000] * 8


def test_for_other_children_of_the_process_the_ticket_is_done(writer, tmp_path):
    """They neither wait for what is not theirs, nor end it."""
    ticket = writer.submit(lambda: wait_until((tmp_path / "go").exists) or b"done")
    other = os.fork()
    if other == 0:
        os._exit(0 if ticket.done() and ticket.wait(SECONDS) and not writer.busy and writer.drain(SECONDS) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
    assert writer.busy
    (tmp_path / "go").touch()
    assert ticket.result(SECONDS) == b"done"


# --- what a child has -------------------------------------------------------------------------------------------


def test_a_child_sees_the_memory_of_the_fork(writer, tmp_path):
    numbers, names = array(), {"step": 1}

    def work():
        wait_until((tmp_path / "go").exists)
        return bytes([numbers[0], numbers[-1], names["step"]])

    ticket = writer.submit(work)
    numbers[:] = 8
    names["step"] = 2
    (tmp_path / "go").touch()

    assert ticket.result(SECONDS) == bytes([7, 7, 1])


def test_absent_memory_is_not_there_in_the_child_alone(writer):
    """And there again for every child after it."""
    numbers, other = array(), array()
    ticket = writer.submit(bytes_of(numbers), absent=[span(numbers)])

    with pytest.raises(CheckpointError, match=r"was killed \(SIGSEGV\)"):
        ticket.result(SECONDS)
    numbers[:3] = 9
    assert writer.submit(bytes_of(other), absent=[span(numbers)]).result(SECONDS) == bytes([7, 7, 7])
    assert writer.submit(bytes_of(numbers)).result(SECONDS) == bytes([9, 9, 9])


def test_what_stands_beside_absent_memory_is_there(writer):
    """Only whole pages can be absent, and what is small is not worth it."""
    numbers = array()
    start, size_bytes = span(numbers)
    inner = start + 4097, size_bytes - 2 * 4097

    def work():
        return bytes([numbers[0], numbers[4096], numbers[-4097], numbers[-1]])

    assert writer.submit(work, absent=[inner]).result(SECONDS) == bytes([7] * 4)
    assert writer.submit(bytes_of(numbers), absent=[(start, 4096 * 200)]).result(SECONDS) == bytes([7] * 3)
    assert forking.worth_keeping_out([(start, 1), inner]) == [inner]


def test_memory_that_was_absent_is_there_after_a_fork_that_failed(writer, monkeypatch):
    numbers = array()

    def refuse():
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        with pytest.raises(Childless, match=r"could be started to write the snapshot:.*Resource temporarily"):
            writer.submit(bytes_of(numbers), absent=[span(numbers)])

    assert not writer.busy
    assert writer.submit(bytes_of(numbers)).result(SECONDS) == bytes([7, 7, 7])


def test_a_child_that_another_thread_forks_meanwhile_lacks_nothing(writer, monkeypatch):
    """DataLoader workers may be started just while ours is; they must not crash for what ours can do without."""
    numbers, statuses = array(), []

    def fork_another():
        child = forks()
        if child == 0:
            os._exit(int(numbers[1 << 20]))
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    def fork_after_another():
        thread = threading.Thread(target=fork_another)
        thread.start()
        thread.join()
        return forks()

    forks = os.fork
    monkeypatch.setattr(os, "fork", fork_after_another)

    ticket = writer.submit(lambda: b"done", absent=[span(numbers)])

    assert statuses == [7]
    assert ticket.result(SECONDS) == b"done"


def test_without_room_for_a_process_there_is_no_child(writer):
    """Asked for in a process of its own whose user may have no more of them."""
    code = """
import os, resource
from ipyrescue.capture.forking import Childless, ForkingWriter
os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
before = os.listdir("/proc/self/fd")
try:
    ForkingWriter().submit(lambda: b"")
except Childless as error:
    print(error)
assert os.listdir("/proc/self/fd") == before
"""
    if os.getuid():
        code = code.replace("os.setuid(54321)\n", "")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=True)

    assert said.stdout.startswith("No process could be started to write the snapshot: ")


def test_without_descriptors_there_is_no_child(writer):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(Childless, match="Too many open files"):
            writer.submit(lambda: b"")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert writer.submit(lambda: b"done").result(SECONDS) == b"done"


def test_the_child_is_no_part_of_the_kernel(writer, tmp_path):
    """Own session, no file or socket of the kernel to write to, the first to go when memory runs out."""
    with (tmp_path / "log").open("w") as log:
        log.write("once")

        def work():
            log.flush()
            links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
            open_files = {os.readlink(link) for link in links if link.exists()}
            written_to = {name for name in open_files if name.startswith(("socket", str(tmp_path)))}
            scored = Path("/proc/self/oom_score_adj").read_text().strip()
            return repr((os.getsid(0) == os.getpid(), written_to, scored, signal.getsignal(signal.SIGINT))).encode()

        said = writer.submit(work).result(SECONDS).decode()

    assert said == repr((True, set(), "1000", signal.SIG_IGN))
    assert (tmp_path / "log").read_text() == "once"


# --- Ctrl-C -----------------------------------------------------------------------------------------------------


def test_a_ctrl_c_during_the_fork_waits_until_the_child_is_known(writer, monkeypatch):
    """Raised in between, nobody would wait for the child, and memory of the user would stay absent for others."""
    numbers, forks = array(), os.fork

    def interrupted():
        child = forks()
        if child:
            signal.raise_signal(signal.SIGINT)
        return child

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.submit(bytes_of(array(1)), absent=[span(numbers)])

    assert writer.drain(SECONDS)
    assert writer.submit(bytes_of(numbers)).result(SECONDS) == bytes([7, 7, 7])


STORM = """
import os, signal, threading, time
from ipyrescue.capture.forking import ForkingWriter
class Pressed(Exception): pass
def press(number, frame):
    if open_to.pop() if open_to else False: raise Pressed
def storm():
    while not stop.wait(0.0003): signal.pthread_kill(main, signal.SIGINT)
main, stop, writer, made, pressed, open_to = threading.main_thread().ident, threading.Event(), ForkingWriter(), 0, 0, []
before = set(os.listdir("/proc/self/fd"))
signal.signal(signal.SIGINT, press)
thread = threading.Thread(target=storm)
thread.start()
while made < 30:
    try:
        open_to.append(True)
        if not writer.busy:
            writer.submit(lambda: b"done")
            made += 1
        open_to.clear()
    except Pressed:
        pressed += 1
stop.set()
thread.join()
assert signal.getsignal(signal.SIGINT) is press
assert writer.drain(60)
assert writer._tickets[-1].result() == b"done"
assert set(os.listdir("/proc/self/fd")) <= before, os.listdir("/proc/self/fd")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("pressed" if pressed else "never pressed")
"""


def test_a_storm_of_interrupts_leaves_nothing_behind():
    said = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=SECONDS)

    assert (said.stdout, said.stderr) == ("pressed\n", "")
