"""Every byte flipped, every file cut, swapped or gone: found before anything is unpickled, the older one taken.

The bytes are damaged as rot does it: in place, behind the store's back. A canary is a value that makes a file when it
is unpickled.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from namespaces import Life, open_store, reborn

from ipyrescue.errors import CorruptError, RescueError, UntrustedError
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store, layout
from tests.store.conftest import load_from, save_to
from torture.judging import KEY, create
from torture.outcome import Outcome, scratch

CANARY = """
class Canary:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, "w")
"""


@dataclass(frozen=True)
class Pair:
    """A store of an older and a newer snapshot, each with a pack of its own."""

    root: Path
    older: Snapshot
    newer: Snapshot

    def manifest(self, snapshot: Snapshot) -> Path:
        """Where a snapshot's manifest stands."""
        return layout.snapshots(self.root) / layout.snapshot_name(snapshot.sequence, snapshot.id)

    def pack(self, snapshot: Snapshot) -> Path:
        """Where its bytes stand."""
        return layout.pack_path(self.root, snapshot.blobs[0].pack)


def run(cases: int) -> Outcome:
    """*cases* of the flips, of which there are 300 000, and all the rest."""
    outcome = Outcome()
    with scratch() as folder:
        store = create(folder / "store")
        pair = Pair(store.root, save_to(store, b"older" * 9), save_to(store, b"stream" * 20, b"buffer" * 30))
        _flip_manifest(outcome, pair, cases)
        _flip_pack(outcome, pair, cases)
        _cut(outcome, pair, cases)
        _misplace(outcome, pair)
        _canaries(outcome, folder, cases)
    return outcome


def _flip_manifest(outcome: Outcome, pair: Pair, cases: int) -> None:
    path = pair.manifest(pair.newer)
    good = path.read_bytes()
    every = ((position, value) for position in range(len(good)) for value in range(256) if value != good[position])
    with open_to_rot(path):
        for position, value in _sampled(every, 255 * len(good), cases):
            _overwrite(path, good, position, value)
            outcome.count(f"manifest byte {position} = {value}", _not_passed_over(pair))
            _overwrite(path, good, position, good[position])


def _flip_pack(outcome: Outcome, pair: Pair, cases: int) -> None:
    path = pair.pack(pair.newer)
    good = path.read_bytes()
    used = [blob.offset + at for blob in pair.newer.blobs for at in range(blob.size_bytes)]
    every = ((position, 1 << bit) for position in used for bit in range(8))
    with open_to_rot(path):
        for position, mask in _sampled(every, 8 * len(used), cases):
            _overwrite(path, good, position, good[position] ^ mask)
            outcome.count(f"pack byte {position} ^ {mask}", _not_damaged(pair))
            _overwrite(path, good, position, good[position])


def _cut(outcome: Outcome, pair: Pair, cases: int) -> None:
    manifest, pack = pair.manifest(pair.newer), pair.pack(pair.newer)
    end = max(blob.offset + blob.size_bytes for blob in pair.newer.blobs)
    sizes = manifest.stat().st_size
    for path, longest, wrong in ((manifest, sizes, _not_passed_over), (pack, end, _not_damaged)):
        good = path.read_bytes()
        with open_to_rot(path):
            for size in _sampled(iter(range(longest)), longest, cases):
                path.write_bytes(good[:size])
                outcome.count(f"{path.suffix} cut to {size}", wrong(pair))
            path.write_bytes(good)


def _misplace(outcome: Outcome, pair: Pair) -> None:
    """Swapped and missing files, and an old manifest replayed under newer names."""
    manifests = pair.manifest(pair.older), pair.manifest(pair.newer)
    packs = pair.pack(pair.older), pair.pack(pair.newer)
    with _swapped(*manifests):
        store = Store.open(pair.root, KEY)
        outcome.count("manifests swapped", ["one was believed"] * bool(store.snapshots()))
    with _swapped(*packs):
        both = [_damaged(pair, snapshot) for snapshot in (pair.older, pair.newer)]
        outcome.count("packs swapped", ["one was believed"] * (not all(both)))
    with _gone(packs[1]):
        outcome.count("pack missing", _not_damaged(pair))
    with _gone(manifests[1]):
        outcome.count("manifest missing", ["the older one is gone too"] * (visible(pair.root) != [pair.older]))
    for number in (2, 3, 9_999_999_999):
        for identifier in (pair.older.id, pair.newer.id, "0" * 16):
            replayed = layout.snapshots(pair.root) / layout.snapshot_name(number, identifier)
            if replayed.exists():
                continue
            shutil.copy(manifests[0], replayed)
            wrong = visible(pair.root) != [pair.newer, pair.older]
            outcome.count(f"replayed as {replayed.name}", ["it was believed"] * wrong)
            replayed.unlink()


