"""checkpoint: a namespace becomes a snapshot, in five stages.

    select -> stage -> encode -> put -> commit
    `----- the cell waits ----'   `- the writer, beside it

`capture` is the part that must see a quiet namespace; what it returns touches no live object. `write` is the part
that may run in another thread.
"""

from __future__ import annotations

import fnmatch
import os
import re
import secrets
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Protocol

from ipyrescue import environment
from ipyrescue.environment import WORKING_DIRECTORY
from ipyrescue.errors import CheckpointError
from ipyrescue.manifest import (
    BLOB_SIZE_BYTES,
    FORMAT_VERSION,
    BlobRef,
    Buffer,
    Group,
    Import,
    Settings,
    Skipped,
    Snapshot,
    Stream,
    Variable,
)
from ipyrescue.pickling import randomness
from ipyrescue.pickling.buffers import Copies
from ipyrescue.pickling.encode import Encoded, EncodedGroup, Frozen, compress, encode
from ipyrescue.pickling.sources import source_of
from ipyrescue.pickling.tensors import named, storage_reference
from ipyrescue.store import Store

_COALESCE_BELOW_BYTES = 64 << 10
_IPYTHON_NAME = re.compile(r"_|__|___|_i{1,3}|_i?\d+|_[dios]h|_exit_code|__\w+__|In|Out|exit|quit|get_ipython")
_SECRET_NAME = re.compile(
    r"(?i)(^|_)(passw(or)?d|passphrase|secret|token|api_?key|access_?key|private_?key|credentials?)(_|$)"
)
_SECRET_VALUE = re.compile(
    r"sk-[\w-]{16,}|gh[pousr]_\w{20,}|hf_\w{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|\w+://[^/\s:@]+:[^/\s:@]+@|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
)


class Area(Protocol):
    """Where copies of live memory go; see `ipyrescue.capture.staging`."""

    def reset(self) -> None:
        """Forget the copies of the snapshot before."""

    def hold(self, address: int, size_bytes: int) -> memoryview:
        """Copy raw memory to where user code cannot change it."""


@dataclass(frozen=True)
class Origin:
    """Which notebook and kernel process a snapshot comes from, and what the kernel knows about its names.

    *hidden* are names with the values that IPython itself put there; *cells* maps a name to the execution count
    of the cell that bound it.
    """

    notebook: str
    incarnation: str
    host: str
    hidden: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    cell: int | None = None


@dataclass(frozen=True)
class Occasion:
    """Why and where in the program a snapshot is taken."""

    trigger: str = "command"
    cut: str = "cell_end"
    reason: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Selection:
    """The names that a snapshot will hold, those that it will not, and its place in the order of snapshots."""

    sequence: int
    origin: Origin
    occasion: Occasion
    settings: Settings
    namespace: dict[str, Any]
    values: Mapping[str, Any]
    imports: tuple[Import, ...]
    skipped: tuple[Skipped, ...]
    tagged: tuple[str, ...]


@dataclass(frozen=True)
class Staged:
    """A selection whose training state has been copied, so that encoding it is cheap and sees one moment."""

    selection: Selection
    frozen: Frozen


@dataclass(frozen=True)
class Draft:
    """All that a snapshot will say and hold, in memory, touching no live object."""

    snapshot: Snapshot
    groups: tuple[EncodedGroup, ...]
    sizes: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        """Bytes of all streams and buffers, before compression and deduplication."""
        return sum(len(g.stream) + sum(len(b) for b in g.buffers) for g in self.groups)


def checkpoint(
    namespace: dict[str, Any], store: Store, area: Area, *, origin: Origin, occasion: Occasion, settings: Settings
) -> Snapshot:
    """Make a snapshot of *namespace* that is durable when this returns."""
    return write(capture(namespace, store, area, origin=origin, occasion=occasion, settings=settings), store)


def capture(
    namespace: dict[str, Any], store: Store, area: Area, *, origin: Origin, occasion: Occasion, settings: Settings
) -> Draft:
    """The pause: select, stage, encode. Nothing that leaves here refers to a live object."""
    started = time.perf_counter()
    selection = select(namespace, store.next_sequence(), origin, occasion, settings)
    draft = draft_of(stage(selection, area))
    return replace(draft, snapshot=replace(draft.snapshot, pause_seconds=time.perf_counter() - started))


