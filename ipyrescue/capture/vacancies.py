"""Memory that the C library keeps for later and nobody uses: taken for a moment, so that a fork can leave it out.

What a training step needs besides its state (gradients, activations) lies free between two steps, and the next step
writes to all of it again: pages that a child had would be copied one by one, for nothing. Knows glibc's allocator only
(malloc(3), mallinfo(3)); of any other there is nothing to take.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

Span = tuple[int, int]
"""Memory from an address on, so many bytes."""

_SMALLEST_BYTES = 1 << 20
_LARGEST_BYTES = 32 << 20
_MOST_BLOCKS = 4096
_HEADER_BYTES = ctypes.sizeof(ctypes.c_size_t)
_IS_MAPPED = 2
"""The bit of a block's header that says that it is a mapping of its own: new memory, not free memory."""


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2`: *fordblks* are the free bytes that the allocator holds."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@contextlib.contextmanager
def taken(largest_bytes: int) -> Iterator[list[Span]]:
    """Hold the free memory of the C library, in blocks from *largest_bytes* down to 1 MiB, while the body runs.

    Nothing is written to it, and no new memory is taken. *largest_bytes* should be no more than what the program
    allocates and frees itself: glibc keeps blocks of the sizes that it has seen freed.
    """
    libc = _glibc()
    if libc is None:
        yield []
        return
    blocks = list(_take(libc, min(largest_bytes, _LARGEST_BYTES)))
    try:
        yield blocks
    finally:
        for address, _ in reversed(blocks):
            libc.free(address)


def _take(libc: Any, size_bytes: int) -> Iterator[Span]:
    left, number = libc.mallinfo2().fordblks, 0
    while size_bytes >= _SMALLEST_BYTES and number < _MOST_BLOCKS:
        address = _free_block(libc, size_bytes) if left >= size_bytes else None
        if address is None:
            size_bytes //= 2
            continue
        yield address, size_bytes
        left, number = left - size_bytes, number + 1


def _free_block(libc: Any, size_bytes: int) -> int | None:
    """A block that the allocator had already; None if it would have to ask the system for one."""
    end = libc.sbrk(0)
    address: int | None = libc.malloc(size_bytes)
    if address is None:
        return None
    header = ctypes.c_size_t.from_address(address - _HEADER_BYTES).value
    if header & _IS_MAPPED or libc.sbrk(0) != end:
        libc.free(address)
        return None
    return address


@cache
def _glibc() -> Any:
    """The C library if it is glibc from 2.33 on; called without letting go of the interpreter's lock.

    None where another allocator stands in the place of its malloc (jemalloc and the like, by LD_PRELOAD): what precedes
    a block of theirs is no header, and perhaps no memory at all.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.PyDLL(None)
    if not all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallinfo2", "__libc_malloc")):
        return None
    if not _is_its_own(libc):
        return None
    libc.mallinfo2.restype = _Mallinfo2
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    return libc


def _is_its_own(libc: Any) -> bool:
    """Whether the malloc that the program calls is glibc's."""
    used, own = (ctypes.cast(libc[name], ctypes.c_void_p).value for name in ("malloc", "__libc_malloc"))
    return used == own
