"""`ipyrescue.batches(loader)`: the batches of any DataLoader, going on at the one that a snapshot was taken after."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from ipyrescue.errors import RescueError
from ipyrescue.training import naming
from ipyrescue.training.loading import source_of_batches
from ipyrescue.training.loop import Loop, over

T = TypeVar("T")


def batches(loader: Iterable[T], *, name: str | None = None, seed_samples: bool = False) -> Loop[T]:
    """Iterate over *loader*; the same cell, run again after a full restore, goes on with the batch that would be next.

        for x, y in ipyrescue.batches(loader): ...

    `batches(loader).enumerate()` numbers them, and `batches(loader).goes_on` tells whether the pass will begin in its
    middle: see `loop`.

    What is resumed is the pass that was in progress; the passes after it are as ever. `loop` says what counts as in
    progress, when a batch is completed, and what a *name* is for. By loader:

    - one with `state_dict` and `load_state_dict` (torchdata's StatefulDataLoader) is asked, before each batch;
    - a DataLoader over a map-style dataset: its samplers run again from where their random streams were when the pass
      began, up to the position, and no skipped sample is loaded. Shuffled or not, with samplers of any kind: one whose
      order cannot be found again (it draws from a global stream while training does) is refused;
    - a DataLoader over an IterableDataset: by the dataset's own `state_dict`, if it has that and there are no workers,
      else what comes before the position is read again, which a warning says;
    - anything else is treated as `loop` does.

    Random streams are exact where the process that trains loads the data (`num_workers=0`). Random transforms in
    workers draw from streams of the workers, which no snapshot has; a warning says so, once, when such a pass goes on.
    With *seed_samples* each sample draws from streams of its own, seeded by the pass and the sample's position in it:
    exact for any number of workers, and the same for each number. It is for map-style datasets.

    Raises `RescueError` when the pass starts: for a loader of another length or type than what was saved, for one with
    `in_order=False`, and for a name that is taken; `ValueError` for *seed_samples* where it does not apply.
    """
    if isinstance(loader, enumerate):
        raise RescueError(
            "batches() takes the loader itself: what enumerate() has begun cannot go on. Write: "
            "for i, batch in ipyrescue.batches(loader).enumerate()"
        )
    source = source_of_batches(loader, seed_samples=seed_samples)
    return over(loader, "batches", name or naming.name_of(sys._getframe(1)), source)
