"""GPUs: whether they are here, what the memory of groups needs there, and what is free."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping

from ipyrescue import gpus
from ipyrescue.manifest import Group

_said: list[str] = []
"""What torch warned of when it was asked for GPUs; it warns once in a process."""


def needed_bytes(groups: Iterable[Group]) -> Mapping[str, int]:
    """The bytes that *groups* put on each device other than the CPU."""
    needed: Counter[str] = Counter()
    for group in groups:
        for storage in group.storages:
            if storage.kind == "torch" and storage.device != "cpu":
                needed[storage.device] += storage.size_bytes
    return needed


def free_bytes(device: str) -> int | None:
    """What torch can still take of *device*: what the driver has, and what torch itself holds unused.

    `None` where there is no such device, so that nothing would be placed on it.
    """
    import torch

    here = torch.device(device)
    if not is_here(device):
        return None
    free, _ = torch.cuda.mem_get_info(here)
    return int(free + torch.cuda.memory_reserved(here) - torch.cuda.memory_allocated(here))


def is_here(device: str) -> bool:
    """Whether torch can put memory on *device*, a GPU. This may initialise CUDA."""
    import torch

    here = torch.device(device)
    return here.type == "cuda" and _available() and (here.index or 0) < torch.cuda.device_count()


def why_not(device: str) -> str | None:
    """Why a GPU is not here, as far as it can be known; None for another kind of device."""
    import torch

    if torch.device(device).type != "cuda":
        return None
    facts = gpus.look(". ".join(_said))
    return gpus.why_fewer(torch.cuda.device_count(), facts) if _available() else gpus.why_none(facts)


def _available() -> bool:
    """Whether torch sees a GPU; a warning of its own is kept, to be told in a sentence."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    told = [str(warning.message).partition(" (Triggered internally")[0].rstrip(".") for warning in caught]
    _said.extend(dict.fromkeys(sentence for sentence in told if sentence not in _said))
    return bool(found)
