"""Which names share objects, and in which order groups must be decoded.

Two roots belong together when a stream of one holds an object (or memory) that the other holds too, immutable
values aside. What a root holds is read off its pickler's memo. Copying the memo of a large plain container is
slow, so a large root is not copied but asked: a pickler that starts with its memo answers for an object with
a reference instead of a stream. Only large roots that this leaves apart are intersected.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import graphlib
import io
import logging
import pathlib
import pickle
import re
import sys
import types
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from ipyrescue.pickling.buffers import overlapping
from ipyrescue.pickling.pickler import PROTOCOL, GroupPickler
from ipyrescue.pickling.reducers import LiveNamespace, ModuleGlobals, importable

_IMMUTABLE = frozenset(map(id, (
    type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented),
    types.CodeType, types.BuiltinFunctionType, types.GetSetDescriptorType,
    types.MemberDescriptorType, types.MethodDescriptorType, types.WrapperDescriptorType,
    datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone, re.Pattern,
    decimal.Decimal, fractions.Fraction, uuid.UUID, logging.Logger, logging.RootLogger,
    type(pathlib.Path()), type(pathlib.PurePath()), pathlib.PurePosixPath, pathlib.PureWindowsPath,
    LiveNamespace, ModuleGlobals,
)))  # fmt: skip
"""By identity."""
_IMMUTABLE_BASES = (type, enum.Enum)
_MOST_LOOKED_AT = 1_000
_LARGE_STREAM_BYTES = 1 << 20


class Partition:
    """A union-find over roots (Tarjan 1975, path halving)."""

    def __init__(self, items: Iterable[Hashable]) -> None:
        self._parent: dict[Any, Any] = {item: item for item in items}

    def find(self, item: Any) -> Any:
        """Return the representative of the set that holds *item*."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, first: Any, second: Any) -> None:
        """Put both into one set; the earlier representative stays."""
        self._parent[self.find(second)] = self.find(first)

    def sets(self) -> list[list[Any]]:
        """Every set, members in their first order."""
        members: dict[Any, list[Any]] = {}
        for item in self._parent:
            members.setdefault(self.find(item), []).append(item)
        return list(members.values())


@dataclass
class _Sharing:
    """What roots share, as far as it is known: the first owner of each object, and the object, by identity."""

    picklers: Mapping[Any, Any]
    partition: Partition
    constants: Set[int]
    owners: dict[int, Any] = field(default_factory=dict)
    held: dict[int, Any] = field(default_factory=dict)
    is_immutable: Immutability = field(default_factory=lambda: Immutability())

    def apart(self, first: Any, second: Any) -> bool:
        """Whether two roots are not joined yet."""
        return bool(self.partition.find(first) != self.partition.find(second))

    def add(self, root: Any) -> None:
        """Join a small root with the owners of what it holds."""
        skipped = self.picklers[root].elsewhere
        for identity, value in self.picklers[root].memoised().items():
            if identity in self.constants or identity in skipped:
                continue
            if identity not in self.owners:
                self.owners[identity] = root
                self.held[identity] = value
            elif self.apart(self.owners[identity], root) and not self.is_immutable(value):
                self.partition.join(self.owners[identity], root)

    def ask(self, root: Any, others: Iterable[Any]) -> None:
        """Join a large root with the small ones whose objects it has met, and with *others* whose very value it has."""
        has_met = _memory_of(self.picklers[root])
        for identity, owner in self.owners.items():
            value = self.held[identity]
            if self.apart(owner, root) and not self.is_immutable(value) and has_met(value):
                self.partition.join(owner, root)
        for other in others:
            if self.apart(other, root) and not self.is_immutable(other.value) and has_met(other.value):
                self.partition.join(other, root)

    def intersect(self, roots: Sequence[Any]) -> None:
        """Join large roots whose memos have objects in common; these are copied, which takes longer than pickling."""
        memos = {root: self.picklers[root].memo.copy() for root in roots}
        for position, root in enumerate(roots):
            for other in roots[:position]:
                common = self._common(root, memos[root], memos[other]) if self.apart(other, root) else ()
                if not all(self.is_immutable(memos[root][identity][1]) for identity in common):
                    self.partition.join(other, root)

    def _common(self, root: Any, memo: Mapping[int, Any], other: Mapping[int, Any]) -> Iterator[int]:
        """What two memos have in common, one by one, so that whoever has seen enough can stop."""
        skipped = self.picklers[root].elsewhere
        for identity in filter(other.__contains__, memo):
            if identity not in self.constants and identity not in skipped:
                yield identity


