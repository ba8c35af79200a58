"""A writer killed at any point: what was there stays, what was coming is whole or invisible."""

import os
import signal
import sys

import pytest
from torture.dying import CALLS, in_child, killing

from ipyrescue.store import Store, prune

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills forked children")


@pytest.mark.parametrize("half", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_sigkill_at_every_system_call(store, key, save, load, call, half):
    """Each open, write, fsync, chmod, close, link and unlink of a snapshot is the last one once."""
    old = save(store, b"old" * 5000, b"shared" * 1000)
    nth, ended = 0, signal.SIGKILL

    while ended == signal.SIGKILL:
        nth += 1
        assert nth < 99

        def snapshot(nth=nth):
            killing(call, nth, half=half)
            save(Store.open(store.root, key), b"new%d" % nth * 9000, b"shared" * 1000)

        ended = in_child(snapshot)
        after = Store.open(store.root, key)
        assert after.unreadable() == []
        assert load(after, after.load(old.id)) == [b"old" * 5000, b"shared" * 1000]
        for found in after.snapshots():
            assert load(after, found)[-1] == b"shared" * 1000
            if found != old:
                after.forget(found.id)
    assert nth > 1

    newest = save(after, b"next")
    prune.prune(after)
    assert os.listdir(after.root / "tmp") == []
    assert load(after, newest) == [b"next"]
    assert load(after, after.load(old.id)) == [b"old" * 5000, b"shared" * 1000]


@pytest.mark.parametrize("moment", ["before put", "between put and commit", "after commit"])
def test_sigkill_between_the_stages(store, key, save, load, make_snapshot, moment):
    """Before the commit the snapshot never was; after it, it is."""
    old = save(store, b"old")

    def snapshot():
        opened = Store.open(store.root, key)
        with opened.writing():
            if moment == "before put":
                os.kill(os.getpid(), signal.SIGKILL)
            refs = opened.put([memoryview(b"new")]).refs
            if moment == "between put and commit":
                os.kill(os.getpid(), signal.SIGKILL)
            opened.commit(make_snapshot(refs, sequence=2))
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(snapshot) == signal.SIGKILL

    after = Store.open(store.root, key)
    assert [load(after, found) for found in after.snapshots()] == [[b"new"]] * (moment == "after commit") + [[b"old"]]
    assert after.load(old.id) == old
    assert prune.prune(after) is not None
    assert len(os.listdir(after.root / "packs")) == len(after.snapshots())


def test_bytes_are_durable_before_the_name_that_promises_them(store, save, monkeypatch):
    """The power-cut order: each file synced before its link, each folder after, the pack before the manifest."""
    log, link, fsync = [], os.link, os.fsync

    def what(fd):
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", lambda fd: (log.append(("sync", what(fd))), fsync(fd)))
    monkeypatch.setattr(
        os, "link", lambda tmp, final: (log.append(("link", final.parent.name, tmp.name)), link(tmp, final))
    )

    save(store, b"content")

    pack, manifest = (entry[2] for entry in log if entry[0] == "link")
    assert log == [
        ("sync", pack),
        ("link", "packs", pack),
        ("sync", "packs"),
        ("sync", manifest),
        ("link", "snapshots", manifest),
        ("sync", "snapshots"),
    ]
