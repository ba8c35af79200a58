"""Where the items of a pass come from: at the beginning, and again at a position in another process.

Each Source is a way of getting to a position: by index, by reading on, or through a bar of tqdm around another source.
Those of data loaders are in `loading`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ipyrescue.errors import RescueError
from ipyrescue.training import bars


class Source:
    """Any iterable: it gets to a position by reading what comes before it, and throwing that away."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self.iterable = iterable
        self.described = type(iterable).__qualname__
        self.length = _length(iterable)

    def start(self) -> Iterator[Any]:
        """The items from the beginning."""
        return iter(self.iterable)

    def go_on(self, state: Mapping[str, Any], steps: int) -> Iterator[Any]:
        """The items after the first *steps*; *state* is what `state` said when that many were completed."""
        items = iter(self.iterable)
        read = sum(1 for _ in islice(items, steps))
        if read < steps:
            raise RescueError(
                f"This {self.described} ended after {read} items; when it was saved, {steps} had been done. Make it "
                "what it was, and run the cell again; or give the loop another name, to begin at the beginning."
            )
        return items

    def state(self, steps: int, *, complete: bool) -> dict[str, Any]:
        """What `go_on` needs beside the number of *steps* completed; the item in use is one of them if *complete*."""
        return {}


class SequenceSource(Source):
    """A sequence: it gets to a position by index."""

    def go_on(self, state: Mapping[str, Any], steps: int) -> Iterator[Any]:
        """The items from index *steps*; none before it is evaluated."""
        return _from_index(self.iterable, steps)


class BarSource(Source):
    """A bar of tqdm around another source, which stays what is shown."""

    def __init__(self, bar: Any, inner: Source) -> None:
        self.iterable = self.bar = bar
        self.inner = inner
        self.described, self.length = inner.described, inner.length

    def start(self) -> Iterator[Any]:
        """The items from the beginning, shown by the bar."""
        self.bar.iterable = self.inner.start()
        return iter(self.bar)

    def go_on(self, state: Mapping[str, Any], steps: int) -> Iterator[Any]:
        """The items after the first *steps*; the bar does not see those."""
        self.bar.iterable = self.inner.go_on(state, steps)
        return iter(self.bar)

    def state(self, steps: int, *, complete: bool) -> dict[str, Any]:
        """What the source inside says."""
        return self.inner.state(steps, complete=complete)


def source_of(iterable: Iterable[Any]) -> Source:
    """The best way to get to a position of *iterable*."""
    if bars.is_bar(iterable):
        return BarSource(iterable, source_of(iterable.iterable))  # type: ignore[attr-defined]
    return SequenceSource(iterable) if _goes_by_index(iterable) else Source(iterable)


def _goes_by_index(iterable: object) -> bool:
    """Whether iterating means `[0]`, `[1]` and so on: dicts and pandas have `[]` and a length, and mean otherwise."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if isinstance(iterable, Sequence) or not hasattr(iterable, "__iter__"):
        return True
    if numpy is not None and isinstance(iterable, numpy.ndarray):
        return True
    return torch is not None and isinstance(iterable, torch.Tensor)


def _from_index(sequence: Any, index: int) -> Iterator[Any]:
    while True:
        try:
            item = sequence[index]
        except IndexError:
            return
        yield item
        index += 1


def _length(iterable: Any) -> int | None:
    try:
        return len(iterable)
    except TypeError:  # it has none, or has the method without an answer, as loaders of streams do
        return None
