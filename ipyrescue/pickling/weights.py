"""Whether what an optimizer trains is in what was pickled: optimizers and memory into sentences about what is not.

The memory that streams refer to is the truth. An object may also write its tensors down itself, as skorch's nets do by
`torch.save`: there it is decided by whether what was pickled holds them, however deep. A tensor without plain memory
(sharded, sparse, not yet made) is not asked about.
"""

from __future__ import annotations

import gc
import types
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ipyrescue.pickling.buffers import Reference, overlapping
from ipyrescue.pickling.tensors import storage_reference, trained_by
from ipyrescue.trained import Trained

_MOST_OBJECTS = 500_000
_NOT_PICKLED = (
    type, types.ModuleType, types.CodeType, types.FrameType, types.TracebackType, types.GeneratorType,
    types.CoroutineType, types.AsyncGeneratorType,
)  # fmt: skip
"""What pickles by name or not at all, so that nothing in it is saved."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors that an optimizer changes, and their memory: *references* by the identity of the tensor."""

    trained: Trained
    references: dict[int, Reference]


def weights(trained: Iterable[Trained], left_out: Iterable[Any] = ()) -> tuple[Weights, ...]:
    """What is *trained*, but for what the user has *left_out* on purpose."""
    found = []
    for one in trained:
        with suppress(Exception):  # an optimizer of the user's, or memory that is gone: nothing is known of it then
            references = {id(tensor): storage_reference(tensor) for tensor in trained_by(one.optimizer)}
            plain = {identity: r for identity, r in references.items() if r is not None and r.size_bytes}
            found.append(Weights(one, plain))
    away = _held_by(left_out, {identity for each in found for identity in each.references})
    return tuple(each for each in found if each.references.keys() - away)


def unsaved(wanted: Iterable[Weights], pickled: Iterable[Reference], values: Iterable[Any]) -> Iterator[str]:
    """Say what of the *wanted* is neither in memory that was *pickled* nor held by one of the *values*."""
    wanted, held, values = list(wanted), list(pickled), list(values)
    for each in wanted:
        missing = _missing(each, held)
        missing -= _held_by(values, missing)
        if missing:
            yield each.trained.unsaved(len(missing), len(each.references))


def _missing(one: Weights, held: list[Reference]) -> set[int]:
    """The tensors of which no byte is in the memory *held*."""
    own = {id(reference) for reference in one.references.values()}
    alone = [cluster for cluster in overlapping([*held, *one.references.values()]) if own.issuperset(map(id, cluster))]
    lost = {id(reference) for cluster in alone for reference in cluster}
    return {identity for identity, reference in one.references.items() if id(reference) in lost}


def _held_by(values: Iterable[Any], wanted: set[int]) -> set[int]:
    """Those of the *wanted* identities that are met from *values* on, nearest first, as far as objects pickle."""
    found, seen, pending = set[int](), set[int](), deque(values)
    while pending and found != wanted and len(seen) < _MOST_OBJECTS:
        value = pending.popleft()
        if id(value) not in seen and not issubclass(type(value), _NOT_PICKLED):
            seen.add(id(value))
            found |= wanted & {id(value)}
            pending.extend(filter(gc.is_tracked, _parts(value)))
    return found


def _parts(value: Any) -> list[Any]:
    """What an object holds; of a function what pickling takes of it, and not all the globals that it sees."""
    if type(value) is types.FunctionType:
        return [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
    return gc.get_referents(value)
