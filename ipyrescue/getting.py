"""get: the bytes of a snapshot's groups into the memory where they will live, verified there.

Knows which groups the wanted names need; unpickles nothing. A damaged snapshot is passed over for the one before, a
damaged group costs itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ipyrescue.errors import CorruptError, RestoreError
from ipyrescue.finding import Scope
from ipyrescue.manifest import BlobRef, Group, Snapshot
from ipyrescue.pickling import decode as decoding
from ipyrescue.pickling.decode import Memory
from ipyrescue.store import Store


@dataclass(frozen=True)
class Got:
    """Verified bytes of the wanted groups, by position: the packed stream and filled memory.

    *damaged* are groups whose bytes are bad, *homeless* those whose memory belongs to a library that is not here.
    *beside* are pseudo-names: wanted too, and not to be bound.
    """

    snapshot: Snapshot
    wanted: frozenset[str]
    parts: dict[int, tuple[bytes, list[Memory]]]
    damaged: dict[int, str]
    homeless: dict[int, str] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()

    def wanted_names(self, group: Group) -> list[str]:
        """The names of *group* that are to be bound."""
        return [name for name in group.names if name in self.wanted]

    def beside_names(self, group: Group) -> list[str]:
        """The pseudo-names of *group* that are wanted."""
        return [name for name in group.names if name in self.beside]

    def bindable_names(self, group: Group) -> list[str]:
        """The variables of *group*: nobody could ask for a local of a function that ran."""
        pseudo_names = self.snapshot.pseudo_names
        return [name for name in group.names if name not in pseudo_names]


def get_first_good(
    store: Store, snapshots: Sequence[Snapshot], scope: Scope, namespace: Collection[str], *, with_frames: bool = False
) -> tuple[Got, list[str]]:
    """Read the first snapshot whose bytes are all good, naming those passed over.

    The only one there is, or one that the user named, is read as far as it is good; *with_frames* also what is beside
    the variables.
    """
    passed_over: list[str] = []
    for snapshot in snapshots[:-1]:
        try:
            got = get(store, snapshot, scope.wanted(snapshot, namespace), _beside(snapshot, with_frames=with_frames))
            if not got.damaged:
                return got, passed_over
            reason = next(iter(got.damaged.values()))
        except CorruptError as error:
            reason = str(error)
        passed_over.append(f"Snapshot {snapshot.id[:8]} ({snapshot.created}) is damaged and was passed over: {reason}")
    last = snapshots[-1]
    got = get(store, last, scope.wanted(last, namespace), _beside(last, with_frames=with_frames))
    if got.damaged and not got.parts:
        raise RestoreError(f"Nothing of snapshot {last.id[:8]} is readable: {next(iter(got.damaged.values()))}")
    return got, passed_over


def _beside(snapshot: Snapshot, *, with_frames: bool) -> frozenset[str]:
    return snapshot.pseudo_names if with_frames else frozenset()


def get(store: Store, snapshot: Snapshot, wanted: frozenset[str], beside: frozenset[str] = frozenset()) -> Got:
    """Read and verify the groups that hold *wanted* names, those they depend on, and the random streams.

    *beside* are pseudo-names that are wanted too.
    """
    needed = _needed(snapshot, wanted | beside)
    homeless = decoding.homeless({position: snapshot.groups[position] for position in needed})
    positions = [position for position in needed if position not in homeless]
    try:
        got = Got(snapshot, wanted, read_groups(store, snapshot, positions), {})
    except CorruptError:
        got = _get_one_by_one(store, snapshot, wanted, positions)
    return replace(got, homeless=homeless, beside=beside)


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
            got.parts.update(read_groups(store, snapshot, [position]))
        except CorruptError as error:
            got.damaged[position] = str(error)
    return got


def read_groups(store: Store, snapshot: Snapshot, positions: Sequence[int]) -> dict[int, tuple[bytes, list[Memory]]]:
    """Read groups in one sweep, each blob straight into the memory where it will live. Raises CorruptError."""
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
