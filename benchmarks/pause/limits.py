"""What no eager snapshot can beat: copying the trained tensors, writing their bytes to the disk, hashing them."""

from __future__ import annotations

import errno
import mmap
import os
import time
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from benchmarks.pause.training import Training, view

_PAGE_BYTES = 4096
_WRITE_BYTES = 8 << 20


def measure(training: Training, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of each, *repeats* times.

    A copy into warm memory by torch's threads; a raw write of that copy past the page cache with one fsync; blake3 by
    all cores.
    """
    tensors = list(training.tensors().values())
    memory, copies = _warm_copies(tensors)
    copied, written, hashed = [], [], []
    for _ in range(repeats):
        copied.append(_copy_seconds(copies, tensors))
        os.sync()
        seconds, direct = _write_seconds(memory, folder / "raw")
        written.append(seconds)
        hashed.append(_hash_seconds(copies))
    return {"memcpy": copied, "write": written, "hash": hashed, "direct": direct}


def _warm_copies(tensors: list[torch.Tensor]) -> tuple[mmap.mmap, list[torch.Tensor]]:
    """Page-aligned memory as large as the tensors, and a tensor in it for each; copied to twice."""
    sizes = [-(-t.numel() * t.element_size() // _PAGE_BYTES) * _PAGE_BYTES for t in tensors]
    memory = mmap.mmap(-1, sum(sizes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole, copies, start = torch.frombuffer(memory, dtype=torch.uint8), [], 0
    for tensor, size_bytes in zip(tensors, sizes, strict=True):
        room = whole[start : start + tensor.numel() * tensor.element_size()]
        copies.append(room.view(tensor.dtype).view(tensor.shape))
        start += size_bytes
    for _ in range(2):
        _copy_seconds(copies, tensors)
    return memory, copies


def _copy_seconds(copies: list[torch.Tensor], tensors: list[torch.Tensor]) -> float:
    start = time.perf_counter()
    with torch.no_grad():
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor)
    return time.perf_counter() - start


def _write_seconds(memory: mmap.mmap, path: Path) -> tuple[float, bool]:
    """Seconds, and whether it went past the page cache, as not every file system can."""
    bytes_left = memoryview(memory)
    start = time.perf_counter()
    fd, direct = _open(path)
    try:
        while bytes_left:
            bytes_left = bytes_left[os.write(fd, bytes_left[:_WRITE_BYTES]) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds, direct


def _open(path: Path) -> tuple[int, bool]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600), True
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
    path.unlink(missing_ok=True)
    return os.open(path, flags, 0o600), False


def _hash_seconds(tensors: list[torch.Tensor]) -> float:
    start = time.perf_counter()
    for tensor in tensors:
        blake3(view(tensor), max_threads=blake3.AUTO).digest()
    return time.perf_counter() - start
