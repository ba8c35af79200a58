"""This kernel's notebook: its names, its store, and the verbs that join them. Knows no cells and no schedule."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from ipyrescue import cells, checkpointing, environment, identity, restoring, safe_restoring, stack
from ipyrescue.capture.fence import Fence
from ipyrescue.capture.staging import LiveArea, StagingArea
from ipyrescue.cells import Cell, History
from ipyrescue.checking import supervising
from ipyrescue.checking.verdicts import Checked
from ipyrescue.checkpointing import Draft, Staged
from ipyrescue.comparing import in_order
from ipyrescue.environment import Difference, working_directory
from ipyrescue.errors import CheckpointError, RestoreError, SnapshotNotFoundError, StoreError, UntrustedError
from ipyrescue.identity import Identity
from ipyrescue.incarnations.deaths import deaths, dismiss, mark_restored
from ipyrescue.incarnations.writers import Waited, wait_for_writers
from ipyrescue.kernel import surroundings
from ipyrescue.kernel.cell_code import CellCode
from ipyrescue.kernel.frames import Frames
from ipyrescue.kernel.memory import free_memory
from ipyrescue.kernel.repository import Repository
from ipyrescue.kernel.script import Script, ScriptCode
from ipyrescue.kernel.spelling import in_python
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.restoring import Before, Restored, Scope
from ipyrescue.selection import Occasion, Origin, made_by_user
from ipyrescue.settings import Configuration, format_duration, format_size
from ipyrescue.store import Store, filesystems, keyring, lives, signing
from ipyrescue.store.catalog import Foreign, Unreadable
from ipyrescue.store.outlook import Outlook, make_room, outlook
from ipyrescue.store.prune import prune
from ipyrescue.store.retention import Retention
from ipyrescue.store.room import Room, room
from ipyrescue.store.upkeep import tidy, used_bytes
from ipyrescue.training import progress
from ipyrescue.training.returned import Returned


@dataclass(frozen=True)
class _Undo:
    """How to take the last restore back: of which snapshot, what it found, and the cells that had made names then."""

    snapshot: Snapshot
    before: Before
    cells: dict[str, int]


@dataclass(frozen=True)
class Spot:
    """Where the program stands: at the innermost *frame*, which may be ours, and at the *header* of a loop of a cell's.

    *raised* is the exception that has just ended the cell.
    """

    frame: FrameType | None = field(default=None, repr=False)
    header: int | None = None
    raised: BaseException | None = field(default=None, repr=False)


class Notebook:
    """One kernel's namespace and the store that its snapshots go to.

    *cells* maps a name to the execution count of the cell that bound it; *cell* is the one that is running, *history*
    all that were run. *has_restored*: a snapshot was bound in this kernel, all of it or a part. *code* tells the code
    of cells, *frames* are the functions that ran when what was restored last was saved.
    """

    def __init__(self, shell: Any, configuration: Callable[[], Configuration]) -> None:
        self.incarnation = secrets.token_hex(8)
        self.cells: dict[str, int] = {}
        self.cell: int | None = None
        self.history = History()
        self.area = StagingArea()
        self.fence = Fence()
        self.has_restored = False
        self.code = ScriptCode(shell) if isinstance(shell, Script) else CellCode(shell, self.cells)
        self.frames = Frames()
        self.untidied: str | None = None
        """Why what is too old was not cleared away after the last snapshot."""
        self._shell = shell
        self._configuration = configuration
        self._started_in = Path(working_directory())
        self._identity: Identity | None = None
        self._store: Store | None = None
        self._place_warned = False
        self._undo: _Undo | None = None
        self._asked: Repository | None = None
        self._continued = {self.incarnation}
        self._waited: Waited | None = None

    @property
    def configuration(self) -> Configuration:
        """The settings in force: environment over `%config IPyRescue` over defaults. Raises `RescueError`."""
        return self._configuration()

    @property
    def identity(self) -> Identity:
        """Which notebook this is. VS Code says so only after extensions were loaded, so a console is asked again."""
        if self._identity is None or self._identity.kind == "console":
            self._identity = self._resolve()
        return self._identity

    def _resolve(self) -> Identity:
        if isinstance(self._shell, Script):
            return self._shell.identity(self._started_in, self.configuration.store)
        front_end = "ipykernel" if getattr(self._shell, "kernel", None) is not None else "ipython"
        return identity.resolve(
            self._shell.user_ns, os.environ, self._started_in, self.configuration.store, console=front_end
        )

    @property
    def is_script(self) -> bool:
        """Whether there is no IPython: no cells, no magics, and nobody who reads the output of a cell."""
        return isinstance(self._shell, Script)

    def worded(self, text: str) -> str:
        """*text* as it is told here: what to type is a function where there are no magics."""
        return in_python(text) if self.is_script else text

    @property
    def key_path(self) -> Path:
        """Where the key stands that signs this notebook's snapshots."""
        return self.configuration.key_file or signing.key_path()

    def store(self, *, create: bool = False) -> Store:
        """Open this notebook's store; with *create*, make it and the key if they are not there. Raises `StoreError`."""
        root = self.identity.store_root
        if create and self._store is not None:
            # A key that vanished while we hold it is put back: what it signs must be readable by the next kernel.
            signing.put_back(self._store.key, self.key_path)
        if self._store is None or self._store.root != root.absolute() or not root.exists():
            self._store = Store.open(root, signing.load_key(self.key_path, create=create), create=create)
        else:
            with contextlib.suppress(StoreError):  # one that cannot be read just now: the one that we hold goes on
                self._store.use(signing.load_key(self.key_path))
        return self._store

    def snapshots(self, *, every_notebook: bool = False) -> list[Snapshot]:
        """This notebook's snapshots, newest first; none where there is no store or no key yet. Raises `StoreError`."""
        whose = None if every_notebook else self.identity.notebook
        return self.store().snapshots(whose) if self._is_ready() else []

    def _is_ready(self) -> bool:
        return os.path.exists(self.identity.store_root) and keyring.is_there(self.key_path)

    def unreadable(self) -> list[Unreadable]:
        """What the store holds and this key does not open, or what is damaged. Raises `StoreError`."""
        return self.store().unreadable() if self._is_ready() else []

    def foreign(self) -> list[Foreign]:
        """What another key signed, as it describes itself; all there is where there is no key. Raises `StoreError`."""
        return self._store_to_look_at().foreign() if self.identity.store_root.exists() else []

    def lost_key(self) -> str | None:
        """A sentence when the store holds snapshots and there is no key at all: a container's home that is new."""
        try:
            if keyring.is_there(self.key_path) or not os.listdir(self.identity.store_root / "snapshots"):
                return None
        except OSError:
            return None
        return (
            f"{self.identity.store_root} holds snapshots, but the key that signed them is not here. Take it over "
            "(!ipyrescue key import FILE), set IPYRESCUE_KEY_FILE to it, or trust one that you know: "
            "%restore_vars from=ID --trust"
        )

    def names(self) -> dict[str, Any]:
        """The variables of the user."""
        return made_by_user(self._shell.user_ns, self._shell.user_ns_hidden)

    def capture(
        self,
        occasion: Occasion,
        wanted: Settings,
        *,
        create: bool = True,
        spot: Spot | None = None,
        area: LiveArea | None = None,
    ) -> Draft:
        """The pause of a checkpoint: what comes back touches no live object. Raises `CheckpointError`, `StoreError`.

        Without *create* no store and no key is made, for a draft that is not to be written. *spot* is where the program
        stands: the functions of cells from there outwards are saved with their locals. Copies go to *area*, if it is
        not to be the one that is kept.
        """
        with self._at(spot or Spot(), occasion) as occasion:
            return checkpointing.capture(
                self._shell.user_ns,
                self.store(create=create),
                self.area if area is None else area,
                origin=self._origin(),
                occasion=occasion,
                settings=wanted,
                fence=self.fence_for(occasion, wanted),
            )

    def freeze(self, occasion: Occasion, wanted: Settings, spot: Spot) -> Staged:
        """The pause before a fork, as short as can be; `complete` goes on in the child. Raises as `capture` does."""
        with self._at(spot, occasion) as occasion:
            return checkpointing.freeze(
                self._shell.user_ns,
                self.store(create=True),
                self.area,
                origin=self._origin(),
                occasion=occasion,
                settings=wanted,
            )

    def complete(self, staged: Staged, fence: Fence | None, *, lacks_memory: bool, forked_at: float) -> Snapshot:
        """In a forked child: all the rest of a checkpoint. Raises `CheckpointError`, `StoreError`, `NotInAChild`."""
        return self.write(checkpointing.thaw(staged, fence, lacks_memory=lacks_memory, forked_at=forked_at))

    @contextlib.contextmanager
    def _at(self, spot: Spot, occasion: Occasion) -> Iterator[Occasion]:
        """The *occasion* with the functions of cells that run, and with what loops stand at."""
        frame = spot.frame
        try:
            yield replace(
                occasion,
                frames=stack.running(frame, self.code.is_cell, self.code.number),
                progress=progress.states(stack.innermost(frame, self.code.is_cell), spot.header, raised=spot.raised),
            )
        finally:
            # Whoever stands in a trace function of *frame* must not have it touched; see `let_go`.
            stack.let_go(frame.f_back if frame is not None else None, self.code.is_cell)

    def let_go(self, frame: FrameType) -> bool:
        """Let go of the locals that `capture` left at *frame*; False in a trace function, where it has to wait.

        Until then a `del` in that function frees nothing that was bound when the snapshot was taken.
        """
        if stack.in_trace_function():
            return False
        stack.let_go(frame, self.code.is_cell)
        return True

    def _origin(self) -> Origin:
        return Origin(
            notebook=self.identity.notebook,
            incarnation=self.incarnation,
            host=socket.gethostname(),
            hidden=self._shell.user_ns_hidden,
            cells=self.cells,
            cell=self.cell,
            history=self.history.to_bytes(),
            session=surroundings.worth_keeping(surroundings.facts(self._shell)),
        )

    def fence_for(self, occasion: Occasion, wanted: Settings) -> Fence | None:
        """Where children can be had, the fence; what ended one is tried again when the user names what to save."""
        if occasion.trigger == "command" and wanted.tagged:
            self.fence.denied.clear()
        self.fence.deadline_seconds = self.configuration.pickle_deadline_seconds
        return self.fence if self.fence.available else None

    def write(self, draft: Draft) -> Snapshot:
        """The rest of a checkpoint: put, commit, then forget and free what is too old. May run beside the kernel."""
        self._refuse_the_impossible(draft)
        store = self.store()
        self._make_room(store, draft)
        snapshot = checkpointing.write(self._with_repository(draft), store)
        try:
            tidy(store, snapshot.notebook, self.retention(snapshot.settings), current=self.incarnation)
            self.untidied = None
        except StoreError as error:  # it is saved all the same
            self.untidied = str(error)
        return snapshot

    def _make_room(self, store: Store, draft: Draft) -> None:
        with contextlib.suppress(StoreError):  # perhaps there is room enough without
            make_room(
                store,
                draft.snapshot.notebook,
                self.retention(draft.snapshot.settings),
                most_bytes=draft.size_bytes,
                free_bytes=self.free_bytes(),
                current=self.incarnation,
            )

    def outlook(self, wanted: Settings) -> Outlook | None:
        """What the next snapshot finds where there is too little room for it; None where there is enough.

        Raises StoreError, OSError.
        """
        retention, free = self.retention(wanted), self.free_bytes()
        notebook = self.identity.notebook
        return outlook(self.store(), notebook, retention, free_bytes=free, current=self.incarnation)

    def _with_repository(self, draft: Draft) -> Draft:
        """Note from which commit the session ran: not in the pause, since git is asked."""
        known = {**draft.snapshot.environment, **self._repository().facts()}
        return replace(draft, snapshot=replace(draft.snapshot, environment=known))

    def _repository(self) -> Repository:
        folder = self.identity.path.parent if self.identity.path else self._started_in
        if self._asked is None or self._asked.folder != folder:
            self._asked = Repository(folder)
        return self._asked

    def _session(self) -> dict[str, str]:
        """What only this kernel knows of its session."""
        return {**surroundings.facts(self._shell), **self._repository().facts()}

    def differences(self, snapshot: Snapshot) -> tuple[Difference, ...]:
        """What matters of this session that was otherwise in that of *snapshot*."""
        then = snapshot.environment
        return environment.differences(then, {**environment.counterpart(then), **self._session()})

    def check(self, snapshot: Snapshot, progress: Callable[[str], None]) -> Checked:
        """Restore *snapshot*, which was just made, in a fresh process, and compare it with the namespace."""
        return supervising.check(
            snapshot,
            self._shell.user_ns,
            supervising.Place(self.store().root, self.key_path),
            timeout_seconds=self.configuration.check_timeout_seconds,
            room_bytes=free_memory(),
            progress=progress,
        )

    def find(self, source: str | None, device: str | None = None) -> list[Snapshot]:
        """The snapshots that *source* means, best first; see `ipyrescue.finding`.

        A console is known only by its directory, so another console's snapshots are offered, never taken unasked.
        Where the newest is meant, a process of a dead kernel that still writes it is waited for.
        """
        where = self.identity
        if source is None or source.startswith("latest"):
            self.wait_for_writers()
        found = restoring.find(
            self.store(), source, notebook=where.notebook, incarnation=self.incarnation, device=device
        )
        if source is not None or where.kind != "console":
            return found
        mine = [s for s in found if s.incarnation == self.incarnation]
        if not mine:
            raise SnapshotNotFoundError(
                f"The newest snapshot, {found[0].id[:8]}, is of another console in this directory. "
                f"If that is the one you want, say so: %restore_vars from={found[0].id[:8]}"
            )
        return mine

    def wait_for_writers(self) -> bool:
        """Wait until what dead kernels of this notebook were writing is there; return whether there was something."""
        where = self.identity
        waited = wait_for_writers(where.store_root, where.notebook, self.incarnation)
        self._waited = waited or self._waited
        return waited is not None

    def restore(self, found: list[Snapshot], scope: Scope, *, into: MutableMapping[str, Any] | None = None) -> Restored:
        """Bind the variables of the first of *found* that can be read, in the namespace or *into* a mapping.

        A full restore fulfils the promise to keep what the dead incarnation left. Only one that bound something takes
        the place of the one before, which can be taken back until then.
        """
        restored = restoring.restore(
            self._shell.user_ns,
            self.store(),
            found,
            scope,
            into=into,
            class_source=self._class_source,
            session=self._session,
        )
        restored = self._with_waiting(restored)
        self.has_restored = self.has_restored or into is None
        if restored.full:
            restored = replace(restored, warnings=(*restored.warnings, *self._mark_restored(restored.snapshot)))
            self._go_on_with_history(restored.snapshot)
            self.frames = Frames(restored.frames)
            progress.resume(restored.progress, Returned(restored, self._shell.user_ns) if restored.progress else None)
        if into is None and restored.before is not None and not restored.before.is_empty:
            self._undo = _Undo(restored.snapshot, restored.before, dict(self.cells))
            made = {scope.prefix + v.name: v.cell for v in restored.snapshot.variables if v.cell is not None}
            self.cells.update({name: made[name] for name in restored.names if name in made})
        return replace(restored, before=None)

    def restore_safely(self, source: str | None, scope: Scope, *, into: Any = None) -> Restored:
        """Bind what can be had without unpickling, of a snapshot of ours or of one that another key signed.

        It can be taken back like any other restore. Raises `RestoreError`, `StoreError`.
        """
        found, _ = self.look_at(source)
        restored = safe_restoring.restore(
            self._shell.user_ns, self._store_to_look_at(), found, scope, into=into, room_bytes=free_memory()
        )
        if restored.before is not None and into is None:
            self._undo = _Undo(restored.snapshot, restored.before, dict(self.cells))
        return replace(restored, before=None)

    def look_at(self, source: str | None) -> tuple[Snapshot, Foreign | None]:
        """The snapshot that *source* means; if another key signed it, whose it is. Raises `StoreError`."""
        try:
            return self.find(source)[0], None
        except UntrustedError:
            if source is None:
                raise
        foreign = self._store_to_look_at().untrusted(source)
        return foreign.snapshot, foreign

    def _store_to_look_at(self) -> Store:
        """The store; where there is no key, as somebody sees it to whom all of it is foreign. Raises `StoreError`."""
        try:
            return self.store()
        except UntrustedError:
            return Store.open(self.identity.store_root, signing.nobodys_key())

    def _with_waiting(self, restored: Restored) -> Restored:
        """Note how long a dead kernel's writer was waited for, and warn where that did not help."""
        waited, self._waited = self._waited, None
        if waited is None:
            return restored
        late = (
            f"Process {waited.unfinished} of a dead kernel is still writing after {format_duration(waited.seconds)}: "
            "there may be a newer snapshot soon. See: %snapshots"
        )
        told = (*restored.warnings, late) if waited.unfinished is not None else restored.warnings
        return replace(restored, waited_seconds=waited.seconds, warnings=told)

    def _go_on_with_history(self, snapshot: Snapshot) -> None:
        """What the session of *snapshot* ran stands before what this one did, once."""
        if snapshot.incarnation not in self._continued:
            self._continued.add(snapshot.incarnation)
            self.history.begin_with(self.cells_of(snapshot))

    def _class_source(self, name: str) -> str | None:
        return cells.class_source(cells.from_bytes(self.history.to_bytes()), self.cells.get(name), name)

    def cells_of(self, snapshot: Snapshot) -> tuple[Cell, ...]:
        """The cells that the session of *snapshot* had run; none where they cannot be read."""
        with contextlib.suppress(StoreError):
            return self.store().cells(snapshot)
        return ()

    def undo(self) -> tuple[Snapshot, Before]:
        """Take the last restore back; return of what, and what was done. Raises `RestoreError`."""
        if self._undo is None:
            raise RestoreError(
                "There is nothing to undo: no restore of this kernel, or it was undone or forgotten already. "
                "What other snapshots hold: %snapshots"
            )
        done, self._undo = self._undo, None
        done.before.come_back()
        for name in done.before.names:
            self.cells.pop(name, None)
        self.cells.update({name: done.cells[name] for name in done.before.names if name in done.cells})
        return done.snapshot, done.before

    def forget_undo(self) -> tuple[str, ...]:
        """Let go of what the last restore replaced; return what that was, in words."""
        done, self._undo = self._undo, None
        return (*done.before.replaced, *done.before.changes) if done is not None else ()

    def _mark_restored(self, snapshot: Snapshot) -> Iterator[str]:
        """A death is answered by a snapshot of its own, and if it has none by any that is restored after it."""
        root = self.identity.store_root
        notebooks = {self.identity.notebook, snapshot.notebook}
        dead = {death.life.incarnation for death in deaths(root, notebooks, self.incarnation)}
        empty_handed = dead - {s.incarnation for s in self.snapshots()}
        for life in lives.read_all(root):
            if life.incarnation in empty_handed | {snapshot.incarnation} - {self.incarnation}:
                try:
                    mark_restored(root, life, snapshot.id)
                except StoreError as error:
                    yield f"Restored, but the dead kernel will be offered again: {error}"

    def dismiss(self) -> int:
        """Offer what dead kernels of this notebook left no more; return how many there were. Raises `StoreError`."""
        where = self.identity
        pending = [d for d in deaths(where.store_root, {where.notebook}, self.incarnation) if d.pending]
        for death in pending:
            dismiss(where.store_root, death.life)
        return len(pending)

    def place_warnings(self) -> tuple[str, ...]:
        """Once: sentences when the key would not survive what the store survives, or the store stands on sand."""
        if self._place_warned:
            return ()
        self._place_warned = True
        root = self.identity.store_root
        return tuple(filter(None, (signing.key_survives(root, self.key_path), filesystems.warning(root))))

    def forget(self, source: str) -> Snapshot:
        """Forget one snapshot and free what nothing else references. Raises `SnapshotNotFoundError`, `StoreError`."""
        store = self.store()
        snapshot = store.find(source, self.identity.notebook)
        store.forget(snapshot.id)
        prune(store)
        return snapshot

    def pins(self) -> frozenset[str]:
        """The ids of the snapshots that are pinned. Raises `StoreError`."""
        return self.store().pins() if self._is_ready() else frozenset()

    def pin(self, source: str) -> Snapshot:
        """Keep one snapshot until it is unpinned. Raises `SnapshotNotFoundError`, `StoreError`."""
        store = self.store()
        snapshot = store.find(source, self.identity.notebook)
        store.pin(snapshot.id)
        return snapshot

    def unpin(self, source: str) -> Snapshot:
        """Let retention decide about one snapshot again. Raises `SnapshotNotFoundError`, `StoreError`."""
        store = self.store()
        snapshot = store.find(source, self.identity.notebook)
        store.unpin(snapshot.id)
        return snapshot

    def pair(self, first: str = "latest~1", second: str = "latest") -> tuple[Snapshot, Snapshot]:
        """The older and the newer of the two snapshots that are meant. Raises `SnapshotNotFoundError`."""
        store, notebook = self.store(), self.identity.notebook
        return in_order(store.find(first, notebook), store.find(second, notebook))

    def retention(self, wanted: Settings) -> Retention:
        """Which snapshots stay: what the magic said, else the configuration; at most half of the disk's free space."""
        configured = self.configuration
        limit = wanted.max_size_bytes or configured.max_size_bytes or (self.free_bytes() + self.used_bytes()) // 2
        return Retention(keep=wanted.keep or configured.keep, max_size_bytes=limit)

    def used_bytes(self) -> int:
        """What all packs of the store take on disk."""
        return used_bytes(self.identity.store_root)

    def room(self) -> Room:
        """What is free where the store is, or will be. Raises OSError."""
        return room(self.identity.store_root)

    def free_bytes(self) -> int:
        """Free space where the store is, or will be."""
        return self.room().free_bytes

    def _refuse_the_impossible(self, draft: Draft) -> None:
        """Stop before the disk is filled by what can never fit: the numbers say why. Raises `CheckpointError`."""
        armed = draft.snapshot.settings.every_seconds is not None
        times, why = (3, "two snapshots that stay and one being written") if armed else (1, "for one snapshot")
        needed, free = draft.size_bytes * times, self.free_bytes()
        room = free + (self.used_bytes() if armed else 0)
        if needed > room and draft.snapshot.trigger == "command":
            raise CheckpointError(
                f"No snapshot was made: {format_size(needed)} are needed ({why}), {format_size(room)} are free at "
                f"{self.identity.store_root}. Free space, leave names out with -x NAME, or set IPYRESCUE_STORE to a "
                "folder on a larger disk."
            )
