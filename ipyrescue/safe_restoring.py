"""restore without unpickling: of a snapshot that nobody vouches for, the tensors, arrays and plain values.

    get -> read -> choose -> bind

The line of `ipyrescue.restoring`, with another reader in the place of the unpickler, so that no byte of the snapshot
makes anything run: nothing is imported, called or made but what `ipyrescue.pickling.opcodes` and `strided` know. Hashes
of blobs are checked; that the manifest is whose it says is not, unless the key is ours. All memory is the CPU's.
"""

from __future__ import annotations

import builtins
import keyword
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from operator import itemgetter
from typing import Any

from ipyrescue.binding import Journal
from ipyrescue.errors import CorruptError, RestoreError
from ipyrescue.finding import Scope, refuse_to_separate
from ipyrescue.getting import read_groups
from ipyrescue.manifest import Group, Skipped, Snapshot
from ipyrescue.pickling import decode, encode, in_place, opcodes, plain, strided
from ipyrescue.pickling.plain import NotPlainError, Unread
from ipyrescue.restoring import Restored
from ipyrescue.settings import format_size
from ipyrescue.store import Store

MOST_STREAM_BYTES = 256 << 20
"""Of one group, unpacked: a value that takes more is no setting and no history."""

_BYTES_PER_OPCODE = 256
"""About the most that one makes, with what is noted of it while it is read."""

_MOST_DOTS = 16
_NAMES_SHOWN = 20

_RESERVED = frozenset({*dir(builtins), "In", "Out", "get_ipython"})


@dataclass
class _Read:
    """What was made of a snapshot: *values* by name, and why other names did not come; *as_tensors* came as dicts."""

    values: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    as_tensors: list[str] = field(default_factory=list)


def restore(
    namespace: dict[str, Any],
    store: Store,
    snapshot: Snapshot,
    scope: Scope,
    *,
    into: Any = None,
    room_bytes: int | None = None,
) -> Restored:
    """Bind what can be had of *snapshot*, which may be foreign, without unpickling; say of each other name why not.

    A module comes as a dict of its tensors by dotted name. *into* is a mapping for the names, or a live module for the
    tensors of one variable, all of them or none. Raises RestoreError where more is claimed than *room_bytes*, or where
    nothing came.
    """
    refuse_to_separate(snapshot, replace(scope, force=True))  # names that it does not hold
    wanted = scope.wanted(snapshot, namespace if into is None or in_place.is_module(into) else into)
    read = _read(store, snapshot, wanted, room_bytes)
    if in_place.is_module(into):
        return _into_module(snapshot, scope, read, into)
    with Journal(namespace, prefix=scope.prefix, into=into) as journal:
        for name, value in read.values.items():
            refusal = _refusal(scope.prefix + name) if into is None else None
            if refusal:
                read.lost[name] = refusal
            else:
                journal.bind(name, value)
    return _report(snapshot, scope, read, journal.before.names, journal)


# --- get and read -----------------------------------------------------------------------------------------------