def write(draft: Draft, store: Store) -> Snapshot:
    """The part beside the cell: put the bytes, then commit the manifest that refers to them."""
    with store.writing():
        snapshot = put(draft, store)
        commit(snapshot, store)
    return snapshot


# --- select -----------------------------------------------------------------------------------------------------


def select(
    namespace: dict[str, Any], sequence: int, origin: Origin, occasion: Occasion, settings: Settings
) -> Selection:
    """Choose the names that the user made; modules become imports, secrets and excluded names are Skipped."""
    mine = {name: value for name, value in namespace.items() if _is_users(name, value, origin.hidden)}
    tagged = expand(settings.tagged, mine)
    wanted = {name: value for name, value in mine.items() if not settings.only or name in tagged}
    values, imports, skipped = {}, [], [*_missing(settings.tagged, mine)]
    for name, value in wanted.items():
        reason = _reason_to_leave_out(name, value, tagged, settings)
        if reason:
            skipped.append(Skipped(name, type_name(value), reason, origin.cells.get(name)))
        elif isinstance(value, types.ModuleType):
            imports.append(Import(name, value.__name__))
        else:
            values[name] = value
    return Selection(
        sequence, origin, occasion, settings, namespace, values, tuple(imports), tuple(skipped), tagged
    )  # fmt: skip


def _is_users(name: str, value: Any, hidden: Mapping[str, Any]) -> bool:
    if name in hidden and hidden[name] is value:
        return False
    return not _IPYTHON_NAME.fullmatch(name)