def visible(root: Path) -> list[Snapshot]:
    """What a new process sees, newest first."""
    return Store.open(root, KEY).snapshots()


def _not_passed_over(pair: Pair) -> list[str]:
    """What is wrong when the newer manifest is damaged: it must be named, and the older one be the latest."""
    store = Store.open(pair.root, KEY)
    if store.snapshots() != [pair.older]:
        return ["a damaged manifest was believed, or the older one is lost"]
    (broken,) = store.unreadable()
    named = pair.newer.id[:8] in str(broken.path) and type(broken.error) in (CorruptError, UntrustedError)
    return [] if named else [f"not named: {broken}"]


def _not_damaged(pair: Pair) -> list[str]:
    found = [] if _damaged(pair, pair.newer) else ["damaged bytes were believed"]
    if load_from(Store.open(pair.root, KEY), pair.older) != [b"older" * 9]:
        found.append("the older snapshot is lost")
    return found


def _damaged(pair: Pair, snapshot: Snapshot) -> bool:
    """Whether both a restore and `verify` refuse it, naming its pack."""
    store = Store.open(pair.root, KEY)
    damage = store.verify(snapshot)
    try:
        load_from(store, snapshot)
    except CorruptError as error:
        return bool(damage) and snapshot.blobs[0].pack in str(error) and "x" in str(damage[0])
    return False


def _canaries(outcome: Outcome, folder: Path, cases: int) -> None:
    """A whole restore: the canary is silent, the older snapshot is bound, the report names the damaged one."""
    song = folder / "song"
    key = open_store(folder / "keyed").key
    life = Life(Store.open(folder / "nest", key, create=True))
    life.run(f"{CANARY}\nfrom pathlib import Path\nkept = 'older'")
    life.checkpoint()
    life.run(f"canary, kept = Canary({str(song)!r}), 'newer'")
    snapshot = life.checkpoint(exclude=("Canary", "Path"))
    if _restored(life, song) != ("newer", True):
        outcome.failures.append("the control: an intact canary does not sing")
    group = next(group for group in snapshot.groups if "canary" in group.names)
    blob = snapshot.blobs[group.stream.blobs[0]]
    places = [(layout.pack_path(life.store.root, blob.pack), blob.offset + at) for at in range(blob.size_bytes)]
    manifest = layout.snapshots(life.store.root) / layout.snapshot_name(snapshot.sequence, snapshot.id)
    places += [(manifest, at) for at in range(manifest.stat().st_size)]
    for path, position in _sampled(iter(places), len(places), cases // 10):
        good = path.read_bytes()
        with open_to_rot(path):
            _overwrite(path, good, position, good[position] ^ 0x20)
            was = _restored(life, song)
            outcome.count(f"canary: {path.suffix} byte {position}", [f"{was}"] * (was != ("older", False)))
            _overwrite(path, good, position, good[position])


def _restored(life: Life, song: Path) -> tuple[object, bool]:
    """What `kept` is after a plain restore in a new life, and whether the canary sang."""
    song.unlink(missing_ok=True)
    after = reborn(life)
    try:
        restored = after.restore()
    except RescueError as error:
        return str(error), song.exists()
    if hasattr(after.names.get("canary"), "close"):
        after.names["canary"].close()
    told = any("passed over" in line for line in restored.warnings) or bool(after.store.unreadable())
    sang = song.exists()
    return after.names["kept"] if told or sang else "nothing was said", sang


def _sampled(every: Iterator, count: int, cases: int) -> Iterator:
    """All of them where there are fewer than *cases*, else that many, the same each time."""
    if count <= cases:
        return every
    chosen = set(random.Random(count).sample(range(count), cases))
    return (item for number, item in enumerate(every) if number in chosen)


def _overwrite(path: Path, good: bytes, position: int, value: int) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.seek(position)
        file.write(bytes([value]))


@contextmanager
def open_to_rot(path: Path) -> Iterator[None]:
    """Past the mode that keeps everybody from writing."""
    os.chmod(path, 0o600)
    yield
    os.chmod(path, 0o400)


@contextmanager
def _swapped(one: Path, other: Path) -> Iterator[None]:
    aside = one.with_name("aside")
    for _ in range(2):
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
        if _ == 0:
            yield


@contextmanager
def _gone(path: Path) -> Iterator[None]:
    aside = path.with_name("aside")
    path.rename(aside)
    yield
    aside.rename(path)
