"""Values to picklers, each name by itself: what it takes to write it down, or why it refuses.

A class that a cell defines is a root of its own, to which other streams refer by key. What would run code of unknown
manners is set aside, for a process that may die of it.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ipyrescue.pickling import elsewhere, reducers, trust
from ipyrescue.pickling.buffers import Copies
from ipyrescue.pickling.pickler import ClassKeys, GroupPickler, LenientPickler, Surroundings, dill_pickler
from ipyrescue.pickling.weights import Weights
from ipyrescue.wording import type_name


@dataclass(frozen=True)
class Frozen:
    """What `stage` hands to `encode`: values that nobody changes meanwhile, and the place where copies go.

    *namespace* is the one that cell functions call their globals; *tensor_names* maps a tensor's id to its path;
    *weights* are what is trained just then, of which it is told whether it is in any of the values.
    """

    values: Mapping[str, Any]
    namespace: dict[str, Any]
    copies: Copies
    tensor_names: Mapping[int, str]
    randomness: Mapping[str, Any]
    weights: Sequence[Weights] = ()


class SetAside(BaseException):
    """Raised where pickling meets code of unknown manners; no `except Exception` on the way may keep it."""


class Denied(reducers.Refused):
    """An object that ended the process which pickled it: the name of its type, and how that process ended."""

    def __str__(self) -> str:
        kind, how = self.args
        return f"{kind}, whose pickling {how}"


@dataclass(eq=False)
class Root:
    """Where a pickler starts: the value of one name, or a class of a cell with all of its names."""

    names: tuple[str, ...]
    value: Any
    class_key: str | None = None


class Watch(Protocol):
    """Is told what is pickled, and decides about code of unknown manners; with *may_set_aside* another process is."""

    may_set_aside: bool

    def begin(self, roots: Sequence[Root]) -> None:
        """Hear that *roots* are pickled next."""

    def unknown(self, value: Any) -> None:
        """Hear that unknown code is to take *value* apart; raise `SetAside` or `Denied` to prevent it."""


@dataclass
class Work:
    """The state of one encoding: what was pickled alone or together, what refused, and what was set aside."""

    frozen: Frozen
    interrupted: Callable[[], bool]
    watch: Watch
    class_keys: ClassKeys = field(default_factory=ClassKeys)
    places: elsewhere.Places = field(default_factory=elsewhere.Places)
    trust: trust.Trust = field(default_factory=trust.Trust)
    owners: dict[int, dict[str, Any]] = field(default_factory=dict)
    class_roots: dict[str, Root] = field(default_factory=dict)
    alone: dict[Root, Any] = field(default_factory=dict)
    together: dict[frozenset[Root], Any] = field(default_factory=dict)
    refused: dict[Root, str] = field(default_factory=dict)
    set_aside: list[Root] = field(default_factory=list)


def roots_of(work: Work) -> list[Root]:
    """Every name that will be saved: first the classes of cells, then what has a dictionary by a name of its own."""
    roots = []
    aliases = _aliases(work.frozen.values)
    work.owners = _owners(work.frozen.values)
    for name, value in sorted(work.frozen.values.items(), key=lambda item: id(item[1]) not in work.owners):
        place = work.places.of(value)
        if place is not None:
            roots.append(Root((name,), elsewhere.Pointer(*place)))
        elif _is_cell_class(work, value):
            key = work.class_keys.key(value)
            known = work.class_roots.get(key, Root((), value, key))
            work.class_roots[key] = Root((*known.names, name), value, key)
        elif name in aliases:
            roots.append(Root(aliases[name], value))
    return [*work.class_roots.values(), *roots]


def _aliases(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The names to pickle, each with those that stand for the same container: what is large is walked once."""
    first: dict[int, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for name, value in values.items():
        is_container = any(type(value) is kind for kind in (list, dict, set))  # a metaclass may have an __eq__
        owner = first.setdefault(id(value), name) if is_container else name
        found[owner] = (*found.get(owner, ()), name)
    return found


def _owners(values: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The variables, by id, whose dictionary is a variable too: `config = vars(args)`."""
    dictionaries = {id(value) for value in values.values() if type(value) is dict}
    owned = ((value, reducers.dict_of(value)) for value in values.values() if dictionaries)
    return {id(owner): own for owner, own in owned if type(own) is dict and id(own) in dictionaries}


def _is_cell_class(work: Work, value: Any) -> bool:
    """Whether a root of a class is to be made; one whose metaclass might run code when it is asked is found later."""
    if not issubclass(type(value), type) or not work.trust.knows_class(value):
        return False
    try:
        return reducers.is_cell_class(value)
    except Exception:  # noqa: BLE001 - a metaclass may raise when its class is asked for anything; pickling it tells
        return False


def pickle_alone(work: Work, roots: list[Root]) -> None:
    """Pickle each root by itself; classes that turn up on the way become roots."""
    pending = list(roots)
    while pending:
        root = pending.pop(0)
        try:
            work.alone[root] = pickler = dump(work, [root])
        except SetAside:
            work.set_aside.append(root)
            continue
        except Exception as error:  # noqa: BLE001 - a reducer may raise anything; it costs its name
            if work.watch.may_set_aside and _is_too_deep(error):
                work.set_aside.append(root)
            else:
                work.refused[root] = _reason(root.value, error)
            continue
        for key in sorted(pickler.needs - work.class_roots.keys()):
            work.class_roots[key] = Root((), work.class_keys.classes[key], key)
            pending.append(work.class_roots[key])


def dump(work: Work, roots: list[Root]) -> Any:
    """Pickle roots into one stream: the C pickler first, dill for what it refuses."""
    work.watch.begin(roots)
    try:
        return _dump_by(GroupPickler, work, roots)
    except Exception as refusal:
        for make in _next_tiers(refusal):
            try:
                return _dump_by(make, work, roots)
            except Exception:  # noqa: BLE001, S112 - the first refusal tells best
                continue
        raise


def _next_tiers(refusal: Exception) -> Iterator[Callable[..., Any]]:
    if _is_too_deep(refusal):
        return
    if not _hopeless(refusal):
        yield dill_pickler
    if "torch" in sys.modules and not isinstance(refusal, Denied):
        yield LenientPickler


def _dump_by(make: Callable[..., Any], work: Work, roots: list[Root]) -> Any:
    inside = frozenset(id(root.value) for root in roots if root.class_key)
    pickler = make(
        Surroundings(work.frozen.namespace, work.class_keys, work.places, work.trust, work.watch.unknown, work.owners),
        inside,
    )
    values = tuple(root.value for root in roots for _ in root.names)
    content = (values, {root.class_key: root.value for root in roots if root.class_key})
    try:
        pickler.dump(content)
    except (Exception, SetAside):
        raise
    except BaseException as error:  # SystemExit, CancelledError, a Rust panic: a refusal like others
        if isinstance(error, KeyboardInterrupt) and work.interrupted():
            raise
        raise reducers.Refused(f"something that raises {type(error).__name__}") from error
    return pickler


def _is_too_deep(error: BaseException) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


def _hopeless(error: BaseException) -> bool:
    """Whether dill need not be asked, which is slow: it would call the same reducer, or knows no such type either."""
    if isinstance(error, reducers.Refused) or not isinstance(error, (TypeError, AttributeError, pickle.PicklingError)):
        return True
    return _UNKNOWN_TO_DILL.search(message_of(error)) is not None


_UNKNOWN_TO_DILL = re.compile(
    r"cannot pickle '(\w*generator|coroutine|frame|sqlite3\.\w+|ssl\.\w+|select\.\w+)' object"
)


def _reason(value: Any, error: BaseException) -> str:
    kind, message = type.__getattribute__(type(value), "__name__"), message_of(error)
    if isinstance(error, Denied) and error.args[0] == type_name(value):
        return message
    if isinstance(error, reducers.Refused):
        return message if reducers.never_saved(type(value)) else f"{kind} that holds {message}"
    itself = re.fullmatch(rf"cannot pickle '([\w.]+\.)?{re.escape(kind)}' object", message)
    return kind if itself else f"{kind}: {message}"


def message_of(error: BaseException) -> str:
    """The first line of an exception's text, which its own `__str__` may refuse."""
    try:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    except Exception:  # noqa: BLE001 - code of the user
        return type(error).__name__
