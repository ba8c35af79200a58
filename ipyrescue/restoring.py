"""restore: a snapshot becomes a namespace again, in five stages.

    find -> get -> place -> decode -> bind

`find` stands in `ipyrescue.finding`, the journal of `bind` in `ipyrescue.binding`. `get` reads bytes into the memory
where they will live and verifies those very bytes; nothing is unpickled before. `decode` and `bind` go group by group,
under a journal that is rolled back whole when anything unforeseen happens.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipyrescue import environment
from ipyrescue.binding import Journal
from ipyrescue.environment import WORKING_DIRECTORY
from ipyrescue.errors import CorruptError, RestoreError
from ipyrescue.finding import Scope, find, refuse_to_separate
from ipyrescue.manifest import BlobRef, Group, Skipped, Snapshot
from ipyrescue.pickling import collector, randomness
from ipyrescue.pickling import decode as decoding
from ipyrescue.pickling.decode import Decoded, Memory, Placed
from ipyrescue.pickling.sources import remember_source, source_of
from ipyrescue.store import Store

__all__ = ["Journal", "Restored", "Scope", "find", "restore"]


@dataclass(frozen=True)
class Restored:
    """What a restore bound, what it could not bring back, and what the user should know.

    *kept* are names that were there and stayed (--keep-existing); *full*: every name, so the old life goes on.
    """

    snapshot: Snapshot
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...]
    full: bool


@dataclass(frozen=True)
class Got:
    """Verified bytes of the wanted groups, by position: the packed stream and filled memory."""

    snapshot: Snapshot
    wanted: frozenset[str]
    parts: dict[int, tuple[bytes, list[Memory]]]
    damaged: dict[int, str]


def restore(
    namespace: dict[str, Any],
    store: Store,
    snapshots: Sequence[Snapshot],
    scope: Scope,
    *,
    into: MutableMapping[str, Any] | None = None,
) -> Restored:
    """Bind the first of *snapshots* whose bytes are good; a damaged one is named and the next one taken.

    Names go into *namespace*, or *into* another mapping. Raises `RestoreError` when nothing could be bound;
    everything is then as it was.
    """
    refuse_to_separate(snapshots[0], scope)
    got, passed_over = get_first_good(store, snapshots, scope, namespace if into is None else into)
    placed, warnings = place(got, scope)
    with Journal(namespace, prefix=scope.prefix, into=into) as journal, collector.held_off():
        warnings = [*passed_over, *edited_classes(journal, got), *separated(got), *warnings]
        skipped = bind(journal, got, decode(placed, journal.globals))
        if _is_full(journal, scope):
            warnings += rewind(placed, namespace, scope)
    remember_sources(journal, got)
    return _report(journal, got, skipped, warnings, scope)


def _is_full(journal: Journal, scope: Scope) -> bool:
    """Whether the old life goes on, random streams included: every name is wanted, in its place."""
    return not scope.names and not journal.is_beside


# --- get --------------------------------------------------------------------------------------------------------


def get_first_good(
    store: Store, snapshots: Sequence[Snapshot], scope: Scope, namespace: Collection[str]
) -> tuple[Got, list[str]]:
    """Read the first snapshot whose bytes are all good, naming those passed over.

    The only one there is, or one that the user named, is read as far as it is good.
    """
    passed_over: list[str] = []
    for snapshot in snapshots[:-1]:
        got = get(store, snapshot, scope.wanted(snapshot, namespace))
        if not got.damaged:
            return got, passed_over
        reason = next(iter(got.damaged.values()))
        passed_over.append(f"Snapshot {snapshot.id[:8]} ({snapshot.created}) is damaged and was passed over: {reason}")
    last = snapshots[-1]
    got = get(store, last, scope.wanted(last, namespace))
    if got.damaged and not got.parts:
        raise RestoreError(f"Nothing of snapshot {last.id[:8]} is readable: {next(iter(got.damaged.values()))}")
    return got, passed_over


def get(store: Store, snapshot: Snapshot, wanted: frozenset[str]) -> Got:
    """Read and verify the groups that hold *wanted* names, those they depend on, and the random streams."""
    positions = _needed(snapshot, wanted)
    try:
        return Got(snapshot, wanted, _read(store, snapshot, positions), {})
    except CorruptError:
        return _get_one_by_one(store, snapshot, wanted, positions)


def _needed(snapshot: Snapshot, wanted: frozenset[str]) -> list[int]:
    needed = {i for i, g in enumerate(snapshot.groups) if wanted.intersection(g.names) or g.kind == "randomness"}
    for position in range(len(snapshot.groups) - 1, -1, -1):
        if position in needed:
            needed.update(snapshot.groups[position].depends)
    return sorted(needed)


def _get_one_by_one(store: Store, snapshot: Snapshot, wanted: frozenset[str], positions: list[int]) -> Got:
    got = Got(snapshot, wanted, {}, {})
    for position in positions:
        try:
            got.parts.update(_read(store, snapshot, [position]))
        except CorruptError as error:
            got.damaged[position] = str(error)
    return got


def _read(store: Store, snapshot: Snapshot, positions: Sequence[int]) -> dict[int, tuple[bytes, list[Memory]]]:
    """Read groups in one sweep, each blob straight into the memory where it will live."""
    parts: dict[int, tuple[bytearray, list[Memory]]] = {}
    sweep = _Sweep(snapshot)
    for position in positions:
        group = snapshot.groups[position]
        stream = bytearray(sum(snapshot.blobs[i].size_bytes for i in group.stream.blobs))
        memory = decoding.allocate(group)
        sweep.fill(group.stream.blobs, memoryview(stream))
        for buffer, home in zip(group.buffers, memory, strict=True):
            sweep.fill_part(buffer.blobs, buffer.offset, home.view)
        parts[position] = stream, memory
    sweep.run(store)
    return {position: (bytes(stream), memory) for position, (stream, memory) in parts.items()}


class _Sweep:
    """Collects which blob goes where, so that the store can read them all in one go."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._blobs = snapshot.blobs
        self._refs: list[BlobRef] = []
        self._into: list[memoryview] = []
        self._joined: dict[tuple[int, ...], bytearray] = {}
        self._copies: list[tuple[bytearray, int, memoryview]] = []

    def fill(self, numbers: tuple[int, ...], home: memoryview) -> None:
        """Read blobs one behind the other into *home*, which they fill exactly."""
        at = 0
        for ref in (self._blobs[i] for i in numbers):
            self._refs.append(ref)
            self._into.append(home[at : at + ref.size_bytes])
            at += ref.size_bytes

    def fill_part(self, numbers: tuple[int, ...], offset: int, home: memoryview) -> None:
        """Read a part of joined blobs into *home*."""
        total = sum(self._blobs[i].size_bytes for i in numbers)
        if offset == 0 and total == len(home):
            self.fill(numbers, home)
            return
        if numbers not in self._joined:
            self._joined[numbers] = bytearray(total)
            self.fill(numbers, memoryview(self._joined[numbers]))
        self._copies.append((self._joined[numbers], offset, home))

    def run(self, store: Store) -> None:
        """Read and verify everything; `CorruptError` when any of it is not what was written."""
        store.get(self._refs, self._into)
        for joined, offset, home in self._copies:
            home[:] = memoryview(joined)[offset : offset + len(home)]


