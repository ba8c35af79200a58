"""A store to attack: two snapshots, a canary in the newer, all the small files; and treasures outside of it.

The canary is a value that makes a file, the song, when it is unpickled. A treasure is a file of the victim's that the
store has nothing to do with: nobody may change it, not even its times.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from namespaces import Life

from ipyrescue.manifest import Snapshot
from ipyrescue.runs import record
from ipyrescue.store import Store, layout, lives, pins, requests, signing
from ipyrescue.store.signing import Key

DEADLINE_SECONDS = 20
"""Nothing of this takes a second; what hangs is ended here."""

_LARGE_BYTES = 1 << 22

KERNEL = "c" * 16
RUN = "train"
CANARY = """
class Canary:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, "w")
"""


@dataclass(frozen=True)
class Nest:
    """A copy of the store, for one attack: *root*; *outside* is the folder of treasures."""

    root: Path
    outside: Path
    song: Path
    key: Key
    older: Snapshot
    newer: Snapshot

    @property
    def treasure(self) -> Path:
        """A file that is none of the store's business."""
        return self.outside / "treasure"

    def store(self) -> Store:
        """The store as a new process opens it."""
        return Store.open(self.root, self.key)

    def manifest(self, snapshot: Snapshot) -> Path:
        """Where a snapshot's manifest stands."""
        return layout.snapshots(self.root) / layout.snapshot_name(snapshot.sequence, snapshot.id)

    def pack(self, snapshot: Snapshot) -> Path:
        """Where the bytes stand that it does not share with the older one."""
        others = {blob.pack for blob in self.older.blobs} if snapshot is self.newer else set()
        return layout.pack_path(self.root, next(blob.pack for blob in snapshot.blobs if blob.pack not in others))


def build(folder: Path) -> Nest:
    """The nest from which copies are made."""
    key = signing.load_key(create=True)
    song = folder / "song"
    life = Life(Store.open(folder / "store", key, create=True), incarnation=KERNEL)
    life.run(f"{CANARY}\nfrom pathlib import Path\nkept = 'older' * 2000")
    older = life.checkpoint()
    life.run(f"canary, kept = Canary({str(song)!r}), 'newer' * 2000")
    newer = life.checkpoint(exclude=("Canary", "Path"))
    _small_files(life.store.root, older)
    (folder / "outside").mkdir()
    (folder / "outside" / "treasure").write_bytes(b"gold" * 100)
    return Nest(life.store.root, folder / "outside", song, key, older, newer)


def _small_files(root: Path, older: Snapshot) -> None:
    """A life record, a request and its answer, a pin, a run: of a kernel that died."""
    facts = lives.process_facts(os.getpid())
    lives.write(root, lives.Life(KERNEL, "train.ipynb", "notebook", os.getpid(), *facts, "a", record.now()))
    request = requests.ask(root, KERNEL, requests.Request.new(patience_seconds=600))
    requests.pending(root, KERNEL)
    pins.add(root, older.id)
    layout.run_folder(root, RUN).mkdir()
    run = record.Record(RUN, "notebook", "/n.ipynb", "/", str(root), record.Options(), record.now(), state="finished")
    record.write(layout.run_folder(root, RUN), run)
    assert requests.waits(root, KERNEL, request)


@contextmanager
def copied(template: Nest, folder: Path) -> Iterator[Nest]:
    """A copy in *folder*, which is gone afterwards, however the attack left it."""
    folder.mkdir()
    nest = replace(template, root=folder / "store", outside=folder / "outside")
    shutil.copytree(template.root, nest.root)
    shutil.copytree(template.outside, nest.outside)
    nest.song.unlink(missing_ok=True)
    try:
        yield nest
    finally:
        os.chmod(folder, 0o700)
        shutil.rmtree(folder)


class Hung(BaseException):
    """Something did not end. No OSError, as TimeoutError is one, which what hangs may be ready for."""


@contextmanager
def deadline(seconds: int = DEADLINE_SECONDS) -> Iterator[None]:
    """End what hangs. Raises Hung, in the middle of whatever the main thread does then."""

    def end(*_: object) -> None:
        raise Hung(f"for {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def inventory(folder: Path) -> dict[str, object]:
    """All that is in *folder*: kinds, modes, times and contents, following nothing."""
    found: dict[str, object] = {}
    for path in sorted((folder, *folder.rglob("*"))):
        status = path.lstat()
        plain = path.is_file() and not path.is_symlink()
        content = (path.read_bytes() if status.st_size < _LARGE_BYTES else status.st_size) if plain else None
        # A heartbeat touches its file, and cannot know that this is a second name of another one.
        times = (status.st_mtime_ns,) if content is not None and status.st_nlink == 1 else ()
        found[str(path)] = (status.st_mode, *times, content)
    return found


Attack = Callable[[Nest], object]
