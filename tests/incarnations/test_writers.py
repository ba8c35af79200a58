"""Processes that write a dead kernel's last snapshot are waited for, and nobody else is."""

import os
import socket
import subprocess
import sys

import pytest

from ipyrescue.incarnations.writers import wait_for_writers
from ipyrescue.store import layout, lives
from ipyrescue.store.lives import process_facts, still_writes
from tests.incarnations.samples import NO_SUCH_PID, a_life

NOTEBOOK = "train.ipynb"


@pytest.fixture
def writer():
    """A process that ends when its input does."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def put(root, writer, **fields):
    """A dead kernel's life, with a process that writes."""
    known = {**process_facts(os.getpid())._asdict(), "pid": NO_SUCH_PID, "start_ticks": 1,
             "writer_pid": writer.pid, "writer_start_ticks": process_facts(writer.pid).start_ticks}  # fmt: skip
    life = a_life(**{**known, "host": socket.gethostname(), "notebook": NOTEBOOK, **fields})
    layout.create(root)
    lives.write(root, life)
    return life


@pytest.mark.parametrize("ended", [None, "restart"])
def test_the_writer_of_a_dead_kernel_is_waited_for(store_root, writer, ended, monkeypatch):
    """Until it has ended, whoever reaps it."""
    put(store_root, writer, ended=ended)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            writer.kill()

    monkeypatch.setattr("ipyrescue.incarnations.writers.time.sleep", sleep)

    waited = wait_for_writers(store_root, NOTEBOOK, "")

    assert len(looks) >= 3
    assert waited.unfinished is None


def test_a_writer_that_does_not_end_is_named(store_root, writer):
    put(store_root, writer)

    waited = wait_for_writers(store_root, NOTEBOOK, "", patience_seconds=0.01)

    assert waited.unfinished == writer.pid


@pytest.mark.parametrize(
    "fields",
    [
        {"writer_pid": None},
        {"writer_start_ticks": None},
        {"writer_start_ticks": 1},  # a later process of that number
        {"boot_id": "another"},
        {"host": "elsewhere"},
        {"pid": os.getpid(), "start_ticks": process_facts(os.getpid()).start_ticks},  # it lives
        {"notebook": "other.ipynb"},
        {"incarnation": "e" * 16},  # ours
    ],
)
def test_nobody_else_is_waited_for(store_root, writer, fields):
    put(store_root, writer, **fields)

    assert wait_for_writers(store_root, NOTEBOOK, "e" * 16) is None


def test_a_writer_that_has_ended_writes_no_more(store_root, writer):
    life = put(store_root, writer)
    assert still_writes(life)

    writer.communicate(b"\n")

    assert not still_writes(life)
