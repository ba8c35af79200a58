"""checkpoint: a namespace becomes a snapshot, in five stages.

    select -> stage -> encode -> put -> commit
    `----- the cell waits ----'   `- the writer, beside it          a thread: `capture`, then `write`
    `- the cell waits -'   `- a forked child, which sees all -'     a child: `freeze`, then `thaw`, then `write`

`capture` and `freeze` are the parts that must see a quiet namespace. What `capture` returns touches no live object;
what `freeze` returns is of use in a forked child only, where no object changes any more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ipyrescue import cells, environment
from ipyrescue.binding import borrowed_names
from ipyrescue.errors import CheckpointError
from ipyrescue.manifest import FORMAT_VERSION, PROGRESS, Frame, Settings, Skipped, Snapshot, Variable
from ipyrescue.pickling import arrays, randomness
from ipyrescue.pickling.buffers import Area, Copies, OnDevice, Reference
from ipyrescue.pickling.cutting import Cutter, cut_group
from ipyrescue.pickling.encode import Encoded, EncodedGroup, encode
from ipyrescue.pickling.fenced import Fence
from ipyrescue.pickling.mentions import packages
from ipyrescue.pickling.roots import Frozen
from ipyrescue.pickling.sharing import SharedMappings
from ipyrescue.pickling.sources import is_class, source_of
from ipyrescue.pickling.tensors import gradient, is_trained, named, storage_reference
from ipyrescue.pickling.weights import Weights, weights
from ipyrescue.redaction import redacted, shows_a_secret
from ipyrescue.selection import EXCLUDED, Occasion, Origin, Selection, select
from ipyrescue.store import Store, blobs
from ipyrescue.wording import type_name


@dataclass(frozen=True)
class Staged:
    """A selection whose training state has been copied, so that encoding it is cheap and sees one moment.

    *started* is when the pause began, in seconds of `time.perf_counter`, which children share.
    """

    selection: Selection
    frozen: Frozen
    created: str
    started: float

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The memory that was copied, (address, size_bytes): a child can do without."""
        return self.frozen.copies.spans()


