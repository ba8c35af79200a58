"""SIGKILL at every system call of a snapshot (strace): the one before is whole, the new one complete or invisible.

The method is SQLite's: fail at the k-th call, for every k.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from namespaces import Life, open_store
from torture.syscalls import CALLS, command, store_calls

from ipyrescue.store import signing
from ipyrescue.store.prune import prune


@pytest.mark.system
@pytest.mark.timeout(900)
def test_sigkill_at_every_system_call(tmp_path: Path) -> None:
    """100 of 100: old snapshot bit-exact, new one complete or invisible, nothing said that is not, store usable."""
    origin, root = tmp_path / "origin", tmp_path / "store"
    before = Life(open_store(origin))
    before.run("x = list(range(5000))")
    old = before.checkpoint()
    key_path, pattern = signing.key_path(), tmp_path / "pattern"
    pattern.write_bytes(old.to_bytes())
    shutil.copytree(origin, root)
    log = tmp_path / "log"
    subprocess.run(["strace", "-o", log, "-e", f"trace={CALLS}", *command(root, key_path, pattern)], check=True)
    calls = store_calls(log, root)
    assert len(calls) > 30

    visible = 0
    for name, which in calls:
        shutil.rmtree(root)
        shutil.copytree(origin, root)
        inject = f"inject={name}:signal=KILL:when={which}"
        done = subprocess.run(
            ["strace", "-o", os.devnull, "-e", f"trace={name}", "-e", inject, *command(root, key_path, pattern)],
            capture_output=True,
            text=True,
        )
        visible += check(root, old.id, done.stdout.strip())

    assert 0 < visible < len(calls)


def check(root: Path, old: str, said: str) -> int:
    """The store after a death: 1 if the new snapshot is there, 0 if not."""
    store = open_store(root)
    found = store.snapshots()
    assert not store.unreadable()
    assert old in {s.id for s in found}
    assert not said or said in {s.id for s in found}
    for snapshot in found:
        assert not store.verify(snapshot)
    after = Life(store)
    after.restore(source=old)
    assert after.names["x"] == list(range(5000))
    after.checkpoint()
    assert prune(store) is not None
    assert not list((store.root / "tmp").iterdir())
    return len(found) - 1
