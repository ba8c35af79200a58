"""The fence: what a child does to itself is told, and never done to this process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from ipyrescue.capture.fence import NOWHERE, Ended, Fence

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fence is made of Linux's fork")
HANG_SECONDS = 0.5


@pytest.fixture
def fence():
    before = set(os.listdir("/proc/self/fd"))
    yield Fence(HANG_SECONDS)
    assert set(os.listdir("/proc/self/fd")) <= before, "a descriptor was left open"
    assert psutil.Process().children() == [], "a child was left over"


def test_what_the_child_hands_over_arrives(fence):
    parts = [b"some", b"", bytearray(3), memoryview(b"views")[1:], os.urandom(5 << 20)]

    found = fence.run(lambda marks: parts)

    assert [bytes(part) for part in found] == [bytes(part) for part in parts]


def test_nothing_at_all_can_be_handed_over(fence):
    assert fence.run(lambda marks: []) == []


def test_what_the_child_changes_stays_its_own(fence):
    mine = [1]

    assert fence.run(lambda marks: [bytes(mine), mine.clear() or b"", bytes(mine)]) == [b"\1", b"", b""]
    assert mine == [1]


def _sleep():
    time.sleep(1e6)


def _spin():
    while True:
        pass


def _fall_silent_and_stay():
    os.closerange(3, 1024)
    time.sleep(1e6)


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (_sleep, "did not end within 0.5 s"),
        (_spin, "did not end within 0.5 s"),
        (_fall_silent_and_stay, "did not end"),
        (lambda: os._exit(0), "ends the process (exit status 0)"),
        (lambda: os._exit(7), "ends the process (exit status 7)"),
        (lambda: ctypes.string_at(0), "crashes the process (SIGSEGV)"),
        (lambda: os.abort(), "crashes the process (SIGABRT)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "crashes the process (SIGKILL)"),
        (lambda: os.kill(os.getpid(), 40), "crashes the process (40)"),
        (lambda: sys.exit(3), "ends the process (exit status 1)"),
    ],
)
def test_how_a_child_ends_is_told_with_what_it_was_at(fence, deed, told):
    def work(marks):
        marks.leave(3, 77, "Some.Kind")
        deed()
        return [b"never"]

    assert fence.run(work) == Ended(told, 3, 77, "Some.Kind")


def test_a_child_that_marked_nothing_blames_nothing(fence):
    assert fence.run(lambda marks: os._exit(0)) == Ended("ends the process (exit status 0)", NOWHERE, 0, "")


def test_a_long_name_is_cut(fence):
    def work(marks):
        marks.leave(1, 2, "x" * 10_000)
        os._exit(0)

    assert set(fence.run(work).kind) == {"x"}


def test_a_child_that_makes_progress_has_time():
    """The deadline is one for each mark, not for all of them."""
    fence = Fence(2.0)
    until = time.monotonic() + 3.0

    def work(marks):
        while time.monotonic() < until:
            marks.leave(1)
        return [b"done"]

    assert fence.run(work) == [b"done"]


def test_progress_without_end_has_an_end():
    def work(marks):
        while True:
            marks.leave(1)

    assert Fence(0.2).run(work).how == "did not end within 1.2 s"


@pytest.mark.slow
def test_memory_without_end_is_refused_in_the_child(fence):
    fence.deadline_seconds = 60

    def work(marks):
        grown = [1]
        try:
            while True:
                grown = grown * 2
        except MemoryError:
            grown.clear()
            return [b"refused"]

    assert fence.run(work) == [b"refused"]


def test_ctrl_c_ends_the_child_and_not_more(fence, tmp_path):
    fence.deadline_seconds = 60

    def work(marks):
        (tmp_path / "asleep").touch()
        time.sleep(1e6)

    def interrupt():
        while not (tmp_path / "asleep").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fence.run(work)
    thread.join()


def test_what_the_child_flushes_does_not_stand_in_a_file_twice(fence, tmp_path):
    """Buffers are forked with the rest; the kernel writes them, the child writes nowhere but to files of its own."""
    with (tmp_path / "log").open("w") as log:
        log.write("once")

        def work(marks):
            log.flush()
            (tmp_path / "own").write_text("new")
            return [b""]

        fence.run(work)

    assert (tmp_path / "log").read_text() == "once"
    assert (tmp_path / "own").read_text() == "new"


def test_children_of_the_child_end_with_it(fence, tmp_path):
    """One that holds the pipe open is not waited for, and none goes on with the memory of the kernel."""
    fence.deadline_seconds = 60

    def work(marks):
        if os.fork() == 0:
            (tmp_path / "pid~").write_text(str(os.getpid()))
            os.rename(tmp_path / "pid~", tmp_path / "pid")
            time.sleep(1e6)
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        return [b"done"]

    assert fence.run(work) == [b"done"]
    orphan = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def test_torch_computes_in_the_child_after_it_computed_here(fence):
    """OpenMP's threads are not forked: without the child's one thread this hangs (research, performance 4)."""
    fence.deadline_seconds = 60
    numbers = torch.randn(3_000_000)
    torch.sin(numbers)

    assert fence.run(lambda marks: [str(bool(torch.sin(numbers).isfinite().all())).encode()]) == [b"True"]


def test_the_child_is_silent(fence, capfd):
    def work(marks):
        print("noise")
        os.write(1, b"noise")
        os.write(2, b"noise")
        return [b""]

    fence.run(work)

    assert capfd.readouterr() == ("", "")


def test_no_warning_of_threads_and_no_filter_is_left(fence, recwarn):
    """3.12 warns of a fork beside threads; the user's filters are none of our business."""
    import warnings

    filters = list(warnings.filters)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    fence.run(lambda marks: [b""])
    stop.set()
    thread.join()

    assert list(recwarn) == []
    assert warnings.filters == filters


def test_a_child_whose_kernel_died_before_it_could_ask_to_be_told_ends(fence, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getppid", lambda: 1)

    ended = fence.run(lambda marks: [(tmp_path / "lived").touch() or b""])

    assert ended == Ended("ends the process (exit status 1)", NOWHERE, 0, "")
    assert not (tmp_path / "lived").exists()


def test_a_killed_kernel_takes_its_child_with_it(tmp_path):
    code = f"""
import os, time
from pathlib import Path
from ipyrescue.capture.fence import Fence
def work(marks):
    Path({str(tmp_path / "pid")!r} + "~").write_text(str(os.getpid()))
    os.rename({str(tmp_path / "pid")!r} + "~", {str(tmp_path / "pid")!r})
    time.sleep(1e6)
Fence(1e6).run(work)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        while not (tmp_path / "pid").exists():
            assert parent.poll() is None
            time.sleep(0.01)
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        parent.kill()

    psutil.wait_procs([child], timeout=30)

    assert not child.is_running()
