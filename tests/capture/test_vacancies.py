"""Free memory of the C library: taken, left out of a fork, and given back."""

import ctypes
import subprocess
import sys

import pytest

from ipyrescue.capture import vacancies

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")

PROGRAM = """
import ctypes, os, resource
from ipyrescue.capture import vacancies
from ipyrescue.capture.forking import ForkingWriter

SIZE, COUNT = 4 << 20, 24
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
state = ctypes.create_string_buffer(1 << 20)

libc.free(libc.malloc(8 << 20))  # from now on glibc keeps blocks of this size, as it does in a training
step = [libc.malloc(SIZE) for _ in range(COUNT)]
lid = libc.malloc(2 << 20)  # too large for any hole: what keeps the heap from shrinking

def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for block in step:
        ctypes.memset(block, 1, SIZE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

touch()
for block in step:
    libc.free(block)
end = libc.sbrk(0)
with vacancies.taken(SIZE) as taken:
    print("taken", sum(size for _, size in taken) >= SIZE * COUNT * 3 // 4)
    print("free", all(any(at < block + SIZE and block < at + size for block in step) for at, size in taken))
print("no more", libc.sbrk(0) == end)

writer = ForkingWriter()
def write():
    libc.malloc(1 << 20)
    return b"x" * len(state)
absent = [(ctypes.addressof(state), SIZE)]  # says how large the blocks of this program are
ticket = writer.submit(write, absent=absent[:0])
step = [libc.malloc(SIZE) for _ in range(COUNT)]
copied = touch()
print(len(ticket.result(60)), ticket.wait(60, gone=True))
for block in step:
    libc.free(block)
own = ctypes.create_string_buffer(SIZE)
ticket = writer.submit(write, absent=[(ctypes.addressof(own), SIZE)])
step = [libc.malloc(SIZE) for _ in range(COUNT)]
kept = touch()
print(len(ticket.result(60)), ticket.wait(60, gone=True))
print("fewer faults", kept < copied / 4, kept, copied)
"""


def test_free_memory_is_taken_left_out_of_a_fork_and_given_back():
    """What the next step writes to all of, and nobody reads, is not copied page by page."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)

    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[:3] == ["taken True", "free True", "no more True"]
    assert lines[3:5] == [f"{1 << 20} True"] * 2
    assert lines[5].startswith("fewer faults True"), lines[5]


def test_another_allocator_has_nothing_to_take(monkeypatch):
    monkeypatch.setattr(vacancies, "_glibc", lambda: None)

    with vacancies.taken(1 << 24) as taken:
        assert taken == []


def test_a_malloc_of_somebody_else_is_never_asked_what_precedes_its_blocks():
    """As jemalloc's, by LD_PRELOAD: its blocks begin at pages, and nothing need be mapped before them."""
    libc = ctypes.PyDLL(None)
    preloaded = {"malloc": libc["calloc"], "__libc_malloc": libc["__libc_malloc"]}

    assert vacancies._is_its_own(libc)
    assert not vacancies._is_its_own(preloaded)


def test_small_memory_is_left_alone():
    with vacancies.taken((1 << 20) - 1) as taken:
        assert taken == []
