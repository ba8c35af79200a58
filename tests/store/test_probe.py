"""What a file system does is done and looked at: each thing that goes wrong is noticed, and nothing is left."""

import errno
import fcntl
import os
import time

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.store import probe


def failing(code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def test_here_everything_works(tmp_path):
    found = probe.probe(tmp_path)

    assert {name: answer.detail for name, answer in found.answers.items() if not answer.works} == {}
    assert (found.clock_ahead_seconds, found.ignores_case) == (0.0, False)
    assert found.free_bytes > 0
    assert os.listdir(tmp_path) == []
    probe.require_fit(tmp_path, "x")
    assert os.listdir(tmp_path) == []


def never_taken(path, flags, *arguments, real=os.open, **options):
    return real(path, flags & ~os.O_EXCL, *arguments, **options)


def losing(fd, data, real=os.write):
    return real(fd, bytes(len(data)))


def copying(old, new, real=os.replace):
    with open(old, "rb") as source, open(new, "wb") as target:
        target.write(source.read())


def half(old, new):
    os.unlink(old)


@pytest.mark.parametrize(
    ("module", "call", "lie", "asked", "seen"),
    [
        (os, "open", never_taken, "create exclusively", "was made a second time"),
        (os, "write", losing, "write, fsync, read back", "other bytes than were written"),
        (os, "fsync", failing(errno.EINVAL), "write, fsync, read back", "Invalid argument"),
        (os, "replace", failing(errno.ENOSYS), "rename over a file", "Function not implemented"),
        (os, "replace", copying, "rename over a file", "both names are there"),
        (os, "replace", half, "rename over a file", "other bytes than were written"),
        (os, "link", failing(errno.EPERM), "link", "Operation not permitted"),
        (os, "link", copying, "link", "over a file that was there"),
        (os, "chmod", lambda *_: None, "modes", "stay as they are"),
        (os, "pread", lambda *_: b"", "read what was unlinked", "other bytes"),
        (fcntl, "flock", failing(errno.ENOSYS), "locks between processes", "Function not implemented"),
        (fcntl, "flock", lambda *_: None, "locks between processes", "an exclusive lock beside a shared one"),
        (probe.holes, "_punch", lambda *_: False, "holes", "not supported"),
        (probe.holes, "_punch", lambda *_: True, "holes", "other bytes"),
    ],
)
def test_what_is_missing_or_a_lie_is_noticed(tmp_path, monkeypatch, module, call, lie, asked, seen):
    monkeypatch.setattr(probe, "_BETTER", {name: check for name, check in probe._BETTER.items() if name == asked})
    monkeypatch.setattr(module, call, lie)

    found = probe.probe(tmp_path)

    assert seen in found.lacking[asked]
    essential = asked in ("create exclusively", "write, fsync, read back", "rename over a file")
    if essential:
        with pytest.raises(StoreError, match=r"^/x cannot be a store: .* Set IPYRESCUE_STORE to a folder on a disk"):
            probe.require_fit(tmp_path, "/x")
    else:
        probe.require_fit(tmp_path, "/x")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_is_full_or_broken_is_not_called_unfit(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", failing(code))

    with pytest.raises(OSError, match=os.strerror(code)):
        probe.require_fit(tmp_path, "x")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def only_measured(monkeypatch):
    monkeypatch.setattr(probe, "_BETTER", {})


@pytest.mark.usefixtures("only_measured")
@pytest.mark.parametrize("skew", [-7200.0, 0.0, 90.0])
def test_the_clock_of_the_file_system_is_compared(tmp_path, monkeypatch, skew):
    real = time.time
    monkeypatch.setattr(probe.time, "time", lambda: real() - skew)

    assert probe.probe(tmp_path).clock_ahead_seconds == pytest.approx(skew, abs=5)


@pytest.mark.usefixtures("only_measured")
@pytest.mark.parametrize(("step_ns", "seconds"), [(1, 1e-9), (100, 1e-7), (10**9, 1.0), (2 * 10**9, 2.0)])
def test_the_step_of_times_is_found(tmp_path, monkeypatch, step_ns, seconds):
    real = os.utime

    def coarse(path, ns):
        real(path, ns=tuple(moment // step_ns * step_ns for moment in ns))

    monkeypatch.setattr(os, "utime", coarse)

    assert probe.probe(tmp_path).time_step_seconds == seconds


@pytest.mark.usefixtures("only_measured")
def test_times_may_be_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "utime", failing(errno.EPERM))

    assert probe.probe(tmp_path).time_step_seconds is None


def test_nothing_but_a_prune_is_needed_after_a_kill(store, monkeypatch):
    """What a killed probe leaves in a store's tmp/ looks like a draft."""
    from ipyrescue.store.prune import prune

    monkeypatch.setattr(os, "unlink", lambda *_: None)
    probe.require_fit(store.root / "tmp", "x")
    monkeypatch.undo()

    assert len(os.listdir(store.root / "tmp")) >= 3
    prune(store)
    assert os.listdir(store.root / "tmp") == []
