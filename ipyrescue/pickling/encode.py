"""Values to groups: streams, and copies of the memory that they refer to. What leaves here touches no live object.

Each name is pickled alone first; what the picklers met tells which names share objects, and those are pickled
together. A value that refuses costs its own name, and with it the names that cannot be made without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import zstandard

from ipyrescue.errors import CorruptError
from ipyrescue.manifest import Storage, Stream, Tensor
from ipyrescue.pickling import collector, elsewhere, fenced, interrupts
from ipyrescue.pickling.buffers import Reference, lay_out
from ipyrescue.pickling.groups import Partition, decode_order, join_cycles, share_globals, share_memory, share_objects
from ipyrescue.pickling.roots import Frozen, Root, Work, dump, message_of, pickle_alone, roots_of
from ipyrescue.pickling.weights import unsaved

_WORTH_COMPRESSING_BYTES = 512
_LATE = "Copied from memory that processes share, and may have changed while it was saved"
_RANK = {"class": 0, "function": 1, "data": 2, "randomness": 3}


@dataclass(frozen=True)
class EncodedGroup:
    """One group, ready to be stored: a stream, the memory it refers to, and what it must be decoded after."""

    names: tuple[str, ...]
    kind: str
    encoder: str
    stream: bytes
    storages: tuple[Storage, ...]
    buffers: tuple[memoryview, ...]
    out_of_band: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    depends: tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """A namespace in streams: groups in decode order, bytes by name, and (type, reason) of what refused."""

    groups: tuple[EncodedGroup, ...]
    sizes: Mapping[str, int]
    refused: Mapping[str, str]
    warnings: tuple[str, ...]


def encode(frozen: Frozen, fence: fenced.Fence | None = None) -> Encoded:
    """Encode every value, names that share objects together; no exception of a value's own reducer leaves here.

    Behind a *fence*, whatever that code does leaves this process alone.
    """
    with collector.held_off(), interrupts.watched() as interrupted:
        work = Work(frozen, interrupted, fenced.Guard(fence) if fence else fenced.Onlooker())
        pickle_alone(work, roots_of(work))
        if fence is None or not work.set_aside:
            return encode_groups(work)
        _pickle_known_together(work)
        encoded: Encoded = fenced.encode(work, fence, encode_groups)
        return encoded


def _pickle_known_together(work: Work) -> None:
    """Pickle groups before code of unknown manners runs: what it changes in its child does not get into them."""
    for members in _partition(work).sets():
        if len(members) > 1:
            with suppress(Exception):  # it is tried again with all the others, and told then
                work.together[frozenset(members)] = dump(work, members)


def encode_groups(work: Work) -> Encoded:
    """From what was pickled alone to groups in decode order."""
    _refuse_dependants(work)
    together = _encode_together(work, _partition(work))
    groups = _in_decode_order(work, together)
    return Encoded(
        tuple(groups),
        _sizes(work),
        {name: reason for root, reason in work.refused.items() for name in root.names},
        (*_dropped(work), *_unsaved(work, together)),
    )


def _refuse_dependants(work: Work) -> None:
    """Refuse what needs a class that refused, until nothing changes."""
    changed = True
    while changed:
        lost = {root.class_key for root in work.refused if root.class_key}
        needy = [root for root, pickler in work.alone.items() if pickler.needs & lost]
        changed = bool(needy)
        for root in needy:
            missing = ", ".join(sorted(work.alone.pop(root).needs & lost))
            work.refused[root] = f"{type(root.value).__name__} whose class {missing} cannot be saved"


def _partition(work: Work) -> Partition:
    partition = Partition(work.alone)
    share_objects(work.alone, partition, elsewhere.class_constants())
    share_memory(work.alone, partition)
    share_globals(work.alone, partition)
    classes = {key: root for key, root in work.class_roots.items() if root in work.alone}
    depends = {root: {classes[key] for key in p.needs & classes.keys()} for root, p in work.alone.items()}
    while join_cycles(depends, partition):
        pass
    return partition


def _encode_together(work: Work, partition: Partition) -> list[tuple[list[Root], Any]]:
    together = []
    for members in partition.sets():
        try:
            pickler = _pickled(work, members)
        except Exception as error:  # noqa: BLE001 - as above; it costs the group
            for root in members:
                work.refused[root] = f"cannot be saved together with what it shares: {message_of(error)}"
        else:
            together.append((members, pickler))
    return together


def _pickled(work: Work, members: list[Root]) -> Any:
    if len(members) == 1:
        return work.alone[members[0]]
    return work.together.get(frozenset(members)) or dump(work, members)


def _in_decode_order(work: Work, together: list[tuple[list[Root], Any]]) -> Iterator[EncodedGroup]:
    home = {root.class_key: position for position, (roots, _) in enumerate(together) for root in roots}
    depends = [{home[key] for key in p.needs} - {position} for position, (_, p) in enumerate(together)]
    order = decode_order(depends, [_RANK[_kind(roots)] for roots, _ in together])
    new_position = {old: new for new, old in enumerate(order)}
    for old in order:
        roots, pickler = together[old]
        needed = tuple(sorted(new_position[d] for d in depends[old]))
        names = tuple(name for root in roots for name in root.names)
        yield _finish(work.frozen, names, _kind(roots), pickler, needed)
    if work.frozen.randomness:
        pickler = dump(work, [Root(("",), dict(work.frozen.randomness))])
        yield _finish(work.frozen, (), "randomness", pickler, ())


def _kind(roots: Iterable[Root]) -> str:
    if all(root.class_key for root in roots):
        return "class"
    functions = all(root.class_key or type(root.value).__name__ == "function" for root in roots)
    return "function" if functions else "data"


def _finish(frozen: Frozen, names: tuple[str, ...], kind: str, pickler: Any, depends: tuple[int, ...]) -> EncodedGroup:
    layout = lay_out(pickler.references.ranges(), frozen.copies)
    return EncodedGroup(
        names=names,
        kind=kind,
        encoder=pickler.encoder,
        stream=pickler.file.getvalue(),
        storages=layout.storages,
        buffers=layout.buffers,
        out_of_band=tuple(pickler.references.out_of_band),
        tensors=tuple(_tensors(pickler.described, frozen.tensor_names)),
        depends=depends,
    )


def _tensors(described: list[tuple[Any, Reference]], names: Mapping[int, str]) -> Iterator[Tensor]:
    for value, reference in described:
        name, dtype = names.get(id(value), ""), str(value.dtype).removeprefix("torch.")
        if reference.kind == "torch":
            shape, stride, offset = tuple(value.size()), value.stride(), value.storage_offset()
        else:
            start = value.__array_interface__["data"][0] if value.size else reference.start
            shape, stride, offset = value.shape, value.strides, start - reference.start
        yield Tensor(name, reference.key, dtype, shape, stride, offset)


def _sizes(work: Work) -> dict[str, int]:
    sizes = {}
    for root, pickler in work.alone.items():
        size = pickler.file.tell() + sum(r.size_bytes for r in pickler.references.ranges())
        sizes.update(dict.fromkeys(root.names, size))
    return sizes


def _dropped(work: Work) -> Iterator[str]:
    """Tell of what could be kept in part only, or by reference: the sentences that the reducers noted, with names."""
    noted: dict[str, list[str]] = {}
    for root, pickler in work.alone.items():
        late = any(map(work.frozen.copies.is_late, pickler.references.ranges()))
        for sentence in (*pickler.notes, *([_LATE] if late else [])):
            noted.setdefault(sentence, []).extend(root.names)
    for sentence, names in sorted(noted.items()):
        if names:
            yield f"{sentence}: {', '.join(names)}."


def _unsaved(work: Work, together: list[tuple[list[Root], Any]]) -> Iterator[str]:
    """Tell of what is trained in none of the groups."""
    held = (reference for _, pickler in together for reference in pickler.references.ranges())
    values = (root.value for roots, _ in together for root in roots)
    return unsaved(work.frozen.weights, held, values)


def compress(stream: bytes) -> tuple[str, bytes]:
    """Compress a stream by zstd level 1 where that saves bytes; return the codec's name and the bytes."""
    if len(stream) >= _WORTH_COMPRESSING_BYTES:
        packed = zstandard.ZstdCompressor(level=1).compress(stream)
        if len(packed) < len(stream):
            return "zstd", packed
    return "raw", stream


def decompress(stream: Stream, packed: bytes) -> bytes:
    """Undo `compress`: exactly as many bytes as the manifest promises, for which alone memory is taken.

    Raises CorruptError for any other number.
    """
    try:
        found = packed if stream.codec == "raw" else _decompressed(packed, stream.size_bytes)
    except (zstandard.ZstdError, MemoryError) as error:
        raise CorruptError(
            f"A stream cannot be unpacked: {error or 'it claims more bytes than there is memory'}."
        ) from error
    if len(found) != stream.size_bytes:
        raise CorruptError(f"A stream has {len(found)} bytes, and {stream.size_bytes} are promised.")
    return found


def _decompressed(packed: bytes, size_bytes: int) -> bytes:
    """A frame may say itself how much it holds, and zstandard would believe it before any limit of ours."""
    said = zstandard.get_frame_parameters(packed).content_size
    if said not in (size_bytes, zstandard.CONTENTSIZE_UNKNOWN):
        raise CorruptError(f"A stream claims {said} bytes, and {size_bytes} are promised.")
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(size_bytes, 1))
