"""What the samplers of a DataLoader draw: watched while it is drawn, and drawn again up to a position.

An Indices stands in front of the sampler that a loader asks. It hands on what that draws, keeps a checksum of it, and
can begin by drawing and dropping what a run that died had used. Whether that was the same is then compared, so that an
order which cannot be found again is refused.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ipyrescue.errors import RescueError


class Indices:
    """In front of *sampler*. With *seed*, each sample's index goes with a seed of its own to a `SeededDataset`."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._checksums = array("L")
        """After each drawn batch (or sample, without batches) the checksum of all so far."""
        self._skip: tuple[int, Callable[[], None]] | None = None
        self._current: _Drawing | None = None
        self.seed: int | None = None

    def __iter__(self) -> Iterator[Any]:
        self._checksums = array("L")
        self._current = _Drawing(self, self._sampler, self._checksums)
        return self._current

    def __len__(self) -> int:
        return len(self._sampler)

    def skip(self, count: int, *, before: Callable[[], None]) -> None:
        """Let the next pass draw and drop *count* first, after calling *before*."""
        self._skip = (count, before)

    def taken_skip(self) -> tuple[int, Callable[[], None]] | None:
        """What is to be skipped, once: loaders with workers make a pass that they never ask, and then another."""
        skip, self._skip = self._skip, None
        return skip

    def prime(self) -> None:
        """Draw and drop now what is to be dropped, if no worker has asked yet."""
        assert self._current is not None
        self._current.prime()

    def drawn(self, used: int) -> tuple[tuple[int, int], ...]:
        """How many were drawn, and their checksum: of those *used*, and of all that workers were sent in advance."""
        counts = {count for count in (used, len(self._checksums)) if 0 < count <= len(self._checksums)}
        return tuple((count, self._checksums[count - 1]) for count in sorted(counts))

    def compare(self, drawn: Sequence[tuple[int, int]]) -> None:
        """Raise `RescueError` unless what was drawn is what was *drawn* by the run that died."""
        if any(count <= len(self._checksums) and self._checksums[count - 1] != was for count, was in drawn):
            raise RescueError(
                f"The order of {type(self._sampler).__qualname__} cannot be found again: drawing from where its random "
                "streams were when the pass began gives other samples than were used. It draws from a global stream "
                "while the training does, or its data has changed. Let it draw all in the beginning of __iter__, or "
                "from a torch.Generator that is an attribute of it. To begin the pass anew, give the loop another name."
            )


class _Drawing:
    """One pass through a sampler."""

    def __init__(self, indices: Indices, sampler: Any, checksums: array[int]) -> None:
        self._indices = indices
        self._sampler = sampler
        self._checksums = checksums
        self._samples = 0
        self._items: Iterator[Any] | None = None

    def __iter__(self) -> _Drawing:
        return self

    def __next__(self) -> Any:
        self.prime()
        item = self._drawn()
        seed = self._indices.seed
        if seed is None:
            return item
        if not isinstance(item, (list, tuple)):
            return (sample_seed(seed, self._samples - 1), item)
        first = self._samples - len(item)
        return [(sample_seed(seed, first + offset), index) for offset, index in enumerate(item)]

    def prime(self) -> None:
        """Draw and drop what the run that died had used."""
        if self._items is not None:
            return
        skip = self._indices.taken_skip()
        if skip is None:
            self._items = iter(self._sampler)
            return
        count, before = skip
        before()
        self._items = iter(self._sampler)
        for done in range(count):
            try:
                self._drawn()
            except StopIteration:
                raise RescueError(
                    f"{type(self._sampler).__qualname__} ended after {done}; when it was saved, {count} had been used. "
                    "Make the loader what it was, and run the cell again."
                ) from None

    def _drawn(self) -> Any:
        assert self._items is not None
        item = next(self._items)
        self._samples += len(item) if isinstance(item, (list, tuple)) else 1
        before = self._checksums[-1] if self._checksums else 0
        self._checksums.append(zlib.crc32(repr(_plain(item)).encode(), before))
        return item


def draws_at_first(sampler: Any) -> bool:
    """Whether *sampler* is one of torch's that draw all they need when they are first asked, or never.

    Of these the order can be found again without having watched; torch calls a list a sampler too.
    """
    data: Any = sys.modules["torch.utils.data"]
    if type(sampler) is data.BatchSampler:
        return draws_at_first(sampler.sampler)
    if type(sampler) is data.RandomSampler:
        return sampler.generator is None or (
            not sampler.replacement and sampler.num_samples <= len(sampler.data_source)
        )
    at_first = (data.SequentialSampler, data.SubsetRandomSampler, data.WeightedRandomSampler, data.DistributedSampler)
    return type(sampler) in (*at_first, list, tuple, range)


def seed_of(torch_state: Any, generator_state: Any = None, repeats: int = 0) -> int:
    """A number for a pass, made of the states of torch's global stream and of its loader's own generator when it began.

    Nothing is drawn from either. *repeats* tells passes apart that began with the same streams.
    """
    made = hashlib.blake2b(bytes(torch_state.tolist()), digest_size=8)
    if generator_state is not None:
        made.update(bytes(generator_state.tolist()))
    if repeats:
        made.update(repeats.to_bytes(8, "big"))
    return int.from_bytes(made.digest(), "big")


def sample_seed(pass_seed: int, position: int) -> int:
    """The seed of the sample at *position* of a pass: 64 bits that have nothing to do with their neighbours'."""
    raw = pass_seed.to_bytes(8, "big") + position.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")


def _plain(item: Any) -> Any:
    """Indices as plain numbers, whatever they come in: what is printed of a long tensor is not all of it."""
    if hasattr(item, "tolist"):
        return item.tolist()
    return [_plain(one) for one in item] if isinstance(item, (list, tuple)) else item
