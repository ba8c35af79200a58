"""The Recorder: the object in a kernel that checkpoints after cells. One per kernel.

It asks the schedule after each cell of the user, captures in the pause, and lets the writer put and commit.
Nothing of it ever raises into a cell: what fails is told once, in one line, at the end of the cell.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError

from ipyrescue import checkpointing, restoring
from ipyrescue.capture.schedule import Schedule, due
from ipyrescue.capture.staging import StagingArea
from ipyrescue.capture.writer import Ticket, Writer
from ipyrescue.checkpointing import Draft
from ipyrescue.errors import CheckpointError, RescueError, SnapshotNotFoundError
from ipyrescue.kernel import identity
from ipyrescue.kernel.identity import Identity
from ipyrescue.kernel.life import LifeRecorder
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.restoring import Restored, Scope
from ipyrescue.selection import Occasion, Origin
from ipyrescue.settings import Configuration, format_size
from ipyrescue.store import Store, signing
from ipyrescue.store.prune import prune
from ipyrescue.store.retention import Retention
from ipyrescue.store.upkeep import tidy

_DRAIN_SECONDS = 60.0


@dataclass
class Armed:
    """How the kernel is protected: with which settings, since when, and how the last attempts went."""

    settings: Settings
    schedule: Schedule
    since: float
    last: float
    failures: int = 0
    failure: str | None = None


@dataclass
class _Cell:
    """The cell of the user that is running."""

    number: int
    started: float
    depth: int = 1
    before: dict[str, int] = field(default_factory=dict)


class Recorder:
    """Checkpoints one kernel's namespace, on command and, once armed, after cells."""

    def __init__(self, shell: Any, configuration: Callable[[], Configuration]) -> None:
        self.shell = shell
        self.incarnation = secrets.token_hex(8)
        self.armed: Armed | None = None
        self.last_snapshot: Snapshot | None = None
        self.cells: dict[str, int] = {}
        self._configuration = configuration
        self._identity: Identity | None = None
        self._stores: dict[Path, Store] = {}
        self._area = StagingArea()
        self._writer = Writer()
        self._ticket: Ticket | None = None
        self._cell: _Cell | None = None
        self._told: str | None = None
        self._key_warned = False
        self.life = LifeRecorder(self.incarnation, getattr(shell, "kernel", None))

    # --- from load to unload ---

    def start(self) -> None:
        """Listen to the shell's cells and begin the life record."""
        self.life.begin(self.identity)
        self.shell.events.register("pre_run_cell", self._before_cell)
        self.shell.events.register("post_run_cell", self._after_cell)

    def stop(self) -> None:
        """Finish what is being written and leave nothing behind."""
        self.disarm()
        self.shell.events.unregister("pre_run_cell", self._before_cell)
        self.shell.events.unregister("post_run_cell", self._after_cell)
        self.drain()
        self._writer.close()
        self._area.release()
        self.life.stop("unloaded")

    @property
    def configuration(self) -> Configuration:
        """The settings in force: environment over `%config IPyRescue` over defaults."""
        return self._configuration()

    @property
    def identity(self) -> Identity:
        """Which notebook this is. VS Code says so only after extensions were loaded, so a console is asked again."""
        if self._identity is None or self._identity.kind == "console":
            self._identity = identity.resolve(
                self.shell.user_ns, os.environ, Path.cwd(), self.configuration.store, self._front_end()
            )
        return self._identity

    def _front_end(self) -> str:
        return "ipykernel" if getattr(self.shell, "kernel", None) is not None else "ipython"

    def store(self, *, create: bool = False) -> Store:
        """Open this notebook's store; with *create*, make it and the key if they are not there."""
        root = self.identity.store_root
        known = self._stores.get(root)
        if known is None or create:
            key = known.key if known else signing.load_key(create=create)
            opened = Store.open(root, key, create=create)
            self._stores[root] = known = known if known and known.id == opened.id else opened
        return known

    # --- on command ---

    def checkpoint(self, occasion: Occasion, wanted: Settings) -> Snapshot:
        """Make a snapshot that is durable when this returns."""
        self.drain()
        store = self.store(create=True)
        try:
            draft = self._capture(store, occasion, wanted)
            self._refuse_the_impossible(store, draft, wanted)
            snapshot = checkpointing.write(draft, store)
        finally:
            if self.armed is None:
                self._area.release()
        self._tidy(store, wanted)
        self.last_snapshot = snapshot
        return snapshot

    def plan(self, wanted: Settings) -> Draft:
        """Capture without writing: what a snapshot would hold."""
        self.drain()
        try:
            return self._capture(self.store(create=True), Occasion(trigger="dry run"), wanted)
        finally:
            if self.armed is None:
                self._area.release()

    def find(self, source: str | None) -> list[Snapshot]:
        """The snapshots that *source* means, best first; see `ipyrescue.restoring.find`.

        A console is known only by its directory, so another console's snapshots are offered, never taken unasked.
        """
        where = self.identity
        found = restoring.find(self.store(), source, notebook=where.notebook, incarnation=self.incarnation)
        if source is None and where.kind == "console":
            mine = [s for s in found if s.incarnation == self.incarnation]
            if not mine:
                raise SnapshotNotFoundError(
                    f"Snapshot {found[0].id[:8]} is of another console in this directory. If that is the one you "
                    f"want, say so: %restore_vars from={found[0].id[:8]}"
                )
            return mine
        return found

    def restore(self, source: str | None, scope: Scope) -> Restored:
        """Bind a snapshot's variables, mark its dead incarnation as restored, and arm again as the snapshot was."""
        self.drain()
        restored = restoring.restore(self.shell.user_ns, self.store(), self.find(source), scope)
        if restored.full:
            self._take_over(restored.snapshot)
        return restored

    def _take_over(self, snapshot: Snapshot) -> None:
        """Go on as the life that made *snapshot*: its promise to keep it is fulfilled, its protection is renewed."""
        self.life.mark_restored(snapshot)
        self.cells.update({v.name: v.cell for v in snapshot.variables if v.cell is not None})
        if snapshot.settings.every_seconds is not None:
            self.arm(snapshot.settings)

    def trust(self, source: str) -> Snapshot:
        """Sign a foreign snapshot with this user's key, after every byte of it was read and hashed."""
        return self.store(create=True).trust(source)

    def forget(self, source: str) -> Snapshot:
        """Forget one snapshot and free what nothing else references."""
        self.drain()
        store = self.store()
        snapshot = store.find(source, self.identity.notebook)
        store.forget(snapshot.id)
        prune(store)
        return snapshot

    def arm(self, wanted: Settings) -> None:
        """Checkpoint from now on after cells, as *wanted* says."""
        assert wanted.every_seconds is not None
        schedule = Schedule(wanted.every_seconds, min(self.configuration.long_cell_seconds, wanted.every_seconds))
        now = time.monotonic()
        self.armed = Armed(wanted, schedule, since=now, last=now)
        self._told = None

    def disarm(self) -> None:
        """Checkpoint no more by itself; snapshots stay."""
        self.armed = None

    def retention(self, wanted: Settings) -> Retention:
        """Which snapshots stay: what the magic said, else the configuration; at most half of the disk's free space."""
        configured = self.configuration
        limit = wanted.max_size_bytes or configured.max_size_bytes or self._half_of_free()
        return Retention(keep=wanted.keep or configured.keep, max_size_bytes=limit)

    def _half_of_free(self) -> int:
        root = self.identity.store_root
        used = sum(path.lstat().st_size for path in (root / "packs").glob("*.pack")) if root.exists() else 0
        return (self.free_bytes() + used) // 2

    def free_bytes(self) -> int:
        """Free space where the store is, or will be."""
        root = self.identity.store_root
        return shutil.disk_usage(root if root.exists() else root.parent).free

    def _refuse_the_impossible(self, store: Store, draft: Draft, wanted: Settings) -> None:
        times, why = (3, "two that stay and one being written") if wanted.every_seconds else (1, "one snapshot")
        kept = sum(s.new_bytes for s in store.snapshots(self.identity.notebook)[:2])
        needed, free = draft.size_bytes * times, self.free_bytes() + kept
        if needed > free:
            raise CheckpointError(
                f"No snapshot was made: {format_size(needed)} are needed ({why}), {format_size(free)} are free at "
                f"{store.root}. Free space, leave names out with -x, or set IPYRESCUE_STORE to a larger disk."
            )

    def key_warning(self) -> str | None:
        """At the first checkpoint: a sentence if the key would not survive what the store survives."""
        if self._key_warned:
            return None
        self._key_warned = True
        return signing.key_survives(self.identity.store_root)

    def drain(self) -> None:
        """Wait for the snapshot that is being written."""
        self._writer.drain(_DRAIN_SECONDS)
        self._collect()

    # --- after cells ---

    def _before_cell(self, info: Any) -> None:
        if _is_hidden(info):
            return
        if self._cell is not None:
            self._cell.depth += 1
            return
        before = {name: id(value) for name, value in self.shell.user_ns.items()}
        self._cell = _Cell(self.shell.execution_count, time.monotonic(), before=before)
        self.life.cell_begins(self.identity, self._cell.number, info.raw_cell or "")

    def _after_cell(self, result: Any) -> None:
        if self._cell is None or _is_hidden(result.info):
            return
        self._cell.depth -= 1
        if self._cell.depth:
            return
        cell, self._cell = self._cell, None
        try:
            self._note_names(cell)
            self.life.cell_ends()
            self._collect()
            self._checkpoint_if_due(cell, result)
        except (Exception, KeyboardInterrupt) as error:
            self._fail(error)

    def _note_names(self, cell: _Cell) -> None:
        for name, value in self.shell.user_ns.items():
            if cell.before.get(name) != id(value):
                self.cells[name] = cell.number

    def _checkpoint_if_due(self, cell: _Cell, result: Any) -> None:
        armed = self.armed
        if armed is None:
            return
        now = time.monotonic()
        error = _error_of_the_user(result)
        decision = due(
            armed.schedule,
            now=now,
            last=armed.last,
            cell_seconds=now - cell.started,
            raised=error is not None,
            failures=armed.failures,
        )
        if decision is None or self._writer.busy:
            return
        armed.last = now
        self._cell = cell
        try:
            occasion = _occasion(decision.trigger, error)
            store = self.store(create=True)
            draft = self._capture(store, occasion, armed.settings)
        finally:
            self._cell = None
        self._ticket = self._writer.submit(lambda: self._write(draft, store, armed.settings))

    def _write(self, draft: Draft, store: Store, wanted: Settings) -> Snapshot:
        snapshot = checkpointing.write(draft, store)
        self._tidy(store, wanted)
        return snapshot

    def _tidy(self, store: Store, wanted: Settings) -> None:
        tidy(store, self.identity.notebook, self.retention(wanted), current=self.incarnation)

    def _collect(self) -> None:
        """Take the verdict of the writer, on the main thread."""
        ticket = self._ticket
        if ticket is None or not ticket.done():
            return
        self._ticket = None
        try:
            self.last_snapshot = ticket.result()
        except BaseException as error:
            self._fail(error)
            return
        if self.armed is not None:
            recovered, self.armed.failures, self.armed.failure = self.armed.failure, 0, None
            if recovered:
                self._say("ipyrescue: saving works again.")
        self._tell_of_lost_tags(self.last_snapshot)

    def _fail(self, error: BaseException) -> None:
        text = str(error) or type(error).__name__
        if not isinstance(error, RescueError):
            text = f"{type(error).__name__}: {text}"
        if self.armed is None:
            self._say(f"ipyrescue: {text}")
            return
        first = self.armed.failure is None
        self.armed.failures += 1
        self.armed.failure = text
        if first:
            self._say(f"ipyrescue: NOT saved: {text} Training goes on; what was saved before is intact.")

    def _tell_of_lost_tags(self, snapshot: Snapshot | None) -> None:
        if snapshot is None or self.armed is None:
            return
        tagged = set(snapshot.settings.tagged)
        lost = "; ".join(str(s) for s in snapshot.skipped if s.name in tagged)
        if lost and lost != self._told:
            self._say(f"ipyrescue: tagged, but not in snapshot {snapshot.id[:8]}: {lost}")
        self._told = lost or None

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _capture(self, store: Store, occasion: Occasion, wanted: Settings) -> Draft:
        origin = Origin(
            notebook=self.identity.notebook,
            incarnation=self.incarnation,
            host=socket.gethostname(),
            hidden=self.shell.user_ns_hidden,
            cells=self.cells,
            cell=self._cell.number if self._cell else None,
        )
        namespace = self.shell.user_ns
        return checkpointing.capture(
            namespace, store, self._area, origin=origin, occasion=occasion, settings=wanted
        )  # fmt: skip


def merged(old: Settings | None, new: Settings) -> Settings:
    """Settings of a second `%checkpoint_vars`: names are added, what is said anew replaces."""
    if old is None:
        return new
    return replace(
        new,
        keep=new.keep or old.keep,
        max_size_bytes=new.max_size_bytes or old.max_size_bytes,
        only=new.only,
        tagged=tuple(dict.fromkeys((*old.tagged, *new.tagged))),
        exclude=tuple(dict.fromkeys((*old.exclude, *new.exclude))),
        allow=tuple(dict.fromkeys((*old.allow, *new.allow))),
    )


def _is_hidden(info: Any) -> bool:
    """Whether a cell is not the user's: widgets, debuggers and VS Code run silent or unstored ones."""
    return bool(info.silent or not info.store_history)


def _error_of_the_user(result: Any) -> BaseException | None:
    """What the cell raised; a magic's own complaint is no failure of the user's program."""
    error: BaseException | None = result.error_in_exec
    return None if isinstance(error, (UsageError, RescueError)) else error


def _occasion(trigger: str, error: BaseException | None) -> Occasion:
    if error is None:
        return Occasion(trigger=trigger)
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[-1][:300]
    return Occasion(trigger=trigger, cut="interrupted", reason=reason)