def expand(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The names that the tagged names and globs mean, in the order of *patterns*."""
    known = list(names)
    found = [name for pattern in patterns for name in fnmatch.filter(known, pattern)]
    return tuple(dict.fromkeys(found))


def _missing(tagged: Iterable[str], names: Mapping[str, Any]) -> Iterator[Skipped]:
    for name in tagged:
        if not re.search(r"[*?\[]", name) and name not in names:
            yield Skipped(name, "", "tagged, but not in the namespace")


def _reason_to_leave_out(name: str, value: Any, tagged: tuple[str, ...], settings: Settings) -> str | None:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.exclude):
        return "excluded by -x"
    if name in settings.allow or name in tagged or not isinstance(value, (str, bytes)):
        return None
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if _SECRET_NAME.search(name) or _SECRET_VALUE.search(text[:4096]):
        return f"looks like a secret; save it with --allow {name}"
    return None


def type_name(value: Any) -> str:
    """A type as a person would say it: `list`, `torch.Tensor`, `Net`."""
    kind = type(value)
    name: str = kind.__qualname__
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"


# --- stage and encode -------------------------------------------------------------------------------------------


def stage(selection: Selection, area: Area) -> Staged:
    """Copy the memory of every tensor that has an obvious path; later finds are copied as they are met."""
    area.reset()
    copies = Copies(area.hold)
    names: dict[int, str] = {}
    for name, value in selection.values.items():
        for dotted, tensor in named(name, value):
            names.setdefault(id(tensor), dotted)
            reference = storage_reference(tensor)
            if reference is not None:
                copies.take(reference)
    frozen = Frozen(selection.values, selection.namespace, copies, names, randomness.capture())
    return Staged(selection, frozen)


def draft_of(staged: Staged) -> Draft:
    """Encode what was staged, and write down all that the manifest will say but for where the bytes stand."""
    selection, encoded = staged.selection, encode(staged.frozen)
    refused = _refused(selection, encoded)
    _insist_on_tagged(selection, refused)
    snapshot = Snapshot(
        format=FORMAT_VERSION,
        id=secrets.token_hex(8),
        sequence=selection.sequence,
        notebook=selection.origin.notebook,
        incarnation=selection.origin.incarnation,
        created=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        label=selection.occasion.label,
        trigger=selection.occasion.trigger,
        cut=selection.occasion.cut,
        reason=selection.occasion.reason,
        cell=selection.origin.cell,
        host=selection.origin.host,
        settings=selection.settings,
        environment={**environment.fingerprint(), WORKING_DIRECTORY: os.getcwd()},
        imports=selection.imports,
        variables=tuple(_variables(selection, encoded)),
        skipped=(*selection.skipped, *refused),
        warnings=encoded.warnings,
        groups=(),
        blobs=(),
        new_bytes=0,
        pause_seconds=0.0,
    )
    return Draft(snapshot, encoded.groups, encoded.sizes)


def _refused(selection: Selection, encoded: Encoded) -> tuple[Skipped, ...]:
    cells = selection.origin.cells
    return tuple(
        Skipped(name, type_name(selection.values[name]), reason, cells.get(name))
        for name, reason in encoded.refused.items()
    )


def _insist_on_tagged(selection: Selection, refused: tuple[Skipped, ...]) -> None:
    """A command that names what cannot be saved makes no snapshot; a scheduled snapshot says so and goes on."""
    lost = [s for s in (*selection.skipped, *refused) if s.name in (*selection.tagged, *selection.settings.tagged)]
    if lost and selection.occasion.trigger == "command":
        raise CheckpointError(
            f"No snapshot was made: {'; '.join(map(str, lost))}. "
            "You named it, so it must be saved. Leave it out: %checkpoint_vars -x NAME"
        )


def _variables(selection: Selection, encoded: Encoded) -> Iterator[Variable]:
    for name, size_bytes in sorted(encoded.sizes.items()):
        value = selection.values[name]
        yield Variable(name, type_name(value), size_bytes, selection.origin.cells.get(name), source_of(value))


# --- put and commit ---------------------------------------------------------------------------------------------


def put(draft: Draft, store: Store) -> Snapshot:
    """Cut streams and buffers into blobs and store those that the store does not have."""
    cutter = _Cutter()
    groups = tuple(_cut_group(group, cutter) for group in draft.groups)
    stored = store.put(cutter.blobs)
    blobs: tuple[BlobRef, ...] = stored.refs
    return replace(draft.snapshot, groups=groups, blobs=blobs, new_bytes=stored.new_bytes)


def commit(snapshot: Snapshot, store: Store) -> None:
    """Publish the signed manifest: from here the snapshot exists, before it never did."""
    store.commit(snapshot)


class _Cutter:
    """Collects blobs of at most `BLOB_SIZE_BYTES`, large buffers by themselves, small ones of a group together."""

    def __init__(self) -> None:
        self.blobs: list[memoryview] = []

    def cut(self, data: memoryview) -> tuple[int, ...]:
        """Add *data* as blobs and return their numbers."""
        first = len(self.blobs)
        self.blobs += [data[at : at + BLOB_SIZE_BYTES] for at in range(0, len(data), BLOB_SIZE_BYTES)]
        return tuple(range(first, len(self.blobs)))

    def cut_together(self, parts: Mapping[int, memoryview]) -> dict[int, Buffer]:
        """Add small parts joined into few blobs; return for each where it stands."""
        where: dict[int, Buffer] = {}
        joined = bytearray()
        for key, part in parts.items():
            if len(joined) + len(part) > BLOB_SIZE_BYTES:
                self.blobs.append(memoryview(bytes(joined)))
                joined.clear()
            where[key] = Buffer((len(self.blobs),) if len(part) else (), len(joined) if len(part) else 0, len(part))
            joined += part
        if joined:
            self.blobs.append(memoryview(bytes(joined)))
        return where


def _cut_group(group: EncodedGroup, cutter: _Cutter) -> Group:
    codec, packed = compress(group.stream)
    stream = Stream(cutter.cut(memoryview(packed)), len(group.stream), codec)
    small = {i: b for i, b in enumerate(group.buffers) if len(b) < _COALESCE_BELOW_BYTES}
    together = cutter.cut_together(small)
    buffers = tuple(
        together[i] if i in together else Buffer(cutter.cut(b), 0, len(b)) for i, b in enumerate(group.buffers)
    )
    return Group(
        names=group.names,
        kind=group.kind,
        encoder=group.encoder,
        stream=stream,
        buffers=buffers,
        storages=group.storages,
        out_of_band=group.out_of_band,
        tensors=group.tensors,
        depends=group.depends,
    )
