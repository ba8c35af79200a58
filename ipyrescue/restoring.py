"""restore: a snapshot becomes a namespace again, in five stages.

    find -> get -> place -> decode -> bind

`find` stands in `ipyrescue.finding`, the journal of `bind` in `ipyrescue.binding`. `get` reads bytes into the memory
where they will live and verifies those very bytes; nothing is unpickled before. `decode` and `bind` go group by group,
under a journal that is rolled back whole when anything unforeseen happens.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ipyrescue import environment
from ipyrescue.binding import Before, Journal
from ipyrescue.environment import WORKING_DIRECTORY
from ipyrescue.errors import CorruptError, RestoreError
from ipyrescue.finding import Scope, find, refuse_to_separate
from ipyrescue.manifest import PROGRESS, BlobRef, Group, Skipped, Snapshot
from ipyrescue.pickling import collector, devices, in_place, randomness
from ipyrescue.pickling import decode as decoding
from ipyrescue.pickling.decode import Decoded, Memory, Placed
from ipyrescue.pickling.sources import remember_source, source_of
from ipyrescue.redaction import redacted
from ipyrescue.settings import format_size
from ipyrescue.stack import Running
from ipyrescue.store import Store

__all__ = ["Before", "Restored", "Scope", "find", "restore"]

_SHOWN_DIFFERENCE_LINES = 12


@dataclass(frozen=True)
class Restored:
    """What a restore bound, what it could not bring back, and what the user should know.

    *kept* are names that were there and stayed, *replaced* those that were bound to something else; *full*: every name,
    so the old life goes on. All of *names* begin with *prefix*. *before* takes it back, until the kernel keeps that.
    *differences* are what matters of this session that was otherwise in the snapshot's. Only a full restore has
    *frames*, the functions that ran, outermost first, with their locals; and *progress*, what the loops were at.
    *waited_seconds* is how long a process of a dead kernel was waited for that was writing, if one was.
    """

    snapshot: Snapshot
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...]
    full: bool
    replaced: tuple[str, ...] = ()
    prefix: str = ""
    before: Before | None = field(default=None, repr=False, compare=False)
    differences: tuple[environment.Difference, ...] = ()
    frames: tuple[Running, ...] = ()
    progress: Mapping[str, Any] = field(default_factory=dict, repr=False)
    waited_seconds: float | None = None


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


def restore(
    namespace: dict[str, Any],
    store: Store,
    snapshots: Sequence[Snapshot],
    scope: Scope,
    *,
    into: MutableMapping[str, Any] | None = None,
    class_source: Callable[[str], str | None] = lambda name: None,
    session: Callable[[], Mapping[str, str]] = dict,
) -> Restored:
    """Bind the first of *snapshots* whose bytes are good; a damaged one is named and the next one taken.

    Names go into *namespace*, or *into* another mapping. *class_source* knows the text of live classes whose code tells
    no place, *session* what only a kernel knows of this one (see `ipyrescue.environment`). Raises
    `RestoreError` when nothing could be bound; everything is then as it was.
    """
    refuse_to_separate(snapshots[0], scope)
    with_frames = scope.is_everything and into is None
    got, passed_over = get_first_good(
        store, snapshots, scope, namespace if into is None else into, with_frames=with_frames
    )
    placed, warnings = place(got, scope)
    with Journal(namespace, prefix=scope.prefix, into=into) as journal, collector.held_off():
        own, told = own_classes(namespace, got) if scope.keep_classes else ({}, [])
        warnings = [
            *passed_over,
            *told,
            *edited_classes(journal, got, own, class_source),
            *warnings,
        ]
        bound = bind(journal, got, decode(got, placed, journal.globals, own), own, scope)
        warnings += [
            *bound.told,
            *strangers(journal, got, own),
            *separated(got, bound, scope),
            *of_another_python(got, bound),
        ]
        if _is_full(journal, scope):
            warnings += rewind(placed, journal, scope)
        remember_sources(journal, got, bound)
    return _report(journal, got, bound, warnings, scope, session)


def _is_full(journal: Journal, scope: Scope) -> bool:
    """Whether the old life goes on, random streams included: every name is wanted, in its place."""
    return not scope.names and not journal.is_beside


# --- get --------------------------------------------------------------------------------------------------------


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


# --- place and decode -------------------------------------------------------------------------------------------


def place(got: Got, scope: Scope) -> tuple[list[Placed], list[str]]:
    """Put verified bytes where they will live; tell of devices that are gone or were not wanted.

    Raises `RestoreError` where a device has no room for them.
    """
    placed: list[Placed] = []
    warnings: list[str] = []
    if scope.device is None:
        refuse_full_devices(got, devices.free_bytes)
    for position, (stream, memory) in got.parts.items():
        try:
            group, sentences = decoding.place(position, got.snapshot.groups[position], stream, memory, scope.device)
        except RuntimeError as error:  # torch.OutOfMemoryError is one, and so is what a broken device raises
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise RestoreError(f"Nothing was restored: {reason} {_to_the_cpu(got)}") from error
        placed.append(group)
        warnings += [s for s in sentences if s not in warnings]
    moved = scope.moves(p.group for p in placed)
    if moved:
        warnings.append(
            f"Tensors of {', '.join(moved)} are on the CPU now, as device=cpu says; a variable that names a device "
            "still names it."
        )
    return placed, warnings


def refuse_full_devices(got: Got, free_bytes: Callable[[str], int | None]) -> None:
    """Refuse what does not fit, before anything is placed. What a restore replaces is still there meanwhile."""
    needed = devices.needed_bytes(got.snapshot.groups[position] for position in got.parts)
    for device, size_bytes in sorted(needed.items()):
        free = free_bytes(device)
        if free is not None and size_bytes > free:
            raise RestoreError(
                f"Nothing was restored: snapshot {got.snapshot.id[:8]} needs {format_size(size_bytes)} on {device}, "
                f"where {format_size(free)} are free. {_to_the_cpu(got)}"
            )


def _to_the_cpu(got: Got) -> str:
    return (
        f"Bring its tensors to the CPU instead: %restore_vars from={got.snapshot.id[:8]} device=cpu   Or make room: "
        "del what holds GPU memory, %restore_vars --forget-undo, torch.cuda.empty_cache()"
    )


def own_classes(namespace: dict[str, Any], got: Got) -> tuple[dict[str, type], list[str]]:
    """The live classes that stand for the snapshot's of the same name; tell of those that cannot (--keep-classes)."""
    own: dict[str, type] = {}
    told = []
    for group in (got.snapshot.groups[position] for position in got.parts):
        names = _bindable(got, group)
        live = {name: namespace[name] for name in names if _is_class(namespace.get(name))}
        if group.kind == "class" and len(live) == len(names):
            own.update(live)
            if len({id(cls) for cls in live.values()}) == 1:  # `cls = Net` in a function is the same class
                own.update(dict.fromkeys(_beside_of(got, group), next(iter(live.values()))))
        elif live and len(names) > 1:
            others = ", ".join(name for name in names if name not in live) or "variables"
            told.append(f"{', '.join(live)} was saved together with {others}, and is the snapshot's now, not yours.")
    return own, told


