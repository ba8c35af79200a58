"""Random lives of a store, by Hypothesis, beside a model that knows what must be in it.

The steps: a snapshot, one whose process is killed, rot in a manifest or in a pack, forgetting, pins, upkeep, a clock
that jumps, and a reader to whom the store is read-only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ipyrescue.errors import StoreError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, layout, prune
from tests.store.conftest import load_from, save_to
from torture.dying import CALLS, in_child, killing
from torture.judging import KEY, create, readable
from torture.outcome import Outcome

STEPS = 25
SIZES = {"a": 5000, "b": 40, "c": 4096, "d": 70_000, "": 0}
CONTENTS = st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=3)
WHICH = st.integers(0, 99)
_DAYS = 86_400


class StoreMachine(RuleBasedStateMachine):
    """*good* is what each undamaged snapshot holds, *rotten* those whose manifest is damaged, *pinned* the pinned."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ipyrescue-machine-"))
        self.store = create(self.folder / "store")
        self.good: dict[str, list[bytes]] = {}
        self.rotten: set[str] = set()
        self.pinned: set[str] = set()
        self.patch = pytest.MonkeyPatch()

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    @rule(contents=CONTENTS)
    def checkpoint(self, contents: list[str]) -> None:
        unique = [*_bytes(contents), secrets.token_bytes(9)]
        newest = max((snapshot.sequence for snapshot in self.store.snapshots()), default=0)
        made = save_to(self.store, *unique)
        assert made.sequence > newest
        self.good[made.id] = unique

    @rule(contents=CONTENTS, call=st.sampled_from(CALLS), nth=st.integers(1, 9), half=st.booleans())
    def checkpoint_and_die(self, contents: list[str], call: str, nth: int, half: bool) -> None:
        blobs = _bytes(contents)

        def snapshot() -> None:
            killing(call, nth, half=half)
            save_to(Store.open(self.store.root, KEY), *blobs)

        in_child(snapshot)
        for snapshot in self._new():
            assert load_from(self.store, snapshot) == blobs
            self.good[snapshot.id] = blobs

    @rule()
    def open_again(self) -> None:
        self.store = Store.open(self.store.root, KEY)

    @rule(days=st.sampled_from([-3 * _DAYS, -3600, 3600, 12 * 365 * _DAYS]))
    def clock_jumps(self, days: int) -> None:
        real = time.time
        self.patch.setattr(time, "time", lambda: real() + days)

    @rule(which=WHICH, at=st.integers(0, 10**6), bit=st.integers(0, 7))
    def rot_a_manifest(self, which: int, at: int, bit: int) -> None:
        snapshot = self._snapshot(which)
        if snapshot is None:
            return
        _flip(layout.snapshots(self.store.root) / layout.snapshot_name(snapshot.sequence, snapshot.id), at, bit)
        del self.good[snapshot.id]
        self.rotten.add(snapshot.id)
        self.open_again()

    @rule(which=WHICH, at=st.integers(0, 10**6), bit=st.integers(0, 7))
    def rot_a_blob(self, which: int, at: int, bit: int) -> None:
        """Whoever shares it loses it too, and is forgotten; what is saved from then on must not use it again."""
        snapshot = self._snapshot(which)
        blob = max(snapshot.blobs, key=lambda blob: blob.size_bytes) if snapshot else None
        if blob is None or not blob.size_bytes:
            return
        _flip(layout.pack_path(self.store.root, blob.pack), blob.offset + at % blob.size_bytes, bit)
        for other in self.store.snapshots():
            if blob in other.blobs:
                assert self.store.verify(other)
                assert isinstance(readable(self.store, other), str)
                self._forget(other.id)

    @rule(which=WHICH)
    def forget(self, which: int) -> None:
        snapshot = self._snapshot(which)
        if snapshot is not None:
            self._forget(snapshot.id)

    @rule(which=WHICH)
    def pin(self, which: int) -> None:
        snapshot = self._snapshot(which)
        if snapshot is None:
            return
        self.store.pin(snapshot.id)
        self.pinned.add(snapshot.id)
        with pytest.raises(StoreError, match="is pinned"):
            self.store.forget(snapshot.id)

    @rule()
    def prune(self) -> None:
        """It frees all that no snapshot names, and nothing else; nothing where a manifest cannot be read."""
        if self.rotten:
            self._prune_refuses()
        assert prune.prune(self.store) is not None
        needed = {blob.pack for snapshot in self.store.snapshots() for blob in snapshot.blobs if blob.size_bytes}
        assert {path.stem for path in layout.packs(self.store.root).iterdir()} == needed
        assert os.listdir(layout.temporary(self.store.root)) == []

    @rule()
    def read_only(self) -> None:
        """A reader changes nothing, and reads all there is."""
        before = _listing(self.store.root)
        with pytest.MonkeyPatch.context() as patch:
            for call in ("write", "mkdir", "link", "rename", "unlink", "replace", "fsync", "fchmod", "utime"):
                patch.setattr(os, call, _refused)
            self._check(Store.open(self.store.root, KEY))
        assert _listing(self.store.root) == before

    @invariant()
    def nothing_is_lost(self) -> None:
        self._check(self.store)

    def _check(self, store: Store) -> None:
        assert {snapshot.id: readable(store, snapshot) for snapshot in store.snapshots()} == self.good
        assert {item.name[11:27] for item in store.unreadable()} == self.rotten
        assert store.pins() >= self.pinned

    def _prune_refuses(self) -> None:
        """What cannot be read may need any pack; once it is forgotten, prune goes on."""
        before = sorted(layout.packs(self.store.root).iterdir())
        with pytest.raises(StoreError, match="Nothing was pruned"):
            prune.prune(self.store)
        assert sorted(layout.packs(self.store.root).iterdir()) == before
        for lost in sorted(self.rotten):
            self._forget(lost)

    def _new(self) -> list[Snapshot]:
        return [snapshot for snapshot in self.store.snapshots() if snapshot.id not in self.good]

    def _snapshot(self, which: int) -> Snapshot | None:
        """One of the good ones, if there are any.

        No precondition of the rules: whether a killed process had saved is not the same each time, and Hypothesis wants
        the same rules to be possible.
        """
        return self.store.load(sorted(self.good)[which % len(self.good)]) if self.good else None

    def _forget(self, identifier: str) -> None:
        self.store.unpin(identifier)
        self.store.forget(identifier)
        self.good.pop(identifier, None)
        self.pinned.discard(identifier)
        self.rotten.discard(identifier)


def run(cases: int) -> Outcome:
    """*cases* lives of up to STEPS steps each."""
    found = settings(
        max_examples=cases,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    outcome = Outcome(cases, note=f"each of up to {STEPS} steps")
    try:
        run_state_machine_as_test(StoreMachine, settings=found)
    except Exception as error:  # noqa: BLE001 - an exception of any kind is what is looked for
        outcome.failures.append("\n".join([repr(error), *getattr(error, "__notes__", [])]))
    return outcome


def _bytes(contents: list[str]) -> list[bytes]:
    return [letter.encode() * SIZES[letter] for letter in contents]


def _flip(path: Path, at: int, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 1 << bit
    os.chmod(path, 0o600)
    path.write_bytes(raw)
    os.chmod(path, 0o400)


def _listing(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}


def _refused(*_: object, **__: object) -> None:
    raise AssertionError("a reader wrote")