def _read(store: Store, snapshot: Snapshot, wanted: frozenset[str], room_bytes: int | None) -> _Read:
    read = _Read(lost=dict(_never(snapshot, wanted)))
    groups = {
        position: group
        for position, group in enumerate(snapshot.groups)
        if group.kind in ("data", "function") and wanted.intersection(group.names)
    }
    homeless = decode.homeless(groups)
    left_bytes = _room_left(snapshot, [groups[position] for position in groups.keys() - homeless.keys()], room_bytes)
    budget = opcodes.Budget(sys.maxsize if left_bytes is None else left_bytes // _BYTES_PER_OPCODE)
    for position, group in groups.items():
        names = wanted.intersection(group.names)
        try:
            if position in homeless:
                raise CorruptError(homeless[position])
            _read_group(store, snapshot, position, names, budget, read)
        except (CorruptError, MemoryError) as error:
            read.lost.update(dict.fromkeys(names, str(error) or "it claims more memory than there is"))
    return read


def _never(snapshot: Snapshot, wanted: frozenset[str]) -> Iterator[tuple[str, str]]:
    for wanted_import in snapshot.imports:
        if wanted_import.name in wanted:
            yield wanted_import.name, f"an import runs code; if you know it, run {wanted_import}"
    for group in snapshot.groups:
        if group.kind == "class":
            yield from ((name, "a class is code") for name in group.names if name in wanted)


def _room_left(snapshot: Snapshot, groups: list[Group], room_bytes: int | None) -> int | None:
    """What is left of *room_bytes* beside the memory of *groups*, before any is taken. Raises RestoreError.

    A manifest may name one blob a million times, and every group is alive in the end.
    """
    if room_bytes is None:
        return None
    kept_bytes = [group.stream.size_bytes + sum(buffer.size_bytes for buffer in group.buffers) for group in groups]
    needed = sum(kept_bytes) + max((_passing_bytes(snapshot, group) for group in groups), default=0)
    if needed > room_bytes:
        largest = sorted(zip(kept_bytes, groups, strict=True), key=itemgetter(0), reverse=True)
        names = islice((name for _, group in largest for name in group.names), _NAMES_SHOWN)
        raise RestoreError(
            f"Nothing was restored: snapshot {snapshot.id[:8]} claims {format_size(needed)} for "
            f"{', '.join(names)[:200]}, and {format_size(room_bytes)} are free. Name the others."
        )
    return room_bytes - needed


def _passing_bytes(snapshot: Snapshot, group: Group) -> int:
    """What reading a group takes beside what stays: its stream, packed twice and unpacked, and blobs to be joined."""
    joined = {}
    for buffer in group.buffers:
        total = sum(snapshot.blobs[index].size_bytes for index in buffer.blobs)
        if total != buffer.size_bytes:
            joined[buffer.blobs] = total
    packed = sum(snapshot.blobs[index].size_bytes for index in group.stream.blobs)
    return 2 * packed + group.stream.size_bytes + sum(joined.values())


def _read_group(
    store: Store, snapshot: Snapshot, position: int, names: frozenset[str], budget: opcodes.Budget, read: _Read
) -> None:
    """Read one group, and put what came of its names into *read*. Raises CorruptError."""
    group = snapshot.groups[position]
    if group.stream.size_bytes > MOST_STREAM_BYTES:
        raise CorruptError(f"A stream of {format_size(group.stream.size_bytes)} is not read without unpickling.")
    packed, memory = read_groups(store, snapshot, [position])[position]
    storages = decode.place(position, group, packed, memory, "cpu")[0].storages
    shown = _Shown(group, storages)
    values = opcodes.read(encode.decompress(group.stream, packed), shown.at, budget)
    if len(values) != len(group.names):
        raise CorruptError("A stream holds another number of values than its group has names.")
    known: plain.Known = {}
    for name, value in zip(group.names, values, strict=True):
        if name in names:
            _choose(name, value, known, shown, read)


class _Shown:
    """The tensors and arrays of a group over its memory, each made once: what was shared is shared again."""

    def __init__(self, group: Group, storages: tuple[Any, ...]) -> None:
        self.group, self._storages = group, storages
        self._made: dict[int, Any] = {}
        self._by_place = {(t.storage, t.offset, t.shape, t.stride): n for n, t in enumerate(group.tensors)}
        self._by_name = _by_name(group)

    def at(self, storage: int, place: tuple[Any, ...]) -> Any:
        """What stands at one place; an `Unread` for what the manifest does not describe."""
        number = self._by_place.get((storage, *place))
        return self._make(number) if number is not None else Unread("a tensor that the manifest does not describe")

    def below(self, name: str) -> dict[str, Any]:
        """All whose dotted names begin with *name*, by the rest."""
        return {self.group.tensors[n].name[len(name) + 1 :]: self._make(n) for n in self._by_name.pop(name, ())}

    def _make(self, number: int) -> Any:
        if number not in self._made:
            tensor = self.group.tensors[number]
            memory, storage = self._storages[tensor.storage], self.group.storages[tensor.storage]
            self._made[number] = strided.over(memory, tensor, storage)
        return self._made[number]


def _by_name(group: Group) -> dict[str, list[int]]:
    """The numbers of the tensors below each of the group's names; each tensor once, below the shortest."""
    names, found = frozenset(group.names), defaultdict(list)
    for number, tensor in enumerate(group.tensors):
        prefixes = accumulate(tensor.name.split(".", _MOST_DOTS)[:-1], "{}.{}".format)
        owner = next((prefix for prefix in prefixes if prefix in names), None)
        if owner is not None:
            found[owner].append(number)
    return found


def _choose(name: str, value: Any, known: plain.Known, shown: _Shown, read: _Read) -> None:
    """The value where it is plain, else the tensors below its name, else why neither."""
    try:
        plain.check(value, known)
    except NotPlainError as reason:
        tensors = shown.below(name)
        if tensors:
            read.values[name] = tensors
            read.as_tensors.append(name)
        else:
            read.lost[name] = f"only unpickling would bring it: {reason}"
    else:
        read.values[name] = value


# --- bind -------------------------------------------------------------------------------------------------------


def _refusal(name: str) -> str | None:
    """Why a name is not bound in the namespace: an enemy may choose names that change what other code means."""
    if not name.isidentifier() or keyword.iskeyword(name) or unicodedata.normalize("NFKC", name) != name:
        return "its name is no plain name"
    if name.startswith("_") or name in _RESERVED:
        return "its name is one that Python or IPython uses; with as=old_ it comes"
    return None


def _into_module(snapshot: Snapshot, scope: Scope, read: _Read, module: Any) -> Restored:
    """Load the tensors of one variable into a live module, all of them or none. Raises RestoreError."""
    found = {name: read.values[name] for name in read.as_tensors}
    if len(found) != 1:
        there = ", ".join(found) or "none"
        raise RestoreError(
            f"Nothing was loaded: say which variable of snapshot {snapshot.id[:8]} has the tensors, by names=[...]. "
            f"There are: {there}."
        )
    ((name, tensors),) = found.items()
    misfits = in_place.load_tensors(module, tensors)
    if misfits:
        raise RestoreError(f"Nothing was loaded into the module: {name} does not fit it. {'; '.join(misfits[:5])}.")
    read.lost = {}
    return _report(snapshot, scope, read, (name,), None)


def _report(snapshot: Snapshot, scope: Scope, read: _Read, names: tuple[str, ...], journal: Journal | None) -> Restored:
    types = {**{v.name: v.type for v in snapshot.variables}, **{i.name: "module" for i in snapshot.imports}}
    skipped = tuple(Skipped(name, types.get(name, "?"), reason) for name, reason in sorted(read.lost.items()))
    if not names:
        first = f": {skipped[0].name} ({skipped[0].reason})" if skipped else "."
        raise RestoreError(f"Nothing of snapshot {snapshot.id[:8]} came without unpickling{first}")
    return Restored(
        snapshot=snapshot,
        names=names,
        skipped=skipped,
        kept=(),
        warnings=tuple(_told(read, journal)),
        full=False,
        replaced=journal.before.replaced if journal is not None else (),
        prefix=scope.prefix,
        before=journal.before if journal is not None else None,
    )


def _told(read: _Read, journal: Journal | None) -> Iterator[str]:
    bound: Mapping[str, Any] = journal.bound if journal is not None else {}
    dicts = [f"{name} ({len(bound[name])})" for name in read.as_tensors if name in bound]
    if dicts:
        yield f"Came as a dict of its tensors, by dotted name: {', '.join(dicts)}. {_INTO}"
    if journal is None:
        yield "The tensors were copied into your module; they are what the snapshot says, whoever made it."


_INTO = "One such goes into a live module by ipyrescue.restore(ID, names=[NAME], safe=True, into=model)"
