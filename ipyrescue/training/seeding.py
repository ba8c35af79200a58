"""Samples that draw from random streams of their own: a dataset wrapped so that each index brings its seed along."""

from __future__ import annotations

import random
import sys
from typing import Any

from torch.utils.data import get_worker_info

from ipyrescue.training import streams


class SeededDataset:
    """*dataset*, asked for pairs of a seed and an index.

    In a worker the streams stay as the sample has left them, so that a random `collate_fn` is as exact as the samples;
    in the process that trains they are put back. Everything else is the dataset's.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, pair: tuple[int, Any]) -> Any:
        seed, index = pair
        if get_worker_info() is not None:
            _seed(seed)
            return self.dataset[index]
        kept = streams.read()
        _seed(seed)
        try:
            return self.dataset[index]
        finally:
            streams.put_back(kept)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "__getitems__") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)  # not there yet while it is unpickled; and what fetches many would not seed
        return getattr(self.dataset, name)


def _seed(seed: int) -> None:
    """Seed the global streams of this process, as torch seeds those of a worker."""
    import torch

    random.seed(seed)
    torch.random.default_generator.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed([seed & 0xFFFF_FFFF, seed >> 32])
