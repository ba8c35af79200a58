"""One step on one store, in a process of its own: `python -m benchmarks.scale.measure STEP ROOT`; prints JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipyrescue.store import Store, signing
from ipyrescue.store.retention import Retention
from ipyrescue.store.upkeep import tidy


def main() -> None:
    """Do the step; say what it took."""
    step, root = STEPS[sys.argv[1]], Path(sys.argv[2])
    print(json.dumps(step(Store.open(root, signing.load_key(), create=True))))


def taken(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of the clock and of the processors, children included, and the peak of memory."""
    before, started = _cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024
    return {"seconds": seconds, "cpu_seconds": _cpu_seconds() - before, "peak_bytes": peak}


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _listed(store: Store) -> dict[str, float]:
    return taken(store.snapshots)


def _listed_by_command(store: Store) -> dict[str, float]:
    command = [sys.executable, "-m", "ipyrescue", "ls", "--store", os.fspath(store.root)]
    return taken(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def _saved(store: Store) -> dict[str, float]:
    """Put and commit of one new blob, as the first thing that a process does."""
    return taken(lambda: _save(store))


def _saved_again(store: Store) -> dict[str, float]:
    _save(store)
    return taken(lambda: _save(store))


def _tidied(store: Store) -> dict[str, float]:
    """Retention and prune after a snapshot, where the one before left nothing to delete."""
    newest = _save(store)
    tidy(store, newest.notebook, Retention(), current=newest.incarnation)
    newest = _save(store)
    return taken(lambda: tidy(store, newest.notebook, Retention(), current=newest.incarnation))


def _numbered(store: Store) -> dict[str, float]:
    """What the cell waits for: the next number."""
    return taken(store.next_sequence)


def _deduplicated(store: Store) -> dict[str, float]:
    """Look up every blob of the newest snapshot of many, and as many that the store does not have."""
    wanted = [blob.hash for blob in next(s for s in store.snapshots() if len(s.blobs) > 1).blobs]
    strange = [secrets.token_hex(32) for _ in wanted]

    def look_up() -> None:
        known = store.catalog.known_blobs()
        found = [known.get(digest) for digest in wanted]
        if None in found or any(map(known.get, strange)):
            raise AssertionError("deduplication found what is not there, or not what is")

    return taken(look_up)


def _save(store: Store) -> Any:
    with store.writing():
        put = store.put([memoryview(secrets.token_bytes(100))])
        newest = store.snapshots()[0]
        snapshot = dataclasses.replace(
            newest, id=secrets.token_hex(8), sequence=store.next_sequence(), groups=(), blobs=put.refs,
            new_bytes=put.new_bytes,
        )  # fmt: skip
        store.commit(snapshot)
    return snapshot


STEPS: dict[str, Callable[[Store], dict[str, float]]] = {
    "list": _listed,
    "ls": _listed_by_command,
    "number": _numbered,
    "save": _saved,
    "save again": _saved_again,
    "tidy": _tidied,
    "deduplicate": _deduplicated,
}

if __name__ == "__main__":
    main()