def share_objects(picklers: Mapping[Any, Any], partition: Partition, constants: Set[int]) -> None:
    """Join the roots whose picklers met the same mutable object, but for *constants*, by identity."""
    sharing = _Sharing(picklers, partition, constants)
    large = [root for root, pickler in picklers.items() if pickler.file.tell() >= _LARGE_STREAM_BYTES]
    for root in picklers:
        if root not in large:
            sharing.add(root)
    for root in large:
        sharing.ask(root, (other for other in large if other is not root))
    if any(sharing.apart(root, large[0]) for root in large):
        sharing.intersect(large)


def _memory_of(pickler: Any) -> Callable[[Any], bool]:
    """Return the question whether *pickler* has met an object."""
    return MemoQuestion(pickler) if isinstance(pickler, GroupPickler) else lambda value: id(value) in pickler.memo


class MemoQuestion(pickle.Pickler):
    """Asks for objects in another pickler's memo at C speed: what it has met, it writes as a reference.

    What it meets itself is memoised behind the other's last index and therefore told apart.
    """

    def __init__(self, pickler: GroupPickler) -> None:
        self._answer = io.BytesIO()
        super().__init__(self._answer, PROTOCOL)
        self.memo = pickler.memo
        marker: list[None] = []
        self.dump(marker)
        self._known = self._reference_to(marker)

    def __call__(self, value: Any) -> bool:
        """Whether the other pickler has met *value*."""
        return self._reference_to(value) < self._known

    def reducer_override(self, value: Any) -> Any:
        """Descend into plain containers only."""
        return NotImplemented if value is str else (str, ())

    def _reference_to(self, value: Any) -> int:
        self._answer.seek(0)
        self._answer.truncate()
        self.dump(value)
        return _memo_index(self._answer.getvalue())


def _memo_index(stream: bytes) -> int:
    """The memo index of a stream that is nothing but one reference, else a number above all."""
    body = stream[2:]
    if body[:1] == pickle.FRAME:
        body = body[9:]
    if body[:1] == pickle.BINGET and len(body) == 3:
        return body[1]
    if body[:1] == pickle.LONG_BINGET and len(body) == 6:
        return int.from_bytes(body[1:5], "little")
    return sys.maxsize


def share_memory(picklers: Mapping[Any, Any], partition: Partition) -> None:
    """Join the roots whose streams refer to memory that overlaps."""
    owner = {id(r): root for root, p in picklers.items() for r in p.references.ranges()}
    everything = [r for p in picklers.values() for r in p.references.ranges() if r.size_bytes]
    for cluster in overlapping(everything):
        for r in cluster[1:]:
            partition.join(owner[id(cluster[0])], owner[id(r)])


def share_globals(picklers: Mapping[Any, Any], partition: Partition) -> None:
    """Join the roots with functions that were made over one and the same namespace, other than the live one."""
    owners: dict[int, Hashable] = {}
    for root, pickler in picklers.items():
        for identity in pickler.other_globals:
            partition.join(owners.setdefault(identity, root), root)


def decode_order(depends: Sequence[set[int]], rank: Sequence[int]) -> list[int]:
    """Order positions so that each stands behind what it depends on, and lower ranks first where that leaves a choice.

    Cycles must have been joined before (see `join_cycles`).
    """
    order: list[int] = []
    placed: set[int] = set()

    def place(position: int) -> None:
        if position not in placed:
            placed.add(position)
            for needed in sorted(depends[position]):
                place(needed)
            order.append(position)

    for position in sorted(range(len(depends)), key=lambda p: (rank[p], p)):
        place(position)
    return order


def join_cycles(depends: Mapping[Any, set[Any]], partition: Partition) -> bool:
    """Join sets that depend on each other in a circle; return whether there was one."""
    graph: dict[Any, set[Any]] = {}
    for root, needed in depends.items():
        here = partition.find(root)
        graph.setdefault(here, set()).update(partition.find(n) for n in needed if partition.find(n) != here)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
        for member in circle[1:]:
            partition.join(circle[0], member)
        return True
    return False


