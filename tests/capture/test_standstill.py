"""Where a thread stands still, with real threads that do."""

import subprocess
import sys
import threading
import time

import pytest

from ipyrescue.capture.standstill import standstill

LIBRARY = "def fit(wait):\n    return wait()\n"


def is_cell(code):
    return code.co_filename == "<cell>"


def library(name):
    """A module of somebody else whose function does not come back."""
    namespace = {"__name__": name}
    exec(compile(LIBRARY, f"<{name}>", "exec"), namespace)
    return namespace["fit"]


@pytest.fixture
def stands():
    """Run a cell on a thread until it stands still; return what is said of it."""
    lock = threading.Lock()
    lock.acquire()
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    namespace = {"wait": lock.acquire, "library": library, "sleeper": sleeper}
    threads = []

    def run(source, expected):
        cell = compile(source, "<cell>", "exec")
        threads.append(threading.Thread(target=exec, args=(cell, namespace), daemon=True))
        threads[0].start()
        return said(threads[0].ident, expected)

    yield run
    lock.release()
    sleeper.communicate(b"\n")
    threads[0].join(60)


def said(ident, expected):
    """Look until it is what is expected, or for a minute."""
    found, deadline = None, time.monotonic() + 60
    while found != expected and time.monotonic() < deadline:
        found = standstill(sys._current_frames().get(ident), is_cell)
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\nwait()", "line 2 of the cell is in one long call"),
        ("def train():\n    x = 1\n    wait()\ntrain()", "line 3 of train() is in one long call"),
        (
            "library('sklearn.linear_model.base')(wait)",
            "line 1 of the cell is in one long call, fit() of sklearn.linear_model",
        ),
        ("library('rays')(wait)", "line 1 of the cell is in one long call, fit() of rays"),
        ("\nlibrary('somebody')(lambda:\nwait())", "line 3 of the cell is in one long call"),
        ("library('ray')(wait)", "line 1 of the cell waits for other processes in fit() of ray"),
        ("sleeper.wait()", "line 1 of the cell waits for other processes in wait() of subprocess"),
    ],
)
def test_it_is_said_in_which_call_a_cell_stands(stands, source, expected):
    assert stands(source, expected) == expected


def test_without_a_cell_on_the_stack_nothing_is_said():
    assert standstill(sys._getframe(), is_cell) is None
    assert standstill(None, is_cell) is None
