"""The nouns: what a snapshot says about itself. Plain data; bytes in, bytes out; no files, no live objects.

A `Snapshot` in memory and a manifest on disk are the same thing. The reader is strict: it accepts what
`Snapshot.to_bytes` writes and nothing else, so that a damaged or hostile manifest ends in `CorruptError`
and never in another exception. Signatures are not its business (see `ipyrescue.store.signing`): by the time
a manifest is parsed for a restore, its MAC has been checked.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any

from ipyrescue.errors import CorruptError, StoreFormatError

FORMAT_VERSION = 1
BLOB_SIZE_BYTES = 1 << 20
"""A buffer is cut into blobs of this size; the last one is shorter."""

CUTS = ("boundary", "cell_end", "await", "line", "in_hook", "interrupted")
"""Where in the program a snapshot was taken. All but the last are consistent."""

PROGRESS = "ipyrescue.progress"
"""The pseudo-name of what the loops of the session were at."""

_LOCAL = re.compile(r".+\(\)(?:#[1-9][0-9]*)?\.([^.]+)", re.DOTALL)

_MAX_INTEGER = (1 << 63) - 1

Hash = Annotated[str, re.compile(r"[0-9a-f]{64}")]
Id = Annotated[str, re.compile(r"[0-9a-f]{16}")]
Cut = Annotated[str, re.compile("|".join(CUTS))]
Codec = Annotated[str, re.compile("zstd|raw")]
StorageKind = Annotated[str, re.compile("torch|numpy|bytes|bytearray")]
GroupKind = Annotated[str, re.compile("class|function|data|randomness")]
Policy = Annotated[str, re.compile("offer|restore|never")]
Encoder = Annotated[str, re.compile("pickle|dill")]
"""Texts of a fixed shape; the reader matches them whole."""


@dataclass(frozen=True)
class BlobRef:
    """Where immutable bytes stand: *size_bytes* at *offset* of a pack; *hash* is their BLAKE3-256 in hex."""

    hash: Hash
    pack: Id
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Stream:
    """The pickle bytes of a group: blobs joined, then decompressed to *size_bytes*."""

    blobs: tuple[int, ...]
    size_bytes: int
    codec: Codec


@dataclass(frozen=True)
class Buffer:
    """Bytes left out of a stream: *size_bytes* from *offset* of the joined *blobs*."""

    blobs: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Storage:
    """Memory that objects of a group refer to: a part of one of its buffers. *kind* says who allocates it."""

    buffer: int
    offset: int
    size_bytes: int
    kind: StorageKind
    device: str


@dataclass(frozen=True)
class Tensor:
    """A tensor or array by its dotted name; *shape*, *stride* and *offset* count elements of *dtype*.

    An array's stride and offset count bytes, as NumPy's do. *name* is empty where no path was found.
    """

    name: str
    storage: int
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Group:
    """Names that share objects, encoded as one stream. *depends* are groups that must be decoded before it."""

    names: tuple[str, ...]
    kind: GroupKind
    encoder: Encoder
    stream: Stream
    buffers: tuple[Buffer, ...]
    storages: tuple[Storage, ...]
    out_of_band: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    depends: tuple[int, ...]


@dataclass(frozen=True)
class Import:
    """A name bound to a module; comes back as an import.

    *submodules* are those of its package that cells imported too, by their full names: `import a.b` binds `a` alone.
    """

    name: str
    module: str
    submodules: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"import {', '.join((self.module, *self.submodules))}"


@dataclass(frozen=True)
class Variable:
    """One name that the snapshot holds. *cell* is the execution count of the cell that bound it, if known."""

    name: str
    type: str
    size_bytes: int
    cell: int | None
    source: str | None


@dataclass(frozen=True)
class Frame:
    """A function of a cell that ran: its name, the cell that defined it, the line where it stood, and its locals.

    *names* are the pseudo-names under which these travel.
    """

    function: str
    cell: int | None
    line: int
    names: tuple[str, ...]


def local_name(name: str) -> str | None:
    """The variable that a pseudo-name stands for (`step` of `train().step`); None for what is a variable itself."""
    found = _LOCAL.fullmatch(name)
    return found[1] if found and found[1].isidentifier() else None


@dataclass(frozen=True)
class Skipped:
    """A variable that was left out, with its type, the reason and, where known, the cell that makes it again."""

    name: str
    type: str
    reason: str
    cell: int | None = None

    def __str__(self) -> str:
        made = f", made in cell [{self.cell}]" if self.cell is not None else ""
        return f"{self.name} ({self.reason}{made})"


@dataclass(frozen=True)
class Settings:
    """How the kernel was armed when the snapshot was taken, so that a restore can arm it again."""

    every_seconds: float | None = None
    keep: int | None = None
    max_size_bytes: int | None = None
    only: bool = False
    tagged: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    on_death: Policy | None = None


@dataclass(frozen=True)
class Snapshot:
    """The variables of one notebook at one moment, on disk, complete, signed.

    *sequence* orders snapshots within a store (clocks do not); *incarnation* is the kernel process that made it;
    *groups* stand in an order in which they can be decoded; *cells* are the blobs that hold what the session ran,
    as text (see `ipyrescue.cells`); *frames* are the functions that ran, outermost first. Their locals are among the
    *variables* under pseudo-names, as is `ipyrescue.progress`: these travel with the others and are never bound.
    """

    format: int
    id: Id
    sequence: int
    notebook: str
    incarnation: Id
    created: str
    label: str | None
    trigger: str
    cut: Cut
    reason: str | None
    cell: int | None
    host: str
    settings: Settings
    environment: dict[str, str]
    imports: tuple[Import, ...]
    variables: tuple[Variable, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    groups: tuple[Group, ...]
    blobs: tuple[BlobRef, ...]
    new_bytes: int
    pause_seconds: float
    cells: tuple[int, ...] = ()
    traceback: str | None = None
    frames: tuple[Frame, ...] = ()

    @property
    def consistent(self) -> bool:
        """Whether the snapshot was cut between two steps of the program, not in the middle of one."""
        return self.cut != "interrupted"

    @property
    def size_bytes(self) -> int:
        """Bytes that a restore reads: every blob once."""
        return sum({blob.hash: blob.size_bytes for blob in self.blobs}.values())

    @property
    def packs(self) -> dict[str, int]:
        """The packs that it needs, and the length in bytes that each must have for that."""
        ends: dict[str, int] = {}
        for blob in self.blobs:
            if blob.size_bytes:
                ends[blob.pack] = max(ends.get(blob.pack, 0), blob.offset + blob.size_bytes)
        return ends

    @property
    def devices(self) -> frozenset[str]:
        """Where its tensors were, as torch spells it."""
        return frozenset(storage.device for group in self.groups for storage in group.storages)

    @property
    def variable_count(self) -> int:
        """How many variables of the namespace it holds."""
        return len(self.globals)

    @property
    def import_count(self) -> int:
        """How many names it holds that come back as imports."""
        return len(self.imports)

    @property
    def skipped_count(self) -> int:
        """How many variables were left out."""
        return len(self.skipped)

    @property
    def pseudo_names(self) -> frozenset[str]:
        """The names that no restore binds: of locals, and `ipyrescue.progress` where that is known."""
        progress = (v.name for v in self.variables if v.name == PROGRESS)
        return frozenset(progress).union(*(frame.names for frame in self.frames))

    @property
    def globals(self) -> tuple[Variable, ...]:
        """The variables of the namespace."""
        pseudo_names = self.pseudo_names
        return tuple(v for v in self.variables if v.name not in pseudo_names)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a full restore binds."""
        return tuple(v.name for v in self.globals) + tuple(i.name for i in self.imports)

    @property
    def lost(self) -> tuple[Skipped, ...]:
        """What the user named and it does not hold. A local is what was named where no variable has its name."""
        return tuple(
            skipped
            for skipped in self.skipped
            if skipped.name in self.settings.tagged
            or (local_name(skipped.name) in self.settings.tagged and local_name(skipped.name) not in self.names)
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, ASCII, no NaN."""
        text = json.dumps(self, default=vars, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text.encode("ascii")

    @classmethod
    def from_bytes(cls, raw: bytes) -> Snapshot:
        """Parse what `to_bytes` wrote; raise `CorruptError` or `StoreFormatError` for everything else."""
        fields = _parse(raw)
        version = fields.get("format")
        if type(version) is int and version > FORMAT_VERSION:
            raise StoreFormatError(
                f"This snapshot has format {version}; this ipyrescue reads up to {FORMAT_VERSION}. "
                "Upgrade it: pip install -U ipyrescue"
            )
        snapshot: Snapshot = _reader(typing.cast(Any, cls), "manifest")(fields)
        _check_references(snapshot)
        _check_frames(snapshot)
        return snapshot


def _parse(raw: bytes) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise CorruptError("A manifest has the same key twice.")
        return found

    def no_constants(text: str) -> Any:
        raise CorruptError(f"A manifest holds {text}, which is no JSON.")

    try:
        fields = json.loads(raw.decode("ascii"), object_pairs_hook=no_duplicates, parse_constant=no_constants)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"A manifest is not readable as JSON: {error}") from error
    if type(fields) is not dict:
        raise CorruptError("A manifest is not a JSON object.")
    return fields


Reader = Callable[[Any], Any]
"""Turns JSON into a value of one kind, or raises `CorruptError`: exact keys, exact types, patterns matched whole."""


@cache
def _reader(kind: Any, where: str) -> Reader:
    """Make the reader of *kind*; *where* is what its errors call the place. Made once: there are thousands of blobs."""
    if kind in (int, float, str, bool):
        return partial(_scalar, kind, where)
    if dataclasses.is_dataclass(kind):
        return _record_reader(typing.cast(type, kind), where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return lambda value: _matched(arguments[1], _scalar(arguments[0], where, value), where)
    if origin is tuple:
        item = _reader(arguments[0], where)
        return lambda value: tuple(map(item, _of_type(list, value, where)))
    if origin is dict:
        return lambda value: {k: _scalar(str, where, v) for k, v in _of_type(dict, value, where).items()}
    optional = _reader(arguments[0], where)
    return lambda value: None if value is None else optional(value)


def _record_reader(cls: type, where: str) -> Reader:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [(name, _reader(kind, f"{where}.{name}")) for name, kind in hints.items()]

    def read(value: Any) -> Any:
        if type(value) is not dict or value.keys() != hints.keys():
            raise CorruptError(f"A manifest's {where} has missing or unknown fields.")
        return cls(*[reader(value[name]) for name, reader in fields])

    return read


def _of_type(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise CorruptError(f"A manifest's {where} has the wrong shape.")
    return value


def _matched(pattern: re.Pattern[str], text: str, where: str) -> str:
    if not pattern.fullmatch(text):
        raise CorruptError(f"A manifest's {where} is malformed.")
    return text


def _scalar(kind: type, where: str, value: Any) -> Any:
    if kind is float and type(value) is int:
        value = float(value) if abs(value) <= _MAX_INTEGER else math.inf
    good = type(value) is kind
    if good and kind is int:
        good = -_MAX_INTEGER <= value <= _MAX_INTEGER
    elif good and kind is float:
        good = math.isfinite(value)
    if not good:
        raise CorruptError(f"A manifest's {where} is not of type {kind.__name__}.")
    return value


def _check_references(snapshot: Snapshot) -> None:
    """Every index points somewhere, every part lies within its whole, and sizes add up."""
    sizes = [blob.size_bytes for blob in snapshot.blobs]
    good = snapshot.format == FORMAT_VERSION and snapshot.sequence >= 0
    good = good and all(0 <= i < len(sizes) for i in snapshot.cells)
    good = good and all(b.offset >= 0 and 0 <= b.size_bytes <= BLOB_SIZE_BYTES for b in snapshot.blobs)
    for position, group in enumerate(snapshot.groups):
        good = good and all(0 <= d < position for d in group.depends)
        good = good and all(0 <= i < len(sizes) for i in group.stream.blobs) and group.stream.size_bytes >= 0
        good = good and all(_within_blobs(buffer, sizes) for buffer in group.buffers)
        good = good and all(_within_buffers(storage, group.buffers) for storage in group.storages)
        good = good and all(0 <= i < len(group.storages) for i in group.out_of_band)
        good = good and all(0 <= t.storage < len(group.storages) for t in group.tensors)
    if not good:
        raise CorruptError("A manifest refers to bytes that it does not list.")


def _check_frames(snapshot: Snapshot) -> None:
    """Every local is a variable under a pseudo-name, of one frame only."""
    names = [name for frame in snapshot.frames for name in frame.names]
    known = {variable.name for variable in snapshot.variables} - {i.name for i in snapshot.imports}
    if len(names) != len(set(names)) or not known.issuperset(names) or None in map(local_name, names):
        raise CorruptError("A manifest has locals that are no variables of it.")


def _within_blobs(buffer: Buffer, sizes: list[int]) -> bool:
    if not all(0 <= i < len(sizes) for i in buffer.blobs):
        return False
    return 0 <= buffer.offset and 0 <= buffer.size_bytes <= sum(sizes[i] for i in buffer.blobs) - buffer.offset


def _within_buffers(storage: Storage, buffers: tuple[Buffer, ...]) -> bool:
    if not 0 <= storage.buffer < len(buffers):
        return False
    return 0 <= storage.offset and 0 <= storage.size_bytes <= buffers[storage.buffer].size_bytes - storage.offset
