"""A snapshot's tensors and arrays to their bytes, by the dotted names of its manifest: hashed, nothing unpickled.

Whatever the strides were, the bytes come out in C order and little-endian as in memory; a big-endian array stays one,
and says so by its dtype.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ipyrescue.errors import CorruptError, StoreError
from ipyrescue.interchange import dtypes
from ipyrescue.interchange.strides import in_c_order as c_ordered
from ipyrescue.manifest import Group, Snapshot, Tensor
from ipyrescue.store import Store


@dataclass(frozen=True)
class Plain:
    """One tensor or array of a snapshot: what its manifest says of it, and the group that holds its bytes."""

    group: Group
    tensor: Tensor

    @property
    def name(self) -> str:
        """Its dotted name; empty where it has none."""
        return self.tensor.name

    @property
    def dtype(self) -> str:
        """As torch or NumPy spells it: `bfloat16`, `float32`, `<U2`, `datetime64[D]`."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """How many elements there are along each axis."""
        return self.tensor.shape

    @property
    def size_bytes(self) -> int:
        """What all its elements take in C order. Raises StoreError for a dtype that is not known."""
        return math.prod(self.shape) * self.item_bytes

    @property
    def item_bytes(self) -> int:
        """The size of one element. Raises StoreError for a dtype that is not known."""
        return dtypes.item_bytes(self.dtype)


def tensors(snapshot: Snapshot) -> Iterator[Plain]:
    """All tensors and arrays of the namespace, those without a name too."""
    for group in snapshot.groups:
        if group.kind != "randomness":
            yield from (Plain(group, tensor) for tensor in group.tensors)


def chosen(snapshot: Snapshot, names: Sequence[str]) -> list[Plain]:
    """Those that have one of *names* or stand below it (`model` for `model.fc1.weight`); all that have one for none.

    Raises StoreError for a name that stands for none.
    """
    named = {plain.name: plain for plain in tensors(snapshot) if plain.name}
    if not names:
        return list(named.values())
    found: dict[str, Plain] = {}
    for name in names:
        below = {key: plain for key, plain in named.items() if key == name or key.startswith(f"{name}.")}
        if not below:
            raise StoreError(_nothing_named(snapshot, name))
        found.update(below)
    return list(found.values())


def refuse_the_impossible(snapshot: Snapshot, tensors: Iterable[Plain], *, free_bytes: int) -> None:
    """Refuse what an enemy's manifest may claim, before memory is taken for it. Raises CorruptError.

    That is: more elements than there are bytes, more memory than *free_bytes*, names that are paths or that a file
    format keeps for itself.
    """
    for found in tensors:
        storage = found.group.storages[found.tensor.storage]
        blobs = found.group.buffers[storage.buffer].blobs
        needed = found.size_bytes + sum(snapshot.blobs[index].size_bytes for index in blobs)
        why = None
        if found.size_bytes > storage.size_bytes or min(found.shape, default=0) < 0:
            why = "has more elements than bytes"
        elif needed > free_bytes:
            why = f"takes {needed:,} bytes, and {free_bytes:,} are free"
        elif not _PLAIN_NAME.fullmatch(found.name):
            why = "has a name that is none"
        if why:
            raise CorruptError(f"Nothing was exported: {found.name[:80]!r} {why}. Name the others.")


_PLAIN_NAME = re.compile(r"[^\W\d_][\w .()#-]*")


def read(store: Store, snapshot: Snapshot, plain: Plain) -> bytearray:
    """The bytes of one tensor in C order. Raises CorruptError, StoreError."""
    storage = plain.group.storages[plain.tensor.storage]
    buffer = plain.group.buffers[storage.buffer]
    refs = [snapshot.blobs[index] for index in buffer.blobs]
    joined = bytearray(sum(ref.size_bytes for ref in refs))
    view, parts, start = memoryview(joined), [], 0
    for ref in refs:
        parts.append(view[start : start + ref.size_bytes])
        start += ref.size_bytes
    store.get(refs, parts)
    first = buffer.offset + storage.offset
    return in_c_order(plain, view[first : first + storage.size_bytes], counts_bytes=storage.kind == "numpy")


def in_c_order(plain: Plain, memory: memoryview, *, counts_bytes: bool) -> bytearray:
    """The elements of *plain*, which lies in *memory* by its strides: they count bytes, or elements."""
    item = plain.item_bytes
    scale = 1 if counts_bytes else item
    strides = [stride * scale for stride in plain.tensor.stride]
    offset = plain.tensor.offset * scale
    if plain.size_bytes == 0:
        return bytearray()
    _check_bounds(plain, offset, strides, len(memory))
    return c_ordered(memory, plain.shape, strides, item_bytes=item, offset=offset)


def _check_bounds(plain: Plain, offset: int, strides: Sequence[int], size_bytes: int) -> None:
    if len(strides) != len(plain.shape) or min(plain.shape, default=0) < 0:
        raise CorruptError(f"The manifest's shape and strides of {plain.name!r} do not fit each other.")
    reach = [(length - 1) * stride for length, stride in zip(plain.shape, strides, strict=True)]
    first = offset + sum(min(0, step) for step in reach)
    last = offset + sum(max(0, step) for step in reach) + plain.item_bytes
    if first < 0 or last > size_bytes:
        raise CorruptError(f"The manifest places elements of {plain.name!r} outside of its bytes.")


def _nothing_named(snapshot: Snapshot, name: str) -> str:
    types = {variable.name: variable.type for variable in snapshot.variables}
    if name in types:
        return (
            f"Nothing was exported: {name} ({types[name]}) holds no tensor or array that is plain bytes with a name. "
            f"-o FILE.pt takes what has a state_dict and simple values, -o FILE.parquet a table; both unpickle it."
        )
    known = ", ".join(_shortened(sorted(types))) or "none"
    return f"Nothing was exported: snapshot {snapshot.id[:8]} has no {name!r}. Its variables: {known}."


def _shortened(names: Iterable[str], most: int = 20) -> list[str]:
    names = list(names)
    return [*names[:most], "..."] if len(names) > most else names