# --- place and decode -------------------------------------------------------------------------------------------


def place(got: Got, scope: Scope) -> tuple[list[Placed], list[str]]:
    """Put verified bytes where they will live; tell of devices that are gone or were not wanted."""
    placed, warnings = [], []
    for position, (stream, memory) in got.parts.items():
        group, sentences = decoding.place(position, got.snapshot.groups[position], stream, memory, scope.device)
        placed.append(group)
        warnings += [s for s in sentences if s not in warnings]
    moved = scope.moves(p.group for p in placed)
    if moved:
        warnings.append(
            f"Tensors of {', '.join(moved)} are on the CPU now, as device=cpu says; a variable that names a device "
            "still names it."
        )
    return placed, warnings


def decode(placed: Sequence[Placed], namespace: dict[str, Any]) -> Iterator[Decoded]:
    """Decode group by group, so that each can be bound before the next is decoded."""
    return decoding.decode([p for p in placed if p.group.kind != "randomness"], namespace)


# --- bind -------------------------------------------------------------------------------------------------------


def bind(journal: Journal, got: Got, decoded: Iterable[Decoded]) -> list[Skipped]:
    """Bind imports, then each group as it is decoded; return what did not come back."""
    skipped = [*_bind_imports(journal, got)]
    for group in decoded:
        if group.failure:
            names = _wanted_names(got, group.group)
            skipped += [_not_restored(got.snapshot, name, group.failure) for name in names]
        for name, value in group.values.items():
            if name in got.wanted:
                journal.bind(name, value)
    for position, reason in got.damaged.items():
        names = _wanted_names(got, got.snapshot.groups[position])
        skipped += [_not_restored(got.snapshot, name, reason) for name in names]
    return skipped


