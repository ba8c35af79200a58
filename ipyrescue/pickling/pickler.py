"""The picklers of a group: objects to a stream around memory, and the way back.

The first tier is the C pickler, protocol 5, whose `reducer_override` is called only for what is no builtin type,
so that plain data keeps C speed. dill is the second tier, for what the first refuses; it runs under the same
reducers, so tensors, functions and classes mean the same in both.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import pickle
import random
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle

from ipyrescue.pickling import arrays, classes, elsewhere, placeholders, reducers, tensors, torch_objects, trust
from ipyrescue.pickling.buffers import Reference, References

PROTOCOL = 5
_OUT_OF_BAND_BYTES = 64 << 10


_NEWER_TYPES: dict[type, Callable[[Any], Any]] = {
    getattr(typing, name): reducers.reduce_type_parameter for name in ("TypeVarTuple",) if hasattr(typing, name)
}


class ClassKeys:
    """Names for the classes that cells define, one for each class of a snapshot: `Net`, or `Net#2` for a second."""

    def __init__(self) -> None:
        self.classes: dict[str, type] = {}
        self._keys: dict[int, str] = {}

    def key(self, cls: type) -> str:
        """Return the key of *cls*, giving it one at first sight."""
        if id(cls) not in self._keys:
            key, number = cls.__qualname__, 1
            while key in self.classes:
                number += 1
                key = f"{cls.__qualname__}#{number}"
            self._keys[id(cls)] = key
            self.classes[key] = cls
        return self._keys[id(cls)]


@dataclass(frozen=True)
class Surroundings:
    """What all picklers of one snapshot share; *unknown* is asked before code of unknown manners runs.

    *owners* are the objects, by id, whose dictionary is a variable too, with that dictionary.
    """

    namespace: dict[str, Any]
    class_keys: ClassKeys
    places: elsewhere.Places
    trust: trust.Trust
    unknown: Callable[[Any], None]
    owners: Mapping[int, dict[str, Any]]


class Reducing:
    """What both tiers do with objects that are not plain data.

    *inside* are the ids of the cell classes that this group defines; other cell classes are referred to by key
    and collected in *needs*. *described* collects every tensor and array with the reference to its memory, *notes* what
    is to be told about the names, *elsewhere* the ids of what goes by its place in this process. A *lenient* pickler
    leaves out what hangs on optimizers and cannot be saved.
    """

    lenient = False
    memo: Any

    def __init__(self, surroundings: Surroundings, inside: frozenset[int]) -> None:
        self.references = References()
        self.notes: dict[str, None] = {}
        self.elsewhere: set[int] = set()
        self._surroundings = surroundings
        self._filled_later: set[int] = set()
        self._ordinary: set[int] = set()
        self.described: list[tuple[Any, Reference]] = []
        self.needs: set[str] = set()
        self._inside = inside
        self.other_globals: dict[int, dict[str, Any]] = {}
        of_types: dict[type, Callable[[Any], Any]] = {
            types.FunctionType: self._reduce_function,
            types.CellType: self._reduce_cell,
            types.CodeType: reducers.reduce_code,
            types.MethodType: self._reduce_method,
            logging.Logger: self._reduce_logger,
            types.ModuleType: reducers.reduce_module,
            reducers.DictOf: self._reduce_dict_of,
            type({}.keys()): reducers.reduce_keys,
            type({}.values()): reducers.reduce_values,
            type({}.items()): reducers.reduce_items,
            types.MappingProxyType: reducers.reduce_mapping_proxy,
            memoryview: reducers.reduce_memoryview,
            functools._lru_cache_wrapper: self._reduce_cached,
            typing.NewType: reducers.reduce_new_type,
            typing.ParamSpec: reducers.reduce_type_parameter,
            weakref.ReferenceType: reducers.reduce_weak_reference,
            weakref.WeakMethod: reducers.reduce_weak_method,
            weakref.ProxyType: self._reduce_weak_proxy,
            weakref.CallableProxyType: self._reduce_weak_proxy,
            weakref.WeakValueDictionary: reducers.reduce_weak_values,
            random.Random: reducers.reduce_random,
            type(dataclasses.MISSING): reducers.reduce_missing,
            type(threading.Lock()): reducers.reduce_lock,
            type(threading.RLock()): reducers.reduce_reentrant_lock,
            **_NEWER_TYPES,
            **tensors.reducers(self.references, self._describe, self._note),
            **arrays.reducers(self.references, self._describe, self._note),
        }
        # By identity: a metaclass may say how its classes hash.
        self._reducers = {id(kind): reduce for kind, reduce in of_types.items()}
        self._of_subclasses = [
            (kind, of_types[kind]) for kind in (*tensors.kinds(), *arrays.kinds()) if kind in of_types
        ]

    def reducer_override(self, value: Any) -> Any:
        """Reduce what has a reducer here; leave the rest to its own `__reduce_ex__`."""
        kind = type(value)
        reduce = self._reducers.get(id(kind))
        if reduce is not None:
            return reduce(value)
        if issubclass(kind, type):
            return self._reduce_class(value)
        place = self._surroundings.places.of(value)
        if place is not None:
            self.elsewhere.add(id(value))
            return elsewhere.reduce(place)
        reduced = NotImplemented if id(kind) in self._ordinary else self._reduce_by_kind(kind, value)
        is_asked = reduced is NotImplemented and (id(value) in self._surroundings.owners or issubclass(kind, dict))
        return self._reduce_beside_its_dict(value) if is_asked else reduced

    def _reduce_by_kind(self, kind: type, value: Any) -> Any:
        """Reduce what is known by its base class; a kind that nothing here knows is asked about once."""
        if not self._surroundings.trust.knows(kind):
            self._surroundings.unknown(value)
        if issubclass(kind, BaseException):
            return reducers.reduce_exception(value)
        if kind.__name__ in ("RandomState", "Generator"):
            return reducers.reduce_global_stream(value)
        if refusal := reducers.never_saved(kind):
            raise reducers.Refused(refusal)
        for base, reduce_subclass in self._of_subclasses:
            if issubclass(kind, base):
                return reduce_subclass(value)
        reduced = torch_objects.reduce_torch_object(value, self._note, lenient=self.lenient)
        if reduced is NotImplemented and self._surroundings.trust.knows(kind):
            self._ordinary.add(id(kind))
        return reduced

    def _note(self, sentence: str) -> None:
        self.notes[sentence] = None

    def _describe(self, value: Any, reference: Reference) -> None:
        self.described.append((value, reference))

    def _reduce_function(self, function: types.FunctionType) -> Any:
        self._filled_later.update(map(id, function.__closure__ or ()))
        return reducers.reduce_function(function, self._surroundings.namespace, self.other_globals)

    def _reduce_logger(self, logger: logging.Logger) -> Any:
        if logger.level or logger.handlers:
            self._note("By name only, without level and handlers")
        return NotImplemented

    def _reduce_beside_its_dict(self, value: Any) -> Any:
        """Reduce an object whose dictionary others hold too, or that is its own: it is filled as a thing of its own."""
        own = reducers.dict_of(value)
        if own is None or (own is not value and own is not self._surroundings.owners.get(id(value))):
            return NotImplemented
        reduced = value.__reduce_ex__(PROTOCOL)
        if type(reduced) is not tuple or not 3 <= len(reduced) <= 5:
            return reduced
        make, arguments, state, items, pairs = (*reduced, None, None)[:5]
        if state is own:
            state = value if own is value else reducers.DictOf(value, own)
            return make, arguments, state, items, pairs, reducers.set_own_state
        if own is value:
            return reduced
        is_with_slots = type(state) is tuple and len(state) == 2 and state[0] is own
        state = (reducers.DictOf(value, own) if is_with_slots else reducers.DictOf(value)), state
        return make, arguments, state, items, pairs, reducers.set_state_around_dict

    def _reduce_dict_of(self, stand_in: reducers.DictOf) -> Any:
        owned = self._surroundings.owners.get(id(stand_in.owner))
        content = self._told_of(stand_in, owned) if owned is not None else None
        return vars, (stand_in.owner,), None, None, content

    def _told_of(self, stand_in: reducers.DictOf, owned: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """What a dictionary is filled with; whoever holds *owned* refers from now on to what stands for it."""
        memo = self.memo.copy()
        if id(owned) not in memo:
            memo[id(owned)] = (memo.pop(id(stand_in))[0], owned)
            self.memo = memo
        yield from list(stand_in.content.items())

    def _reduce_cell(self, cell: types.CellType) -> Any:
        return reducers.reduce_cell(cell, filled_later=id(cell) in self._filled_later)

    def _reduce_method(self, method: types.MethodType) -> Any:
        self._ask_for(method.__func__, method)
        return reducers.reduce_method(method)

    def _reduce_cached(self, cached: Any) -> Any:
        self._ask_for(getattr(cached, "__wrapped__", None), cached)
        return reducers.reduce_cached(cached)

    def _ask_for(self, called: Any, wrapper: Any) -> None:
        """Give notice that what a wrapper calls, which need not be a function, will be asked for its name."""
        if not self._surroundings.trust.knows(type(called)):
            self._surroundings.unknown(wrapper)

    def _reduce_weak_proxy(self, proxy: Any) -> Any:
        self._surroundings.unknown(proxy)  # it forwards all that it is asked for
        return reducers.reduce_weak_proxy(proxy)

    def _reduce_class(self, cls: type) -> Any:
        if not self._surroundings.trust.knows_class(cls):
            self._surroundings.unknown(cls)
        if not reducers.is_cell_class(cls):
            return reducers.reduce_importable_class(cls)
        if id(cls) in self._inside:
            return classes.reduce_class(cls, reducers.is_cell_class)
        key = self._surroundings.class_keys.key(cls)
        self.needs.add(key)
        return placeholders.cell_class, (key,)

    def leave_out(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer out of band if it is large; true keeps it in the stream."""
        view = buffer.raw()
        if view.nbytes < _OUT_OF_BAND_BYTES:
            return True
        self.references.leave_out(view, "bytes" if view.readonly else "bytearray", buffer)
        return False


