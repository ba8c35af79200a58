"""One job at a time, beside the kernel, with real threads and real forks."""

import gc
import os
import threading
import time
import weakref

import pytest

from ipyrescue.capture.writer import Writer
from ipyrescue.errors import CheckpointError


@pytest.fixture
def writer():
    made = Writer()
    yield made
    made.close(10)


def test_a_job_runs_beside_and_its_result_waits_in_the_ticket(writer):
    ticket = writer.submit(threading.current_thread)

    assert ticket.result(10) is not threading.current_thread()
    assert ticket.done()
    assert ticket.error is None


def test_no_thread_exists_before_the_first_job():
    before = threading.active_count()

    Writer()

    assert threading.active_count() == before


def test_all_jobs_share_one_thread_one_after_the_other(writer):
    threads = {writer.submit(threading.get_ident).result(10) for _ in range(20)}

    assert len(threads) == 1


def test_a_second_job_is_refused_while_one_runs(writer):
    """A slot, not a queue."""
    gate = threading.Event()
    first = writer.submit(gate.wait)

    assert writer.busy
    with pytest.raises(CheckpointError, match="still being written"):
        writer.submit(int)
    with pytest.raises(CheckpointError, match="still being written"):
        first.result(0.01)
    assert not writer.drain(0.01)

    gate.set()

    assert writer.drain(10)
    assert not writer.busy
    assert writer.submit(int).result(10) == 0


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_whatever_a_job_raises_stays_in_its_ticket(writer, error, capfd):
    """No thread prints: output would land in somebody else's cell."""

    def fail():
        raise error

    ticket = writer.submit(fail)

    assert writer.drain(10)
    assert ticket.error is error
    with pytest.raises(type(error)):
        ticket.result()
    assert writer.submit(lambda: "next").result(10) == "next"
    assert capfd.readouterr() == ("", "")


class Buffer:
    """Something a job holds."""


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_job_held_is_free_when_it_is_done(writer, fails):
    """The staged copy of a model must not live on in a closure or in a traceback."""
    held = Buffer()
    gone = weakref.ref(held)

    def job(held=held):
        copy = [held]
        if fails:
            try:
                raise KeyError(str(copy))
            except KeyError as error:
                raise ValueError from error

    ticket = writer.submit(job)
    del held, job

    ticket.wait(10)
    deadline = time.monotonic() + 5
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
    assert (ticket.error is not None) == fails
    assert ("in job" in ticket.traceback) == fails


def test_close_finishes_the_job_ends_the_thread_and_takes_no_more():
    writer = Writer(name="closing")
    ticket = writer.submit(lambda: time.sleep(0.05) or "done")

    assert writer.close(10)

    assert ticket.result(0) == "done"
    assert "closing" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(CheckpointError, match="unloaded"):
        writer.submit(int)


def test_close_gives_up_on_a_job_that_hangs():
    writer, gate = Writer(), threading.Event()
    writer.submit(gate.wait)

    assert not writer.close(0.02)

    gate.set()


def test_where_no_thread_can_start_the_job_runs_at_once(writer, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert writer.submit(threading.get_ident).result(0) == threading.get_ident()


def _in_child(check):
    pid = os.fork()
    if pid == 0:
        try:
            ok = check()
        except BaseException:  # noqa: BLE001 - the child must end here, whatever it met
            ok = False
        os._exit(0 if ok else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_does_not_wait_for_its_parents_thread(writer):
    """The child has the object but not the thread; the parent's job goes on."""
    gate = threading.Event()
    ticket = writer.submit(lambda: gate.wait() and "parent")

    def child():
        idle = not writer.busy and writer.drain(5) and not ticket.wait(5)
        return idle and writer.submit(lambda: "child").result(5) == "child"

    assert _in_child(child) == 0
    gate.set()
    assert ticket.result(10) == "parent"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_while_the_lock_is_held_leaves_the_child_free(writer):
    with writer._condition:
        assert _in_child(lambda: writer.submit(lambda: 7).result(5) == 7) == 0
