"""Values to groups: streams, and copies of the memory that they refer to. What leaves here touches no live object.

Each name is pickled alone first; what the picklers met tells which names share objects, and those are pickled
together. A class that a cell defines is a root of its own, to which other streams refer by key. A value that
refuses costs its own name, and with it the names that cannot be made without it.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zstandard

from ipyrescue.manifest import Storage, Stream, Tensor
from ipyrescue.pickling import collector, elsewhere, interrupts, reducers
from ipyrescue.pickling.buffers import Copies, Reference, lay_out
from ipyrescue.pickling.groups import Partition, decode_order, join_cycles, share_globals, share_memory, share_objects
from ipyrescue.pickling.pickler import ClassKeys, GroupPickler, LenientPickler, dill_pickler

_WORTH_COMPRESSING_BYTES = 512
_RANK = {"class": 0, "function": 1, "data": 2, "randomness": 3}


@dataclass(frozen=True)
class Frozen:
    """What `stage` hands to `encode`: values that nobody changes meanwhile, and the place where copies go.

    *namespace* is the one that cell functions call their globals; *tensor_names* maps a tensor's id to its path.
    """

    values: Mapping[str, Any]
    namespace: dict[str, Any]
    copies: Copies
    tensor_names: Mapping[int, str]
    randomness: Mapping[str, Any]


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


@dataclass(eq=False)
class Root:
    """Where a pickler starts: the value of one name, or a class of a cell with all of its names."""

    names: tuple[str, ...]
    value: Any
    class_key: str | None = None


@dataclass
class _Work:
    """The state of one encoding: what was pickled alone, and what refused."""

    frozen: Frozen
    interrupted: Callable[[], bool]
    class_keys: ClassKeys = field(default_factory=ClassKeys)
    places: elsewhere.Places = field(default_factory=elsewhere.Places)
    class_roots: dict[str, Root] = field(default_factory=dict)
    alone: dict[Root, Any] = field(default_factory=dict)
    refused: dict[Root, str] = field(default_factory=dict)


def encode(frozen: Frozen) -> Encoded:
    """Encode every value, names that share objects together; no exception of a value's own reducer leaves here."""
    with collector.held_off(), interrupts.watched() as interrupted:
        work = _Work(frozen, interrupted)
        _encode_alone(work, _roots(work))
        _refuse_dependants(work)
        together = _encode_together(work, _partition(work))
        groups = _in_decode_order(work, together)
    return Encoded(
        tuple(groups),
        _sizes(work),
        {name: reason for root, reason in work.refused.items() for name in root.names},
        tuple(_dropped(work)),
    )


def _roots(work: _Work) -> list[Root]:
    roots = []
    for name, value in work.frozen.values.items():
        place = work.places.of(value)
        if place is not None:
            roots.append(Root((name,), elsewhere.Pointer(*place)))
        elif _is_cell_class(value):
            key = work.class_keys.key(value)
            known = work.class_roots.get(key, Root((), value, key))
            work.class_roots[key] = Root((*known.names, name), value, key)
        else:
            roots.append(Root((name,), value))
    return [*work.class_roots.values(), *roots]


def _is_cell_class(value: Any) -> bool:
    try:
        return reducers.is_cell_class(value)
    except Exception:  # noqa: BLE001 - a metaclass may raise when its class is asked for anything; pickling it tells
        return False


def _encode_alone(work: _Work, roots: list[Root]) -> None:
    """Pickle each root by itself; classes that turn up on the way become roots."""
    pending = list(roots)
    while pending:
        root = pending.pop(0)
        try:
            work.alone[root] = pickler = _dump(work, [root])
        except Exception as error:  # noqa: BLE001 - a reducer may raise anything; it costs its name
            work.refused[root] = _reason(root.value, error)
            continue
        for key in sorted(pickler.needs - work.class_roots.keys()):
            work.class_roots[key] = Root((), work.class_keys.classes[key], key)
            pending.append(work.class_roots[key])


def _dump(work: _Work, roots: list[Root]) -> Any:
    """Pickle roots into one stream: the C pickler first, dill for what it refuses."""
    try:
        return _dump_by(GroupPickler, work, roots)
    except Exception as refusal:
        if not _hopeless(refusal):
            with suppress(Exception):
                return _dump_by(dill_pickler, work, roots)
        if "torch" in sys.modules:
            with suppress(Exception):
                return _dump_by(LenientPickler, work, roots)
        raise


