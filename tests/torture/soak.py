"""A life of the store in quick motion: snapshots, upkeep and random SIGKILLs, while everything must stay flat.

One process lives through it all and makes a snapshot each round, as a kernel does; beside it one child after another
works in the same store until it is killed. What the survivor has open, its memory, and what is on the disk are looked
at when the store has settled, and at the end.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.store import Store
from ipyrescue.store.retention import Retention
from ipyrescue.store.upkeep import tidy, used_bytes
from tests.store.conftest import load_from, save_to
from torture.dying import forked
from torture.judging import KEY, create, problems
from torture.outcome import Outcome, scratch

SETTLED_AFTER = 0.3
MEMORY_GROWTH_BYTES = 8 << 20
_MOST_DELAY_SECONDS = 0.03


@dataclass(frozen=True)
class Shape:
    """What must not grow: descriptors, memory, temporary files, names and bytes in the store."""

    descriptors: int
    memory_bytes: int
    drafts: int
    names: int
    disk_bytes: int


def run(cases: int) -> Outcome:
    """*cases* snapshots by the survivor, and a kill at each."""
    outcome, rng = Outcome(), random.Random(1)
    with scratch() as folder:
        store = create(folder / "store")
        before, acknowledged = None, []
        for number in range(cases):
            doomed = forked(lambda: _work_until_killed(store.root))
            try:
                acknowledged = [_round(store, "survivor", "1" * 16, rng), *acknowledged[:1]]
                time.sleep(rng.random() * _MOST_DELAY_SECONDS)
            finally:
                os.kill(doomed, signal.SIGKILL)
                os.waitpid(doomed, 0)
            wrong = _lost(store.root, acknowledged) if number % 20 else problems(store.root, {}, said=acknowledged)
            outcome.count(f"round {number}", wrong)
            if number == int(cases * SETTLED_AFTER):
                before = _shape(store)
        after = _shape(store)
    assert before is not None
    outcome.failures += _grown(before, after)
    outcome.note = (
        f"{cases} kills; {after.descriptors} descriptors, {after.names} files, {after.disk_bytes / 1e6:.1f} MB"
        f", memory {(after.memory_bytes - before.memory_bytes) / 1e6:+.1f} MB since {SETTLED_AFTER:.0%} of the way"
    )
    return outcome


def _work_until_killed(root: Path) -> None:
    store, rng = Store.open(root, KEY), random.Random()
    while True:
        _round(store, "doomed", f"{os.getpid():016x}", rng)


def _round(store: Store, notebook: str, incarnation: str, rng: random.Random) -> str:
    """A snapshot of things that recur and one that does not, then the upkeep that follows each snapshot."""
    contents = b"shared %d" % rng.randrange(9) * 2000, rng.randbytes(rng.randrange(1, 60_000))
    made = save_to(store, *contents, notebook=notebook, incarnation=incarnation)
    tidy(store, notebook, Retention(keep=4), current=incarnation)
    return made.id


def _lost(root: Path, acknowledged: list[str]) -> list[str]:
    """Whether the newest that were said to be saved are there and whole."""
    store = Store.open(root, KEY)
    visible = {snapshot.id: snapshot for snapshot in store.snapshots()}
    for identifier in acknowledged:
        if identifier not in visible:
            return [f"{identifier} is lost"]
        load_from(store, visible[identifier])
    return []


def _shape(store: Store) -> Shape:
    """Everything that could grow, once what a killed child left was tidied away."""
    tidy(store, "survivor", Retention(keep=4), current="1" * 16)
    files = [path for path in store.root.rglob("*") if path.is_file()]
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    drafts = len(os.listdir(store.root / "tmp"))
    return Shape(len(os.listdir("/proc/self/fd")), resident, drafts, len(files), used_bytes(store.root))


def _grown(before: Shape, after: Shape) -> list[str]:
    """What is more than it was, beyond what chance makes of which snapshots there just are."""
    found = [f"{after.drafts} temporary files are left"] * bool(after.drafts)
    if after.descriptors > before.descriptors:
        found.append(f"descriptors grew from {before.descriptors} to {after.descriptors}")
    if after.memory_bytes > before.memory_bytes + MEMORY_GROWTH_BYTES:
        found.append(f"memory grew from {before.memory_bytes} to {after.memory_bytes} bytes")
    if after.names > 2 * before.names + 20:
        found.append(f"files grew from {before.names} to {after.names}")
    if after.disk_bytes > 2 * before.disk_bytes + (1 << 20):
        found.append(f"the disk grew from {before.disk_bytes} to {after.disk_bytes} bytes")
    return found
