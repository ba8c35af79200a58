"""Where the batches of a data loader come from, at the beginning of a pass and again in its middle.

Of torch's DataLoader it uses what is documented, and four things that are not: that a loader's attributes lie in its
`__dict__`, that the loader's iterator takes its index sampler and its dataset from there when it is made, that
`persistent_workers` keeps that iterator in `_iterator`, and that an iterator draws one seed when it is made. The tests
compare with uninterrupted passes, so another torch that does otherwise is noticed.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ipyrescue.errors import RescueError
from ipyrescue.training import bars, streams
from ipyrescue.training.samplers import Indices, draws_at_first, seed_of
from ipyrescue.training.sources import BarSource, Source, source_of


class StatefulSource(Source):
    """A loader that knows by itself where it is: it has `state_dict` and `load_state_dict`."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.loader = loader
        self._before: Any = None

    def start(self) -> Iterator[Any]:
        """The batches from where the loader is."""
        return self._asked(iter(self.iterable))

    def go_on(self, state: Mapping[str, Any], steps: int) -> Iterator[Any]:
        """The batches after those of the loader's own *state*."""
        self.loader.load_state_dict(state["loader"])
        return self._asked(iter(self.iterable))

    def state(self, steps: int, *, complete: bool) -> dict[str, Any]:
        """What the loader says now, or said before it made the batch in use."""
        return {"loader": self.loader.state_dict() if complete else self._before}

    def _asked(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            self._before = self.loader.state_dict()
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch


class MapSource(Source):
    """A DataLoader over a map-style dataset: the samplers are run again, the data is not read again."""

    def __init__(self, loader: Any, *, seed_samples: bool) -> None:
        super().__init__(loader)
        self.loader = loader
        self.described = f"{type(loader).__qualname__} of {_length_of(loader.dataset)} samples"
        self._seed_samples = seed_samples
        self._indices: Indices | None = None
        self._begun: dict[str, Any] = {}

    def start(self) -> Iterator[Any]:
        """The batches from the beginning, drawing as much as without us."""
        self._begun = {
            "streams": streams.read(),
            "generators": streams.read_generators(self.loader),
            "seed_drawn": _will_draw_a_seed(self.loader),
        }
        if self._seed_samples:
            self._begun["repeats"] = self._repeats()
        indices = _indices_of(self.loader)
        if indices is None and not self._seed_samples and draws_at_first(_sampler(self.loader)):
            return iter(self.loader)
        return self._made_with(indices or Indices(_sampler(self.loader)))

    def go_on(self, state: Mapping[str, Any], steps: int) -> Iterator[Any]:
        """The batches after the first *steps*; those are drawn again by the samplers, and not loaded."""
        if self.loader.num_workers > 1 and not getattr(self.loader, "in_order", True):
            raise RescueError(
                "This DataLoader hands out batches in no fixed order (in_order=False), so that nobody knows which "
                "ones were done. Make it with in_order=True to go on, or give the loop another name to begin anew."
            )
        self._begun = state["begun"]
        if self.loader.num_workers and not self._seed_samples:
            warnings.warn(
                "The order of the samples is exact. If the dataset draws random numbers in its workers, those differ "
                "from an uninterrupted run. To have them exact, from the start of a run: "
                "ipyrescue.batches(..., seed_samples=True)",
                stacklevel=5,
            )
        _forget_kept_iterator(self.loader)
        indices = _indices_of(self.loader) or Indices(_sampler(self.loader))
        indices.skip(steps, before=self._rewind)
        self._rewind_streams()
        batches = self._made_with(indices)
        indices.prime()
        indices.compare(state["drawn"])
        streams.put_back_generators(self.loader, state["generators"])
        return batches

    def state(self, steps: int, *, complete: bool) -> dict[str, Any]:
        """How the random streams were when the pass began, and those of samplers now; what was drawn so far."""
        drawn = self._indices.drawn(steps) if self._indices is not None else ()
        return {"begun": self._begun, "generators": streams.read_generators(self.loader), "drawn": drawn}

    def _made_with(self, indices: Indices) -> Iterator[Any]:
        """Make the loader's iterator over *indices*; they are remembered where the loader keeps its iterator."""
        self._indices = indices
        indices.seed = self._seed() if self._seed_samples else None
        replaced: dict[str, Any] = {_sampler_name(self.loader): indices}
        if self._seed_samples:
            from ipyrescue.training.seeding import SeededDataset

            replaced["dataset"] = SeededDataset(self.loader.dataset)
        with _attributes(self.loader, replaced):
            batches: Iterator[Any] = iter(self.loader)
        if getattr(self.loader, "persistent_workers", False):
            _KEPT[self.loader] = indices
        return batches

    def _seed(self) -> int:
        """The seed of the pass's samples: another one for each pass, also where no stream has moved in between."""
        if "repeats" not in self._begun:  # it began under an ipyrescue that knew the global stream only
            return seed_of(self._begun["streams"]["torch"])
        self.loader.__dict__[_SEEDED] = (self._digest(), self._begun["repeats"])
        return seed_of(*self._read_streams(), self._begun["repeats"])

    def _repeats(self) -> int:
        """How many passes of the loader before this one began with the very same streams, since it draws nothing.

        One that makes its iterator anew moves a stream by itself: standing the same, it was set on purpose.
        """
        if self._begun["seed_drawn"]:
            return 0
        digest, repeats = self.loader.__dict__.get(_SEEDED, (None, -1))
        return repeats + 1 if digest == self._digest() else 0

    def _digest(self) -> int:
        return seed_of(*self._read_streams())

    def _read_streams(self) -> tuple[Any, Any]:
        return self._begun["streams"]["torch"], self._begun["generators"].get("generator")

    def _rewind_streams(self) -> None:
        streams.put_back(self._begun["streams"])
        streams.put_back_generators(self.loader, self._begun["generators"])

    def _rewind(self) -> None:
        """Put the random streams to where they were when the samplers were first asked in the pass."""
        self._rewind_streams()
        if self._begun["seed_drawn"]:
            _draw_a_seed(self.loader)


class StreamSource(Source):
    """A DataLoader over an IterableDataset: by the dataset's own state, or else by reading on."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.loader = loader
        self._stateful = _has_state(loader.dataset) and not loader.num_workers
        self._begun: dict[str, Any] = {}
        self._before: Any = None
        self._batches: Any = None

    def start(self) -> Iterator[Any]:
        """The batches from the beginning."""
        self._begun = {"streams": streams.read(), "generators": streams.read_generators(self.loader)}
        return self._asked(iter(self.loader))

    def go_on(self, state: Mapping[str, Any], steps: int) -> Iterator[Any]:
        """The batches after the first *steps*."""
        self._begun = state["begun"]
        if state.get("ended"):
            return iter(())
        if "dataset" in state and self._stateful:
            self.loader.dataset.load_state_dict(state["dataset"])
            return self._asked(iter(self.loader))
        warnings.warn(
            f"The first {steps} batches of this IterableDataset are read again and thrown away: it has no state_dict "
            "that says where it is, or it is read by workers. What it draws at random while it is read by the process "
            "that trains may differ from an uninterrupted run.",
            stacklevel=5,
        )
        streams.put_back(self._begun["streams"])
        streams.put_back_generators(self.loader, self._begun["generators"])
        return self._asked(super().go_on(state, steps))

    def state(self, steps: int, *, complete: bool) -> dict[str, Any]:
        """How the random streams were when the pass began, and where the dataset says it is."""
        states: dict[str, Any] = {"begun": self._begun}
        if self._stateful:
            states["dataset"] = self.loader.dataset.state_dict() if complete else self._before
            states["ended"] = complete and self._has_ended()
        return states

    def _has_ended(self) -> bool:
        """Whether the last batch was cut short by the end of the dataset, which says no more where it is."""
        return bool(getattr(getattr(self._batches, "_dataset_fetcher", None), "ended", False))

    def _asked(self, batches: Iterator[Any]) -> Iterator[Any]:
        self._batches = batches
        return self._asked_before_each(batches) if self._stateful else batches

    def _asked_before_each(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            self._before = self.loader.dataset.state_dict()
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch


def source_of_batches(loader: Iterable[Any], *, seed_samples: bool) -> Source:
    """The way to get to a position of *loader*; raise `ValueError` if *seed_samples* does not apply to it."""
    if bars.is_bar(loader):
        return BarSource(loader, source_of_batches(loader.iterable, seed_samples=seed_samples))  # type: ignore[attr-defined]
    data = sys.modules.get("torch.utils.data")
    is_loader = data is not None and isinstance(loader, data.DataLoader)
    is_stream = is_loader and isinstance(loader.dataset, data.IterableDataset)  # type: ignore[attr-defined, union-attr]
    if seed_samples and (_has_state(loader) or is_stream or not is_loader):
        raise ValueError(
            "seed_samples=True seeds the samples of a torch DataLoader over a map-style dataset; this is "
            f"{type(loader).__qualname__}" + (" over an IterableDataset" if is_stream else "") + ". Leave it out."
        )
    if _has_state(loader):
        return StatefulSource(loader)
    if is_stream:
        return StreamSource(loader)
    return MapSource(loader, seed_samples=seed_samples) if is_loader else source_of(loader)


_SEEDED = "_ipyrescue_seeded"
"""An attribute of a loader with seeded samples, so that it travels with the loader: the digest of the streams that its
last pass began with, and how many passes before that one had begun with the same."""

_KEPT: weakref.WeakKeyDictionary[Any, Indices] = weakref.WeakKeyDictionary()
"""The indices that a loader with `persistent_workers` keeps with its iterator."""


def _indices_of(loader: Any) -> Indices | None:
    """The indices that the next pass of *loader* will ask because its iterator is kept."""
    return _KEPT.get(loader) if getattr(loader, "_iterator", None) is not None else None


def _forget_kept_iterator(loader: Any) -> None:
    if getattr(loader, "_iterator", None) is not None:
        loader.__dict__["_iterator"] = None
        _KEPT.pop(loader, None)


def _sampler_name(loader: Any) -> str:
    return "sampler" if loader.batch_sampler is None else "batch_sampler"


def _sampler(loader: Any) -> Any:
    return getattr(loader, _sampler_name(loader))


def _will_draw_a_seed(loader: Any) -> bool:
    """Whether the next iterator of *loader* is a new one: those that `persistent_workers` keeps draw no seed."""
    return not getattr(loader, "persistent_workers", False) or getattr(loader, "_iterator", None) is None


def _draw_a_seed(loader: Any) -> None:
    """Draw what an iterator of *loader* draws when it is made."""
    import torch

    torch.empty((), dtype=torch.int64).random_(generator=loader.generator)


@contextmanager
def _attributes(loader: Any, replaced: Mapping[str, Any]) -> Iterator[None]:
    """Give *loader* other attributes for a moment, past its `__setattr__`, which forbids it."""
    kept = {name: loader.__dict__[name] for name in replaced}
    loader.__dict__.update(replaced)
    try:
        yield
    finally:
        loader.__dict__.update(kept)


def _has_state(loader: object) -> bool:
    return callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))


def _length_of(dataset: Any) -> int | str:
    try:
        return len(dataset)
    except TypeError:  # its sampler knows
        return "?"