def _bind_imports(journal: Journal, got: Got) -> Iterator[Skipped]:
    wanted = [i for i in got.snapshot.imports if i.name in got.wanted]
    for name, module, failure in decoding.import_modules(wanted):
        if failure is None:
            journal.bind(name, module)
        else:
            yield Skipped(name, "module", failure)


def _wanted_names(got: Got, group: Group) -> list[str]:
    return [name for name in group.names if name in got.wanted]


def _not_restored(snapshot: Snapshot, name: str, reason: str) -> Skipped:
    variable = next(v for v in snapshot.variables if v.name == name)
    return Skipped(name, variable.type, reason, variable.cell)


def rewind(placed: Sequence[Placed], namespace: dict[str, Any], scope: Scope) -> list[str]:
    """Rewind the global random streams: the last act of a full restore. With device=cpu no other device is touched."""
    groups = [p for p in placed if p.group.kind == "randomness"]
    for decoded in decoding.decode(groups, namespace):
        if decoded.failure is None:
            streams = decoded.values[""]
            left = streams.pop("cuda", []) if scope.device == "cpu" else []
            return [*randomness.rewind(streams), *_not_rewound(left)]
    return ["The random streams did not come back: continuing will not be bit for bit."]


def _not_rewound(left: list[Any]) -> Iterator[str]:
    if left:
        yield f"The random streams of {len(left)} CUDA device(s) were not rewound, as device=cpu says."


# --- what the user should know ----------------------------------------------------------------------------------


def edited_classes(journal: Journal, got: Got) -> list[str]:
    """Tell of classes that were edited and run again since the snapshot: the restore binds the snapshot's."""
    told: list[str] = []
    for variable in got.snapshot.variables if not journal.is_beside else ():
        live = journal.globals.get(variable.name)
        if variable.source is None or not isinstance(live, type) or variable.name not in got.wanted:
            continue
        now = source_of(live)
        if now is not None and now != variable.source:
            told.append(_difference(variable.name, variable.source, now))
    return told


def separated(got: Got) -> list[str]:
    """Tell of groups of which a part is kept as it is in the namespace (--keep-existing)."""
    told = []
    for group in got.snapshot.groups:
        bound = _wanted_names(got, group)
        if group.kind == "data" and bound and len(bound) < len(group.names):
            kept = ", ".join(name for name in group.names if name not in got.wanted)
            told.append(f"{', '.join(bound)} shared objects with {kept}, which was kept: they are separate now.")
    return told


def _difference(name: str, then: str, now: str) -> str:
    changed = list(difflib.ndiff(now.splitlines(), then.splitlines()))
    yours = [line[2:].strip() for line in changed if line.startswith("- ")]
    theirs = [line[2:].strip() for line in changed if line.startswith("+ ")]
    return (
        f"class {name} was edited since the snapshot. Yours says `{_few(yours)}`, the snapshot's, bound now, says "
        f"`{_few(theirs)}`. To have yours, run its cell again."
    )


def _few(lines: list[str]) -> str:
    return "; ".join(lines[:3]) + ("; ..." if len(lines) > 3 else "")


def remember_sources(journal: Journal, got: Got) -> None:
    """Let tracebacks through restored functions and classes show their lines."""
    bound = journal.bound
    for variable in got.snapshot.variables:
        if variable.source is not None and variable.name in bound:
            remember_source(bound[variable.name], variable.source)


def _report(journal: Journal, got: Got, skipped: list[Skipped], warnings: list[str], scope: Scope) -> Restored:
    then = got.snapshot.environment
    warnings = [*warnings, *environment.differences(then, environment.fingerprint(then))]
    here = environment.working_directory()
    if then.get(WORKING_DIRECTORY, here) != here:
        warnings.append(f"The working directory was {then[WORKING_DIRECTORY]} and is {here} now.")
    return Restored(
        snapshot=got.snapshot,
        names=journal.names,
        skipped=(*got.snapshot.skipped, *skipped),
        kept=tuple(n for n in got.snapshot.names if scope.keep_existing and n not in got.wanted),
        warnings=tuple(warnings),
        full=_is_full(journal, scope) and not scope.keep_existing,
    )