def _dump_by(make: Callable[..., Any], work: _Work, roots: list[Root]) -> Any:
    inside = frozenset(id(root.value) for root in roots if root.class_key)
    pickler = make(work.frozen.namespace, work.class_keys, inside, work.places)
    values = tuple(root.value for root in roots for _ in root.names)
    content = (values, {root.class_key: root.value for root in roots if root.class_key})
    try:
        pickler.dump(content)
    except Exception:
        raise
    except BaseException as error:  # SystemExit, CancelledError, a Rust panic: a refusal like others
        if isinstance(error, KeyboardInterrupt) and work.interrupted():
            raise
        raise reducers.Refused(f"something that raises {type(error).__name__}") from error
    return pickler


def _hopeless(error: BaseException) -> bool:
    """Whether dill need not be asked, which is slow: it would call the same reducer, or knows no such type either."""
    if isinstance(error, reducers.Refused) or not isinstance(error, (TypeError, AttributeError, pickle.PicklingError)):
        return True
    return _UNKNOWN_TO_DILL.search(_message(error)) is not None


_UNKNOWN_TO_DILL = re.compile(
    r"cannot pickle '(\w*generator|coroutine|frame|sqlite3\.\w+|ssl\.\w+|select\.\w+)' object"
)


def _reason(value: Any, error: BaseException) -> str:
    kind, message = type.__getattribute__(type(value), "__name__"), _message(error)
    if isinstance(error, reducers.Refused):
        return message if reducers.never_saved(type(value)) else f"{kind} that holds {message}"
    itself = re.fullmatch(rf"cannot pickle '([\w.]+\.)?{re.escape(kind)}' object", message)
    return kind if itself else f"{kind}: {message}"


def _message(error: BaseException) -> str:
    """The first line of an exception's text, which its own `__str__` may refuse."""
    try:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    except Exception:  # noqa: BLE001 - code of the user
        return type(error).__name__


def _refuse_dependants(work: _Work) -> None:
    """Refuse what needs a class that refused, until nothing changes."""
    changed = True
    while changed:
        lost = {root.class_key for root in work.refused if root.class_key}
        needy = [root for root, pickler in work.alone.items() if pickler.needs & lost]
        changed = bool(needy)
        for root in needy:
            missing = ", ".join(sorted(work.alone.pop(root).needs & lost))
            work.refused[root] = f"{type(root.value).__name__} whose class {missing} cannot be saved"


def _partition(work: _Work) -> Partition:
    partition = Partition(work.alone)
    share_objects(work.alone, partition)
    share_memory(work.alone, partition)
    share_globals(work.alone, partition)
    depends = {root: {work.class_roots[key] for key in p.needs} for root, p in work.alone.items()}
    while join_cycles(depends, partition):
        pass
    return partition


def _encode_together(work: _Work, partition: Partition) -> list[tuple[list[Root], Any]]:
    together = []
    for members in partition.sets():
        try:
            pickler = work.alone[members[0]] if len(members) == 1 else _dump(work, members)
        except Exception as error:  # noqa: BLE001 - as above; it costs the group
            for root in members:
                work.refused[root] = f"cannot be saved together with what it shares: {_message(error)}"
        else:
            together.append((members, pickler))
    return together


def _in_decode_order(work: _Work, together: list[tuple[list[Root], Any]]) -> Iterator[EncodedGroup]:
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
        pickler = _dump(work, [Root(("",), dict(work.frozen.randomness))])
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


def _sizes(work: _Work) -> dict[str, int]:
    sizes = {}
    for root, pickler in work.alone.items():
        size = pickler.file.tell() + sum(r.size_bytes for r in pickler.references.ranges())
        sizes.update(dict.fromkeys(root.names, size))
    return sizes


def _dropped(work: _Work) -> Iterator[str]:
    """Tell of what could be kept in part only, or by reference: the sentences that the reducers noted, with names."""
    noted: dict[str, list[str]] = {}
    for root, pickler in work.alone.items():
        for sentence in pickler.notes:
            noted.setdefault(sentence, []).extend(root.names)
    for sentence, names in sorted(noted.items()):
        if names:
            yield f"{sentence}: {', '.join(names)}."


def compress(stream: bytes) -> tuple[str, bytes]:
    """Compress a stream by zstd level 1 where that saves bytes; return the codec's name and the bytes."""
    if len(stream) >= _WORTH_COMPRESSING_BYTES:
        packed = zstandard.ZstdCompressor(level=1).compress(stream)
        if len(packed) < len(stream):
            return "zstd", packed
    return "raw", stream


def decompress(stream: Stream, packed: bytes) -> bytes:
    """Undo `compress`, never producing more than the manifest promises."""
    if stream.codec == "raw":
        return packed
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(stream.size_bytes, 1))