def decode(got: Got, placed: Sequence[Placed], namespace: dict[str, Any], own: Mapping[str, type]) -> Iterator[Decoded]:
    """Decode group by group, so that each can be bound before the next is decoded."""
    made_by = environment.python(got.snapshot.environment)
    return decoding.decode([p for p in placed if p.group.kind != "randomness"], namespace, own, made_by)


# --- bind -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """How names came back: what did not, what was loaded into a live object, what a live class stands for; the rest.

    *beside* are the values of pseudo-names, which are not bound.
    """

    skipped: list[Skipped] = field(default_factory=list)
    in_place: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    beside: dict[str, Any] = field(default_factory=dict)


def bind(journal: Journal, got: Got, decoded: Iterable[Decoded], own: Mapping[str, type], scope: Scope) -> Bound:
    """Bind imports, then each group as it is decoded."""
    bound = Bound()
    _bind_imports(journal, got, bound)
    for group in decoded:
        wanted = _wanted_names(got, group.group)
        beside = _beside_of(got, group.group)
        if group.failure:
            bound.skipped.extend(_not_restored(got.snapshot, name, group.failure) for name in (*wanted, *beside))
            continue
        bound.beside.update({name: group.values[name] for name in beside})
        may_load = scope.force and len(wanted) < len(_bindable(got, group.group)) and not journal.is_beside
        for name in wanted:
            if name in own:
                bound.kept.append(name)
            elif may_load and _load_in_place(journal, name, group.values[name]):
                bound.in_place.append(name)
            else:
                journal.bind(name, group.values[name])
    for position, reason in {**got.damaged, **got.homeless}.items():
        lost = got.snapshot.groups[position]
        names = (*_wanted_names(got, lost), *_beside_of(got, lost))
        bound.skipped.extend(_not_restored(got.snapshot, name, reason) for name in names)
    return bound


def _load_in_place(journal: Journal, name: str, value: Any) -> bool:
    """Load a module or an optimizer into the live one of its name, if there is one that takes it (--force)."""
    undo = in_place.load_in_place(journal.globals.get(name), value)
    if undo is not None:
        journal.before.note_change(f"the state of {name}", undo)
    return undo is not None


def _bind_imports(journal: Journal, got: Got, bound: Bound) -> None:
    wanted = [i for i in got.snapshot.imports if i.name in got.wanted]
    for name, module, failure in decoding.import_modules(wanted):
        if module is None:
            bound.skipped.append(Skipped(name, "module", failure or ""))
            continue
        journal.bind(name, module)
        if failure is not None:
            bound.told.append(f"{name}: {failure}")


def _wanted_names(got: Got, group: Group) -> list[str]:
    return [name for name in group.names if name in got.wanted]


def _beside_of(got: Got, group: Group) -> list[str]:
    return [name for name in group.names if name in got.beside]


def _bindable(got: Got, group: Group) -> list[str]:
    """The variables of a group: nobody could ask for a local of a function that ran."""
    pseudo_names = got.snapshot.pseudo_names
    return [name for name in group.names if name not in pseudo_names]


def _not_restored(snapshot: Snapshot, name: str, reason: str) -> Skipped:
    variable = next(v for v in snapshot.variables if v.name == name)
    return Skipped(name, variable.type, reason, variable.cell)


def rewind(placed: Sequence[Placed], journal: Journal, scope: Scope) -> list[str]:
    """Rewind the global random streams: the last act of a full restore. With device=cpu no other device is touched."""
    groups = [p for p in placed if p.group.kind == "randomness"]
    for decoded in decoding.decode(groups, journal.globals):
        if decoded.failure is None:
            streams, now = decoded.values[""], randomness.capture()
            left = streams.pop("cuda", []) if scope.device == "cpu" else []
            journal.before.note_change("the random streams", partial(randomness.rewind, now))
            return [*randomness.rewind(streams), *_not_rewound(left)]
    return ["The random streams did not come back: continuing will not be bit for bit."]


def _not_rewound(left: list[Any]) -> Iterator[str]:
    if left:
        yield f"The random streams of {len(left)} CUDA device(s) were not rewound, as device=cpu says."


# --- what the user should know ----------------------------------------------------------------------------------


def edited_classes(
    journal: Journal, got: Got, own: Mapping[str, type], class_source: Callable[[str], str | None]
) -> Iterator[str]:
    """Tell of classes that were edited and run again since the snapshot, unless they are kept."""
    for variable in got.snapshot.variables if not journal.is_beside else ():
        live = journal.globals.get(variable.name)
        if variable.source is None or not _is_of_a_cell(live) or variable.name not in got.wanted:
            continue
        now = redacted(source_of(live) or class_source(variable.name) or "")
        if now and now.strip() != variable.source.strip() and variable.name not in own:
            yield _difference(variable.name, variable.source, now)


def strangers(journal: Journal, got: Got, own: Mapping[str, type]) -> Iterator[str]:
    """Tell of names whose class comes from the snapshot without being bound, while there is a live one of its name."""
    groups = got.snapshot.groups
    for group in groups if not journal.is_beside else ():
        classes = {name for position in group.depends for name in groups[position].names} - got.wanted - own.keys()
        live = sorted(name for name in classes if _is_class(journal.globals.get(name)))
        wanted = [name for name in _wanted_names(got, group) if name in journal.bound]
        if live and wanted:
            yield (
                f"{', '.join(wanted)}: of the snapshot's {', '.join(live)}, which is another class than yours for "
                "isinstance. To use yours: --keep-classes"
            )


def _is_class(value: Any) -> bool:
    """Whether *value* is a class; `isinstance` would ask the `__class__` of the user's proxies."""
    return issubclass(type(value), type)


