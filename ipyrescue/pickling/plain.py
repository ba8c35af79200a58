"""Whether a value that was read without unpickling is plain: nothing in it is missing, endless, deep or a trap.

Takes what `ipyrescue.pickling.opcodes` made of a stream, whose writer may be an enemy, and looks at types alone. Knows
no streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MOST_ELEMENTS = 20_000_000
"""Of one value, each as often as it is referred to."""

DEEPEST = 200


@dataclass(frozen=True, eq=False, slots=True)
class Unread:
    """Stands for what only unpickling would make; *what* says so."""

    what: str


class NotPlainError(Exception):
    """Why a value is not restored without unpickling, as the end of a sentence."""


Known = dict[int, tuple[int, int] | str | None]
"""Of containers by their `id`: what each unfolds to and how deep it is, or why it is not plain; None while it is open.

It serves as long as all that was read is alive, so that names which share values take no more time than one of them.
"""


def check(value: Any, known: Known | None = None) -> None:
    """Raises NotPlainError for a value with an `Unread` in it, that holds itself, is deep, or unfolds to a lot."""
    found: tuple[int, int] | str | None = value.what if isinstance(value, Unread) else None
    if type(value) in _CONTAINERS:
        found = _look_through(value, {} if known is None else known)
    if isinstance(found, str):
        raise NotPlainError(found)


def _look_through(value: Any, known: Known) -> tuple[int, int] | str | None:
    """What is *known* of a container from now on. Depth is the enemy's to choose, so it takes no recursion."""
    open_below = [] if id(value) in known else [_begin(value, known)]
    while open_below:
        container = open_below[-1]
        item = container.next_unknown(known)
        if item is not None:
            open_below.append(_begin(item, known))
            continue
        known[container.id] = container.found
        open_below.pop()
        if open_below:
            open_below[-1].add(container.found)
    return known[id(value)]


def _begin(container: Any, known: Known) -> _Looked:
    known[id(container)] = None
    return _Looked(container)


class _Looked:
    """A container and what its items came to that were looked at, one after the other."""

    __slots__ = ("found", "id", "items")

    def __init__(self, container: Any) -> None:
        self.id = id(container)
        self.items = iter((*container.keys(), *container.values()) if type(container) is dict else container)
        self.found: tuple[int, int] | str = 1, 0

    def next_unknown(self, known: Known) -> Any:
        """Look on, until there is a container of which nothing is known; None where nothing is left to be known."""
        if isinstance(self.found, str):
            return None
        single = 0
        for item in self.items:
            if type(item) in _CONTAINERS:
                if id(item) not in known:
                    break
                self.add(known[id(item)] or "holds itself")
            elif isinstance(item, Unread):
                self.add(item.what)
            else:
                single += 1
        else:
            item = None
        if single:
            self.add((single, 0))
        return item

    def add(self, item: tuple[int, int] | str) -> None:
        """Note what an item, or several, came to."""
        if isinstance(self.found, str):
            return
        if isinstance(item, str):
            self.found = item
            return
        weight, height = self.found[0] + item[0], max(self.found[1], item[1] + 1)
        self.found = weight, height
        if weight > MOST_ELEMENTS:
            self.found = "unfolds to more than it is"
        elif height > DEEPEST:
            self.found = "nested too deep"


_CONTAINERS = frozenset({list, tuple, dict})
