"""Power cuts on real file systems: ext4 and xfs on loop devices, shut down while a process makes snapshots.

The system call FS_IOC_SHUTDOWN ends a file system as a power cut does: what is in the page cache alone is lost, and the
journal is flushed before or dropped. Then it is mounted again, mends itself, and has to have every snapshot that was
acknowledged before. What a drive does with its own cache is not seen: the loop device has none.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import secrets
import signal
import time
from pathlib import Path

from ipyrescue.errors import RescueError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, prune
from tests.store.conftest import save_to
from torture import disks
from torture.dying import forked
from torture.judging import KEY, create, goes_on, problems
from torture.outcome import Outcome

LOGS = {"log dropped": disks.LOG_DROPPED, "log flushed": disks.LOG_FLUSHED}
_DISK_BYTES = 320 << 20
_MOST_LINES = 60
_MOST_CONTROLS = 10
_MOST_DELAY_SECONDS = 0.01
_KEPT, _PINNED_EACH, _PRUNED_EACH, _ERA = 6, 5, 7, 4
_MAX_DEAD = 0.2


def run(cases: int) -> Outcome:
    """*cases* cuts, a quarter in each file system with each log; the controls run without any fsync."""
    return disks.apart(lambda place: _run(cases, place))


def _run(cases: int, place: Path) -> Outcome:
    outcome, rng, told, checked = Outcome(), random.Random(1), [], 0
    for kind, (log, how) in itertools.product(("ext4", "xfs"), LOGS.items()):
        disk = disks.Disk.made(kind, place, _DISK_BYTES)
        series = _Series(disk, how, rng)
        for number in range(cases // 4):
            outcome.count(f"{kind}, {log}, cut {number + 1}", series.cut())
        checked += series.acknowledged
        broken, controls = _controls(disk, how, rng, least=max(1, cases // 20))
        told.append(f"{kind}, {log}: {broken} of {controls} broken")
        if not broken:
            outcome.failures.append(f"the control: nothing breaks without fsync in {kind}, {log}")
    outcome.control = f"without fsync: {'; '.join(told)}"
    outcome.note = f"{checked:,} snapshots had been acknowledged before the cuts"
    return outcome


def _controls(disk: disks.Disk, how: int, rng: random.Random, *, least: int) -> tuple[int, int]:
    """How many cuts break a store that never calls fsync, and of how many: more than *least* only until one does."""
    broken = 0
    for number in range(1, least + _MOST_CONTROLS):
        broken += bool(_Series(disk, how, rng, f"control-{number}").cut(synced=False))
        if broken and number >= least:
            break
    return broken, number


class _Series:
    """One store in which one cut comes after the other. *acknowledged* counts what was said to be saved in time."""

    def __init__(self, disk: disks.Disk, how: int, rng: random.Random, name: str = "store") -> None:
        self._disk, self._how, self._rng, self._name = disk, how, rng, name
        self._kept: dict[str, list[bytes]] = {}
        self._pinned: set[str] = set()
        self.acknowledged = 0
        with disk.mounted() as folder:
            create(folder / name)
            os.sync()

    def cut(self, *, synced: bool = True) -> list[str]:
        """Snapshots, a cut in the midst of them, and what is wrong with the store once the disk is there again."""
        with self._disk.mounted() as folder:
            told, cut_at = self._snapshots_until_the_cut(folder, synced=synced)
        if "" in told:
            return ["the process ended before the cut"]
        self._note(told, cut_at)
        with self._disk.mounted() as folder:
            root = folder / self._name
            try:
                found = problems(root, self._kept)
                unpinned = self._pinned - Store.open(root, KEY).pins()
                found += [f"{identifier} is not pinned" for identifier in sorted(unpinned)]
                return [*found, *(goes_on(root) if synced else [])]
            except RescueError as error:
                return [str(error)]

    def _snapshots_until_the_cut(self, folder: Path, *, synced: bool) -> tuple[list[str], float]:
        """What the process told, and when the cut was."""
        hear, tell = os.pipe()
        child = forked(lambda: _snapshots(folder / self._name, tell, synced=synced))
        os.close(tell)
        with os.fdopen(hear, encoding="ascii") as heard:
            told = [heard.readline() for _ in range(self._rng.randrange(1, _MOST_LINES))]
            time.sleep(self._rng.random() * _MOST_DELAY_SECONDS)
            cut_at = disks.pull_the_plug(folder, self._how)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return [*told, *heard], cut_at

    def _note(self, told: list[str], cut_at: float) -> None:
        """What must be there from now on. The process lives on a little after the cut: that does not count."""
        for line in told:
            what, identifier, seed, time_said = line.split()
            if what == "forgetting":
                self._kept.pop(identifier, None)
                self._pinned.discard(identifier)
            elif float(time_said) < cut_at and what == "pinned":
                self._pinned.add(identifier)
            elif float(time_said) < cut_at:
                self._kept[identifier] = _contents(seed)
                self.acknowledged += 1


def _snapshots(root: Path, tell: int, *, synced: bool) -> None:
    """Snapshots and pins, the older ones forgotten, bytes freed; each is told, with the time, once it is done.

    What is to be forgotten is told before. Ends with the first error, which the cut is.
    """

    def say(what: str, snapshot: Snapshot, seed: str = "-") -> None:
        os.write(tell, f"{what} {snapshot.id} {seed} {time.monotonic()!r}\n".encode("ascii"))

    if not synced:
        os.fsync = lambda fd: None
    with contextlib.suppress(RescueError):
        store = Store.open(root, KEY)
        for number in itertools.count(1):
            seed = f"{os.getpid()}.{number // _ERA}.{secrets.token_hex(8)}"
            made = save_to(store, *_contents(seed))
            say("saved", made, seed)
            if number % _PINNED_EACH == 0:
                store.pin(made.id)
                say("pinned", made)
            for old in store.snapshots()[_KEPT:]:
                say("forgetting", old)
                store.unpin(old.id)
                store.forget(old.id)
            if number % _PRUNED_EACH == 0:
                prune.prune(store, max_dead=_MAX_DEAD)


def _contents(seed: str) -> list[bytes]:
    """A blob that all share, one of an era, which outlives others in its pack, one of several pages, a small one."""
    own = seed.encode("ascii")
    return [b"shared" * 1000, own.rpartition(b".")[0] * 2000, own * 1000, own]