@dataclass(frozen=True)
class Draft:
    """All that a snapshot will say and hold, in memory, touching no live object."""

    snapshot: Snapshot
    groups: tuple[EncodedGroup, ...]
    sizes: Mapping[str, int]
    history: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Bytes of all streams and buffers, before compression and deduplication, and of the cells."""
        return sum(len(g.stream) + sum(len(b) for b in g.buffers) for g in self.groups) + len(self.history)


def checkpoint(
    namespace: dict[str, Any],
    store: Store,
    area: Area,
    *,
    origin: Origin,
    occasion: Occasion,
    settings: Settings,
    fence: Fence | None = None,
) -> Snapshot:
    """Make a snapshot of *namespace* that is durable when this returns."""
    draft = capture(namespace, store, area, origin=origin, occasion=occasion, settings=settings, fence=fence)
    return write(draft, store)


def capture(
    namespace: dict[str, Any],
    store: Store,
    area: Area,
    *,
    origin: Origin,
    occasion: Occasion,
    settings: Settings,
    fence: Fence | None = None,
) -> Draft:
    """The pause: select, stage, encode. Nothing that leaves here refers to a live object.

    With a *fence*, code of unknown manners that takes an object apart runs behind it.
    """
    started = time.perf_counter()
    selection = select(namespace, store.next_sequence(), origin, occasion, settings)
    return draft_of(stage(selection, area, started), fence)


def freeze(
    namespace: dict[str, Any], store: Store, area: Area, *, origin: Origin, occasion: Occasion, settings: Settings
) -> Staged:
    """The pause before a fork: select, and copy what training writes to, and what processes share.

    The rest is frozen by the fork itself.
    """
    started = time.perf_counter()
    selection = select(namespace, store.next_sequence(), origin, occasion, settings)
    environment.notice_devices()
    return stage(selection, area, started, trained_only=True)


def thaw(staged: Staged, fence: Fence | None, *, lacks_memory: bool, forked_at: float) -> Draft:
    """In a forked child: encode what stands still here. Memory is referred to where it is.

    With *lacks_memory* what was copied is not there itself, so code of unknown manners is not run. The
    pause was over when the child was *forked_at*, in seconds of `time.perf_counter`. Raises `NotInAChild`.
    """
    staged.frozen.copies.rest()
    pause_seconds = forked_at - staged.started
    try:
        draft = draft_of(staged, _NoFence(fence) if lacks_memory and fence is not None else fence)
    except OnDevice:
        raise NotInAChild("devices") from None
    return replace(draft, snapshot=replace(draft.snapshot, pause_seconds=pause_seconds))


class NotInAChild(Exception):  # noqa: N818 - not an error: another way will do
    """A snapshot is not for this child, which *lacks* `devices`, or `memory` that unknown code may want."""

    @property
    def lacks(self) -> str:
        """What the child lacks."""
        return str(self.args[0])


class _NoFence:
    """Stands for a fence where code of unknown manners must not run at all."""

    def __init__(self, fence: Fence) -> None:
        self.denied = fence.denied

    def run(self, work: Callable[[Any], Sequence[Any]]) -> Any:
        """Refuse."""
        raise NotInAChild("memory")


def write(draft: Draft, store: Store) -> Snapshot:
    """The part beside the cell: put the bytes, then commit the manifest that refers to them."""
    with store.writing():
        snapshot = put(draft, store)
        commit(snapshot, store)
    return snapshot


# --- stage and encode -------------------------------------------------------------------------------------------


def stage(selection: Selection, area: Area, started: float, *, trained_only: bool = False) -> Staged:
    """Copy the memory of every tensor that has an obvious path; later finds are copied as they are met.

    With *trained_only* what training does not write to is left to whoever freezes it otherwise, by a fork.
    """
    created = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    area.reset()
    copies = Copies(area)
    names: dict[int, str] = {}
    references: list[Reference] = []
    at_rest: list[Any] = []
    for name, value in selection.values.items():
        # Memory that a tensor no longer has may raise anything; encode decides about it.
        with suppress(Exception):
            _note_one(name, value, names, references, at_rest if trained_only else None)
    copies.take_all(references)
    if trained_only:
        _take_shared(copies, area, at_rest, selection.values.values())
    frozen = Frozen(selection.values, selection.namespace, copies, names, randomness.capture())
    return Staged(selection, frozen, created, started)


def _note_one(
    name: str, value: Any, names: dict[int, str], references: list[Reference], at_rest: list[Any] | None
) -> None:
    """Note the tensors of a variable: where they lie, or, if others are to be told *at_rest*, what is not trained."""
    for dotted, tensor in named(name, value):
        names.setdefault(id(tensor), dotted)
        if at_rest is not None and not is_trained(value, tensor):
            at_rest.append(tensor)
            continue
        for trained in (tensor, gradient(tensor)):
            reference = storage_reference(trained) if trained is not None else None
            if reference is not None:
                references.append(reference)


def _take_shared(copies: Copies, area: Area, tensors: Iterable[Any], values: Iterable[Any]) -> None:
    """Copy what no fork freezes: writable memory that processes share, as far as it has an obvious path.

    Where there is no room for that, and what else there is of it, is copied by the child, when it meets it.
    """
    shared = SharedMappings(but=area.spans())
    if not shared:
        return
    references: list[Reference] = []
    for tensor in tensors:
        with suppress(Exception):  # as above
            references += filter(None, [storage_reference(tensor)])
    for value in values:
        with suppress(Exception):  # as above
            references += arrays.borrowed_references(value)
    with suppress(CheckpointError):
        copies.take_all(r for r in references if r.device == "cpu" and shared.touch(r.start, r.end))


def draft_of(staged: Staged, fence: Fence | None = None) -> Draft:
    """Encode what was staged, and write down all that the manifest will say but for where the bytes stand."""
    selection = staged.selection
    named_all = {**_arrays(selection.values), **staged.frozen.tensor_names}
    encoded = encode(replace(staged.frozen, tensor_names=named_all, weights=_trained(selection)), fence)
    refused = _refused(selection, encoded)
    _insist_on_tagged(selection, refused)
    snapshot = Snapshot(
        format=FORMAT_VERSION,
        id=secrets.token_hex(8),
        sequence=selection.sequence,
        notebook=selection.origin.notebook,
        incarnation=selection.origin.incarnation,
        created=staged.created,
        label=selection.occasion.label,
        trigger=selection.occasion.trigger,
        cut=selection.occasion.cut,
        reason=selection.occasion.reason,
        traceback=selection.occasion.traceback,
        cell=selection.origin.cell,
        host=selection.origin.host,
        settings=selection.settings,
        environment={**environment.fingerprint(packages(g.stream for g in encoded.groups)), **selection.origin.session},
        imports=selection.imports,
        variables=tuple(_variables(selection, encoded)),
        skipped=(*selection.skipped, *refused),
        warnings=(*map(redacted, encoded.warnings), *_copied(selection, encoded)),
        groups=(),
        blobs=(),
        new_bytes=0,
        pause_seconds=time.perf_counter() - staged.started,
        frames=tuple(_frames(selection, encoded)),
    )
    return Draft(snapshot, encoded.groups, encoded.sizes, selection.origin.history)


def _arrays(values: Mapping[str, Any]) -> dict[int, str]:
    """The dotted names of arrays, by their ids. Where a child writes, the cell does not wait for this."""
    return {id(array): dotted for name, value in values.items() for dotted, array in arrays.named(name, value)}


def _trained(selection: Selection) -> tuple[Weights, ...]:
    """What is trained while the snapshot is cut, unless the user had it left out."""
    if selection.settings.only:
        return ()
    local = {f.pseudo_name(name): value for f in selection.occasion.frames for name, value in f.locals.items()}
    excluded = [skipped.name for skipped in selection.skipped if skipped.reason == EXCLUDED]
    known = {**selection.namespace, **local}
    return weights(selection.occasion.trained, [known[name] for name in excluded if name in known])


def _refused(selection: Selection, encoded: Encoded) -> tuple[Skipped, ...]:
    made_by = selection.origin.cells
    return tuple(
        Skipped(name, _type(name, selection.values[name]), _told(reason), made_by.get(name))
        for name, reason in encoded.refused.items()
    )


def _told(reason: str) -> str:
    """A reason may repeat what an object of the user said when it refused: what may show a credential is not noted."""
    kind, said, _ = reason.partition(":")
    return f"{kind}: what it said may show a secret" if said and shows_a_secret(reason) else reason


def _copied(selection: Selection, encoded: Encoded) -> Iterator[str]:
    """Tell of functions that see the live variables now and will not when this snapshot is restored."""
    for name in sorted(encoded.sizes):
        borrowed = borrowed_names(selection.values[name])
        if borrowed:
            yield (
                f"{name} was restored with as= or into=, and sees your {', '.join(borrowed)}. This snapshot holds "
                "copies for it, which see no later change. To have it as it was: restore those names together with it."
            )


def _insist_on_tagged(selection: Selection, refused: tuple[Skipped, ...]) -> None:
    """A command that names what cannot be saved makes no snapshot; a scheduled snapshot says so and goes on."""
    lost = [s for s in (*selection.skipped, *refused) if s.name in (*selection.tagged, *selection.settings.tagged)]
    if lost and selection.occasion.trigger == "command":
        raise CheckpointError(
            f"No snapshot was made: {'; '.join(map(str, lost))}. "
            "What is named must be saved: leave it out of the line or, if it was named before, type "
            "%checkpoint_vars --off NAME"
        )


def _variables(selection: Selection, encoded: Encoded) -> Iterator[Variable]:
    origin, values = selection.origin, selection.values
    made_by = {**origin.cells, **_cells_of_locals(selection)}
    # A class without methods tells no place in the code; the cell that made it is asked.
    ran = cells.from_bytes(origin.history) if any(is_class(values[n]) for n in encoded.sizes) else ()
    for name, size_bytes in sorted(encoded.sizes.items()):
        value, cell = values[name], made_by.get(name)
        source = source_of(value) or (cells.class_source(ran, cell, name) if is_class(value) else None)
        yield Variable(name, _type(name, value), size_bytes, cell, redacted(source) if source else None)


def _cells_of_locals(selection: Selection) -> dict[str, int]:
    """The cell of each local is that of its function."""
    frames = selection.occasion.frames
    return {frame.pseudo_name(name): frame.cell for frame in frames for name in frame.locals if frame.cell is not None}


def _frames(selection: Selection, encoded: Encoded) -> Iterator[Frame]:
    """The functions that ran, with those of their locals that are saved."""
    for frame in selection.occasion.frames:
        names = map(frame.pseudo_name, frame.locals)
        yield Frame(frame.function, frame.cell, frame.line, tuple(name for name in names if name in encoded.sizes))


def _type(name: str, value: Any) -> str:
    return "progress" if name == PROGRESS else type_name(value)


# --- put and commit ---------------------------------------------------------------------------------------------


def put(draft: Draft, store: Store) -> Snapshot:
    """Cut streams and buffers into blobs and store those that the store does not have."""
    cutter = Cutter()
    groups = tuple(cut_group(group, cutter) for group in draft.groups)
    history = cutter.cut(memoryview(draft.history), cells.BLOB_BYTES)
    stored = store.put(cutter.blobs)
    return replace(draft.snapshot, groups=groups, blobs=stored.refs, new_bytes=stored.new_bytes, cells=history)


def imagine(draft: Draft) -> Snapshot:
    """What `put` would make of a draft, to compare it with what is stored: bytes are hashed, and not kept."""
    cutter = Cutter()
    groups = tuple(cut_group(group, cutter) for group in draft.groups)
    return replace(draft.snapshot, groups=groups, blobs=blobs.named(cutter.blobs))


def commit(snapshot: Snapshot, store: Store) -> None:
    """Publish the signed manifest: from here the snapshot exists, before it never did."""
    store.commit(snapshot)