def _is_of_a_cell(value: Any) -> bool:
    """Whether *value* is a class that a cell made; that of a library is another in each release of it."""
    return _is_class(value) and type.__getattribute__(value, "__module__") == "__main__"


def _difference(name: str, then: str, now: str) -> str:
    lines = [*difflib.unified_diff(then.splitlines(), now.splitlines(), lineterm="", n=1)][2:]
    rest = len(lines) - _SHOWN_DIFFERENCE_LINES
    return "\n".join([
        f"class {name} was edited since the snapshot, and the snapshot's is bound now. To have yours, run its cell "
        "again; to keep yours, also for the instances that come back: --keep-classes. Below, - is the snapshot's and "
        "+ is yours.",
        *lines[:_SHOWN_DIFFERENCE_LINES],
        *([f"... {rest} more lines"] if rest > 0 else []),
    ])  # fmt: skip


def separated(got: Got, bound: Bound, scope: Scope) -> Iterator[str]:
    """Tell of groups of which a part came back only (--keep-existing, --force)."""
    if bound.in_place:
        names = ", ".join(bound.in_place)
        yield f"{names}: loaded into the live object by load_state_dict, so that what uses it still does."
    for group in got.snapshot.groups:
        wanted = _wanted_names(got, group)
        apart = [name for name in wanted if name not in bound.in_place]
        bindable = _bindable(got, group)
        if group.kind == "data" and apart and len(wanted) < len(bindable):
            others = ", ".join(name for name in bindable if name not in got.wanted)
            fate = "kept" if scope.keep_existing else "not restored"
            yield f"{', '.join(apart)} shared objects with {others}, which was {fate}: they are separate now."


