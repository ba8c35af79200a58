"""Room on GPUs: what the memory of groups needs there, and what is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ipyrescue.manifest import Group


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
    if here.type != "cuda" or not torch.cuda.is_available() or (here.index or 0) >= torch.cuda.device_count():
        return None
    free, _ = torch.cuda.mem_get_info(here)
    return int(free + torch.cuda.memory_reserved(here) - torch.cuda.memory_allocated(here))
