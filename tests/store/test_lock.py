"""Writers together, prune alone, and nobody for longer than a snapshot."""

import errno
import os
import subprocess
import sys
import time

import pytest

from ipyrescue.errors import StoreBusyError
from ipyrescue.store import lock


def test_writers_share(store):
    with lock.shared(store.root, 0), lock.shared(store.root, 0):
        pass


def test_prune_is_alone(store):
    with lock.exclusive(store.root), pytest.raises(StoreBusyError, match="Try again"), lock.shared(store.root, 0.05):
        pass
    with lock.shared(store.root, 0), pytest.raises(StoreBusyError), lock.exclusive(store.root):
        pass
    with lock.exclusive(store.root):
        pass


def test_a_writer_waits_for_prune(store):
    code = (
        "import sys, time; from pathlib import Path; from ipyrescue.store import lock\n"
        "with lock.exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(0.3)"
    )
    with subprocess.Popen([sys.executable, "-c", code, store.root], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        began = time.monotonic()
        with lock.shared(store.root, 10):
            waited = time.monotonic() - began

    assert waited > 0.1


def test_a_worker_forked_meanwhile_does_not_keep_the_lock(store):
    """An flock leaks into forked DataLoader workers; closing our end alone would leave it held."""
    with lock.shared(store.root, 0):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with lock.exclusive(store.root):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_worker_that_ends_does_not_release_the_lock(store):
    with lock.shared(store.root, 0):
        child = os.fork()
        if child == 0:
            try:
                raise SystemExit  # unwinds our block in the child
            finally:
                os._exit(0)
        os.waitpid(child, 0)

        with pytest.raises(StoreBusyError), lock.exclusive(store.root):
            pass


def test_without_locks_writers_write_and_nobody_prunes(store, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)

    with lock.shared(store.root, 0):
        pass
    with pytest.raises(StoreBusyError, match="cannot be locked"), lock.exclusive(store.root):
        pass


def test_a_lock_that_is_given_away_twice_is_no_lock(store, monkeypatch):
    """Some file systems say yes to everybody: there nothing is ever freed."""
    from ipyrescue.store.prune import prune

    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: None)

    with pytest.raises(StoreBusyError, match="was locked twice at once"), lock.exclusive(store.root):
        pass
    with lock.shared(store.root, 0):
        pass
    assert prune(store) is None