class Immutability:
    """Whether sharing a value cannot be noticed, so that it does not tie names together; asked while values live.

    A value is as immutable as its parts, if its kind is one whose parts never change.
    """

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}
        self._parts_by_kind: dict[int, _Parts | None] = {}

    def __call__(self, value: Any) -> bool:
        """Answer for *value*; what holds very much counts as no."""
        parts = self._parts_of(value)
        if parts is None or parts is _no_parts:
            return parts is not None
        if id(value) not in self._known:
            self._known[id(value)] = self._walk(parts(value))
        return self._known[id(value)]

    def _parts_of(self, value: Any) -> _Parts | None:
        kind = type(value)
        if id(kind) not in self._parts_by_kind:  # by identity: a metaclass may say what its classes' hash is
            self._parts_by_kind[id(kind)] = _parts_of_kind(kind)
        return self._parts_by_kind[id(kind)]

    def _walk(self, parts: Iterable[Any]) -> bool:
        pending, seen = list(parts), 0
        while pending:
            item = pending.pop()
            seen += 1
            known, parts_of = self._known.get(id(item)), self._parts_of(item)
            if known is False or parts_of is None or len(pending) + seen > _MOST_LOOKED_AT:
                return False
            if known is None:
                pending.extend(parts_of(item))
        return True


_Parts = Callable[[Any], Iterable[Any]]
_MUTABLE_PART: list[None] = []


def _parts_of_kind(kind: type) -> _Parts | None:
    """How to find what the immutability of a value of *kind* depends on; None if such a value can be changed."""
    if id(kind) in _IMMUTABLE or issubclass(kind, _IMMUTABLE_BASES):
        return _no_parts
    if kind is frozenset:
        return frozenset.__iter__
    if issubclass(kind, tuple) and (not type.__getattribute__(kind, "__dictoffset__") or _place_of(kind)[0] == "torch"):
        return tuple.__iter__
    if kind is types.FunctionType or kind is types.ModuleType:
        return _parts_of_definition
    if issubclass(kind, (types.GenericAlias, types.UnionType)):
        return _parts_of_generic
    places = [_place_of(base) for base in type.__getattribute__(kind, "__mro__")]
    if _TYPING_ALIAS in places:
        return _parts_of_alias
    return _no_parts if _is_constant_of_library(places) else None


def _no_parts(_value: Any) -> Iterable[Any]:
    return ()


def _parts_of_definition(value: Any) -> Iterable[Any]:
    return () if importable(value) else (_MUTABLE_PART,)


def _parts_of_generic(value: Any) -> Iterable[Any]:
    return (*value.__args__, getattr(value, "__origin__", None))


def _parts_of_alias(alias: Any) -> Iterable[Any]:
    """What `typing` made and caches: `Optional[int]`, `list[T]` with a `T` of a cell."""
    return tuple(vars(alias).values())


def _is_constant_of_library(places: Sequence[tuple[str, str]]) -> bool:
    """Whether a class, or one that it stands on, is known by its name; a subclass of a cell may hold anything."""
    if places[0][0] == "__main__" or not _MUTABLE_NAMES.isdisjoint(places):
        return False
    if places[0][1] == _CYTHON_FUNCTION:
        return True
    return any(place in _IMMUTABLE_NAMES or place[0].startswith(_IMMUTABLE_MODULES) for place in places)


def _place_of(kind: type) -> tuple[str, str]:
    module = type.__getattribute__(kind, "__module__")
    return module if type(module) is str else "__main__", type.__getattribute__(kind, "__name__")


_CYTHON_FUNCTION = "cython_function_or_method"
"""Pickled by its name, whatever release of Cython made its type."""
_TYPING_ALIAS = ("typing", "_BaseGenericAlias")
_IMMUTABLE_MODULES = ("numpy.dtypes", "pandas._libs.tslibs.")
_IMMUTABLE_NAMES = frozenset({
    ("datetime", "tzinfo"), ("dataclasses", "_MISSING_TYPE"), ("typing", "_SpecialForm"), ("typing", "ForwardRef"),
    ("numpy", "dtype"), ("numpy", "generic"), ("numpy", "ufunc"), ("pandas._libs.missing", "C_NAType"),
    ("pandas", "Interval"), ("pandas._libs.interval", "Interval"),
    ("pandas.core.dtypes.dtypes", "PandasExtensionDtype"), ("pandas.core.dtypes.dtypes", "BaseMaskedDtype"),
    ("torch", "dtype"), ("torch", "device"), ("torch", "layout"), ("torch", "memory_format"),
})  # fmt: skip
_MUTABLE_NAMES = frozenset({("numpy", "void")})
"""A view into an array of records."""
