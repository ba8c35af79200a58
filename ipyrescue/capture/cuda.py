"""Memory of CUDA devices to host memory, beside what the devices compute. Asks for torch where it is loaded already.

Copies run on a stream of their own for each device, which first waits for what was queued before
(https://docs.pytorch.org/docs/stable/notes/cuda.html), into pages that the driver was told of (cudaHostRegister).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

_streams: dict[str, Any] = {}


def pin(address: int, size_bytes: int) -> None:
    """Register host memory with the driver; where it refuses, copies go by way of its own pinned memory, slower."""
    torch: Any = sys.modules["torch"]
    with suppress(RuntimeError, AttributeError):
        torch.cuda.cudart().cudaHostRegister(address, size_bytes, 0)


def unpin(address: int) -> None:
    """Take back what `pin` did, before the memory is unmapped."""
    torch: Any = sys.modules["torch"]
    with suppress(RuntimeError, AttributeError):
        torch.cuda.cudart().cudaHostUnregister(address)


def copy_to_host(copies: Iterable[tuple[Any, int]]) -> None:
    """Copy each torch storage to the host address beside it; return when all bytes are there."""
    torch: Any = sys.modules.get("torch")
    used = []
    for storage, address in copies:
        if storage.nbytes() == 0:
            continue
        stream = _stream(torch, storage.device)
        used.append(stream)
        source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
        target = torch.frombuffer((ctypes.c_char * storage.nbytes()).from_address(address), dtype=torch.uint8)
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
    for stream in dict.fromkeys(used):
        stream.synchronize()


def _stream(torch: Any, device: Any) -> Any:
    """The stream of ours on *device*, behind all that its current stream was told to do."""
    stream = _streams.setdefault(str(device), torch.cuda.Stream(device))
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