class GroupPickler(Reducing, cloudpickle.Pickler):  # type: ignore[misc]
    """The first tier: C pickler with cloudpickle's table of reducers."""

    encoder = "pickle"

    def __init__(self, surroundings: Surroundings, inside: frozenset[int]) -> None:
        self.file = io.BytesIO()
        cloudpickle.Pickler.__init__(self, self.file, protocol=PROTOCOL, buffer_callback=self.leave_out)
        Reducing.__init__(self, surroundings, inside)

    def memoised(self) -> dict[int, Any]:
        """Every object that the stream holds and could refer to again, by id."""
        return {identity: entry[1] for identity, entry in self.memo.copy().items()}


class LenientPickler(GroupPickler):
    """The last resort: keeps an optimizer without what cannot be saved of it, and says so."""

    lenient = True


def import_dill() -> Any:
    """Import dill without what its mere import does to `pickle`, on which the user's joblib stands."""
    import dill

    dill.extend(use_dill=False)
    return dill


def dill_pickler(surroundings: Surroundings, inside: frozenset[int]) -> Any:
    """Make a pickler of the second tier."""
    dill = import_dill()

    class DillGroupPickler(Reducing, dill.Pickler):  # type: ignore[misc, name-defined]
        encoder = "dill"

        def __init__(self) -> None:
            self.file = io.BytesIO()
            dill.Pickler.__init__(self, self.file, protocol=PROTOCOL, buffer_callback=self.leave_out)
            Reducing.__init__(self, surroundings, inside)

        def memoised(self) -> dict[int, Any]:
            return {identity: entry[1] for identity, entry in self.memo.items()}

    return DillGroupPickler()


class GroupUnpickler(pickle.Unpickler):
    """Reads a stream, resolving placeholders to *session*: memory, the live namespace, cell classes.

    The stream must have been verified: unpickling runs what it says.
    """

    def __init__(self, stream: bytes, buffers: list[Any], session: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._session = session

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a name of a stream; those of `placeholders` mean this session, `__main__` the live namespace."""
        if module == placeholders.__name__:
            return self._session[name]
        if module == "__main__" and name in self._session["namespace"]():
            return self._session["namespace"]()[name]
        try:
            return super().find_class(module, name)
        except ModuleNotFoundError:
            elsewhere = _before_its_move(module)
            if elsewhere is None:
                raise
            return super().find_class(elsewhere, name)


_MOVED = (("pathlib._local", "pathlib"), ("numpy._core", "numpy.core"))
"""Where newer releases keep what older ones know elsewhere; the newer ones find the older place themselves."""


def _before_its_move(module: str) -> str | None:
    return next((old + module.removeprefix(new) for new, old in _MOVED if module.startswith(new)), None)