def of_another_python(got: Got, bound: Bound) -> Iterator[str]:
    """Tell how what belongs to the classes of another Python can come: with the same classes, made by this one."""
    made_by, here = environment.python(got.snapshot.environment), environment.python(environment.process())
    groups, lost = got.snapshot.groups, {skipped.name for skipped in bound.skipped}
    needy = [g for g in groups if g.kind != "class" and lost.intersection(g.names) and _classes(groups, g) & lost]
    if made_by not in (None, here) and needy:
        classes = sorted({name for group in needy for name in _classes(groups, group) & lost})
        names = [name for group in needy for name in _bindable(got, group)]
        yield (
            f"{', '.join(classes)} cannot come from {made_by} to {here}, what belongs to them can. Run their cells, "
            f"then: %restore_vars {' '.join(names)} from={got.snapshot.id[:8]} --keep-classes"
        )


def _classes(groups: Sequence[Group], group: Group) -> set[str]:
    """The names of the classes that a group needs."""
    return {name for position in group.depends if groups[position].kind == "class" for name in groups[position].names}


def remember_sources(journal: Journal, got: Got, bound: Bound) -> None:
    """Let tracebacks through restored functions and classes show their lines."""
    restored = {**journal.bound, **bound.beside}
    for variable in got.snapshot.variables:
        if variable.source is not None and variable.name in restored:
            remember_source(restored[variable.name], variable.source)


def _report(
    journal: Journal,
    got: Got,
    bound: Bound,
    warnings: list[str],
    scope: Scope,
    session: Callable[[], Mapping[str, str]],
) -> Restored:
    stayed = replace(scope, keep_existing=False).wanted(got.snapshot, ()) - got.wanted
    then = got.snapshot.environment
    now = {**environment.counterpart(then), **session()}
    here = environment.working_directory()
    if then.get(WORKING_DIRECTORY, here) != here:
        warnings.append(f"The working directory was {then[WORKING_DIRECTORY]} and is {here} now.")
    return Restored(
        snapshot=got.snapshot,
        names=tuple(sorted((*journal.before.names, *bound.in_place))),
        skipped=(*got.snapshot.skipped, *bound.skipped),
        kept=tuple(n for n in got.snapshot.names if n in bound.kept or n in stayed),
        warnings=tuple(warnings),
        full=_is_full(journal, scope) and not scope.keep_existing,
        replaced=journal.before.replaced,
        prefix=scope.prefix,
        before=journal.before,
        differences=environment.differences(then, now),
        frames=tuple(_frames(got, bound)) if got.beside else (),
        progress=bound.beside.get(PROGRESS, {}),
    )


def _frames(got: Got, bound: Bound) -> Iterator[Running]:
    """The functions that ran, with those of their locals that came back."""
    seen: Counter[str] = Counter()
    for frame in got.snapshot.frames:
        seen[frame.function] += 1
        found = {name.rpartition(".")[2]: bound.beside[name] for name in frame.names if name in bound.beside}
        yield Running(frame.function, frame.cell, frame.line, found, seen[frame.function])
