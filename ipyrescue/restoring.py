"""restore: a snapshot becomes a namespace again, in five stages.

    find -> get -> place -> decode -> bind

`find` stands in `ipyrescue.finding`, `get` in `ipyrescue.getting`: all bytes are verified before any is unpickled.
`decode` and `bind` go group by group, under a journal (`ipyrescue.binding`) that is rolled back whole when anything
unforeseen happens. What came back otherwise than it was is put into words by `ipyrescue.caveats`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ipyrescue import environment
from ipyrescue.binding import Before, Journal
from ipyrescue.caveats import edited_classes, of_another_python, separated, strangers
from ipyrescue.environment import WORKING_DIRECTORY
from ipyrescue.errors import RestoreError
from ipyrescue.finding import Scope, find, refuse_to_separate
from ipyrescue.getting import Got, get_first_good
from ipyrescue.manifest import PROGRESS, Skipped, Snapshot
from ipyrescue.pickling import collector, devices, in_place, randomness
from ipyrescue.pickling import decode as decoding
from ipyrescue.pickling.decode import Decoded, Placed
from ipyrescue.pickling.sources import is_class, remember_source
from ipyrescue.settings import format_size
from ipyrescue.stack import Running
from ipyrescue.store import Store

__all__ = ["Before", "Restored", "Scope", "find", "restore"]


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
            *separated(got, bound.in_place, scope),
            *of_another_python(got, [skipped.name for skipped in bound.skipped]),
        ]
        if _is_full(journal, scope):
            warnings += rewind(placed, journal, scope)
        remember_sources(journal, got, bound)
    return _report(journal, got, bound, warnings, scope, session)


def _is_full(journal: Journal, scope: Scope) -> bool:
    """Whether the old life goes on, random streams included: every name is wanted, in its place."""
    return not scope.names and not journal.is_beside


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
        names = got.bindable_names(group)
        live = {name: namespace[name] for name in names if is_class(namespace.get(name))}
        if group.kind == "class" and len(live) == len(names):
            own.update(live)
            if len({id(cls) for cls in live.values()}) == 1:  # `cls = Net` in a function is the same class
                own.update(dict.fromkeys(got.beside_names(group), next(iter(live.values()))))
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
        wanted = got.wanted_names(group.group)
        beside = got.beside_names(group.group)
        if group.failure:
            bound.skipped.extend(_not_restored(got.snapshot, name, group.failure) for name in (*wanted, *beside))
            continue
        bound.beside.update({name: group.values[name] for name in beside})
        may_load = scope.force and len(wanted) < len(got.bindable_names(group.group)) and not journal.is_beside
        for name in wanted:
            if name in own:
                bound.kept.append(name)
            elif may_load and _load_in_place(journal, name, group.values[name]):
                bound.in_place.append(name)
            else:
                journal.bind(name, group.values[name])
    for position, reason in {**got.damaged, **got.homeless}.items():
        lost = got.snapshot.groups[position]
        names = (*got.wanted_names(lost), *got.beside_names(lost))
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


# --- report -----------------------------------------------------------------------------------------------------


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
