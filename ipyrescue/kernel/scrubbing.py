"""The scrub of a kernel that is armed: a thread that has what is kept read again, by a process that gives way to all.

It stands aside while a snapshot is wanted or written, and ends with the kernel. Knows no cell and no panel.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.kernel.notebook import Notebook
from ipyrescue.manifest import BlobRef, Snapshot
from ipyrescue.store import Store, scrub
from ipyrescue.store.rereading import Reader
from ipyrescue.store.scrub import Finding, Looked, Record, Tally

BYTES_PER_SECOND = 20e6
_LOOK_SECONDS = 30.0
_ASIDE_SECONDS = 0.2
_JOIN_SECONDS = 5.0
_REST = 19
"""So many times as long as this thread works it rests: to list thousands of small snapshots takes turns from cells."""


class Scrubber:
    """Scrubs the store of *notebook* from `start` to `stop`, each snapshot once in so many seconds.

    *is_busy* says when to stand aside; *hear* is told, on the thread, how far the reading has come.
    """

    def __init__(
        self, notebook: Notebook, every_seconds: float, is_busy: Callable[[], bool], hear: Callable[[Tally], None]
    ) -> None:
        self._notebook, self._every_seconds, self._is_busy, self._hear = notebook, every_seconds, is_busy, hear
        self._process = os.getpid()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._reader: Reader | None = None
        self._found: dict[str, float | Finding] = {}

    def start(self) -> None:
        """Begin, a while from now."""
        thread = threading.Thread(target=self._watch, name="ipyrescue-scrub", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had: then there is no scrub
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """Read no more, and leave no process behind."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)

    def _watch(self) -> None:
        while not self._stopped.wait(min(_LOOK_SECONDS, self._every_seconds)):
            if os.getpid() != self._process:
                return
            # Whatever it is, the next look may do better; a store that cannot be read is not this thread's to tell.
            with contextlib.suppress(Exception):
                self._pass()
            self._rest()

    def _pass(self) -> None:
        """Read all that is due, one snapshot after the other."""
        store, tried = self._notebook.store(), set[str]()
        while not self._stopped.is_set():
            begun = time.thread_time()
            snapshots = store.snapshots()
            waiting = [s for s in self._due(store, snapshots) if s.id not in tried]
            self._tell(store, snapshots)
            if not waiting:
                return
            tried.add(waiting[0].id)
            if not self._read(store, waiting[0]) or self._stopped.wait((time.thread_time() - begun) * _REST):
                return

    def _due(self, store: Store, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        first, record = self._notebook.identity.notebook, self._record(store)
        return scrub.due(snapshots, record, first=first, every_seconds=self._every_seconds, now=time.time())

    def _record(self, store: Store) -> Record:
        """What the store's record says, and what this kernel found, also where the disk did not take it."""
        known = scrub.read(store.root)
        verified = {key: at for key, at in self._found.items() if isinstance(at, float) and key not in known.damaged}
        damaged = {key: found for key, found in self._found.items() if isinstance(found, Finding)}
        standing = {key: found for key, found in damaged.items() if scrub.stands(store.root, found)}
        return replace(known, verified={**known.verified, **verified}, damaged={**known.damaged, **standing})

    def _read(self, store: Store, snapshot: Snapshot) -> bool:
        """Read one snapshot and note what came of it; tell whether there may be a next one."""
        try:
            damage = scrub.read_back(store, snapshot, self._look, older_than=time.time() - self._every_seconds)
        except CorruptError:  # its manifest, which is listed as damaged from here on
            return True
        snapshots = store.snapshots()
        if damage is None or snapshot.id not in {s.id for s in snapshots}:
            return damage is not None  # forgotten meanwhile, so that its packs may be gone too
        at = store.verified_at(snapshot)
        if not damage and at is not None:
            self._note(store, snapshots, snapshot.id, at)
        for other, lost in scrub.sharing(snapshots, damage):
            self._note(store, snapshots, other.id, scrub.finding(store.root, other, lost, time.time()))
        return True

    def _note(self, store: Store, snapshots: Sequence[Snapshot], snapshot_id: str, found: float | Finding) -> None:
        there = {s.id for s in snapshots}
        self._found = {key: known for key, known in self._found.items() if key in there} | {snapshot_id: found}
        with contextlib.suppress(StoreError):  # a full disk: this kernel knows it all the same
            scrub.note(store.root, there, snapshot_id, found)

    def _tell(self, store: Store, snapshots: Sequence[Snapshot]) -> None:
        mine = [s for s in snapshots if s.notebook == self._notebook.identity.notebook]
        self._hear(scrub.tally(store.root, mine, self._record(store)))

    def _look(self, some: Sequence[BlobRef]) -> Looked | None:
        """Have some blobs read when it is their turn; None when there is to be no reading any more."""
        if self._stopped.wait(sum(blob.size_bytes for blob in some) / BYTES_PER_SECOND):
            return None
        while self._is_busy():
            if self._stopped.wait(_ASIDE_SECONDS):
                return None
        if self._reader is None:
            self._reader = Reader(self._notebook.store().root)
        return self._reader.look(some)

    def _rest(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
