"""Copies of live memory that nobody can change."""

import ctypes

import pytest

from ipyrescue import cgroups
from ipyrescue.capture import staging
from ipyrescue.capture.staging import PAGE_BYTES, StagingArea, available_memory_bytes
from ipyrescue.errors import CheckpointError


def _source(size_bytes, seed=1):
    memory = bytearray((i * 31 + seed) % 251 for i in range(min(size_bytes, 4096)))
    memory = (memory * (size_bytes // max(len(memory), 1) + 1))[:size_bytes]
    return memory, ctypes.addressof((ctypes.c_char * size_bytes).from_buffer(memory))


def _address(view):
    copy = (ctypes.c_char * len(view)).from_buffer_copy(view)
    del copy
    import numpy as np

    return np.frombuffer(view, dtype=np.uint8).ctypes.data


@pytest.mark.parametrize("size_bytes", [1, 63, 64, 4095, 65_535, 65_536, 65_537, (8 << 20) + 5, (20 << 20) + 4097])
def test_a_hold_is_an_equal_copy_that_later_writes_do_not_reach(size_bytes):
    memory, address = _source(size_bytes)
    area = StagingArea()

    view = area.hold(address, size_bytes)
    before = bytes(memory)
    ctypes.memset(address, 0xFF, size_bytes)

    assert view == before
    assert (view.format, view.readonly, view.nbytes) == ("B", True, size_bytes)


def test_large_holds_begin_at_pages_and_small_ones_at_cache_lines():
    memory, address = _source(200_000)
    area = StagingArea()

    small, large, after = area.hold(address, 100), area.hold(address, 100_000), area.hold(address, 10)

    assert _address(small) % 64 == 0
    assert _address(large) % PAGE_BYTES == 0
    assert _address(after) % PAGE_BYTES == 0
    assert memory


def test_the_rest_of_a_large_holds_last_page_is_zero_also_when_warm():
    """Pages go to the disk as they are: no byte of an older snapshot may hide in them."""
    _, dirty = _keep = _source(1 << 20)
    area = StagingArea()
    area.hold(dirty, 1 << 20)
    area.reset()

    view = area.hold(dirty, 100_000)

    rest = -100_000 % PAGE_BYTES
    assert ctypes.string_at(_address(view) + 100_000, rest) == bytes(rest)
    assert _keep


def test_many_holds_at_once_are_the_same_as_one_after_the_other():
    sources = [_source(size, seed) for seed, size in enumerate([10, 5 << 20, 0, 70_000, 9 << 20, 4096])]
    area = StagingArea()

    views = area.hold_all([(address, len(memory)) for memory, address in sources[:2] + sources[3:]])

    assert [bytes(view) for view in views] == [bytes(memory) for memory, _ in sources[:2] + sources[3:]]


def test_nothing_held_is_an_empty_view():
    area = StagingArea()

    assert (area.hold(0, 0).nbytes, area.size_bytes) == (0, 0)


def test_a_reset_area_is_filled_again_without_growing():
    _, address = keep = _source(30 << 20)
    area = StagingArea()
    for _ in range(3):
        first = area.hold(address, 30 << 20)
        second = area.hold(address, 30 << 20)
        places = _address(first), _address(second)
        size_bytes = area.size_bytes
        del first, second
        area.reset()

    again = area.hold(address, 30 << 20)
    assert _address(again) == places[0]
    assert area.size_bytes == size_bytes == 64 << 20
    assert area.used_bytes == 30 << 20
    assert keep


def test_a_view_that_outlives_a_reset_keeps_its_bytes():
    """A writer that is late must not hash the bytes of the next snapshot."""
    memory, address = _source(1 << 20)
    area = StagingArea()
    part = area.hold(address, 1 << 20)[100:200]
    expected = bytes(memory[100:200])

    area.reset()
    ctypes.memset(address, 0, 1 << 20)
    area.hold(address, 1 << 20)

    assert part == expected


def test_a_view_that_outlives_the_release_can_be_read():
    memory, address = _source(1 << 20)
    area = StagingArea()
    view = area.hold(address, 1 << 20)

    area.release()
    del area

    assert view == memory


def test_release_gives_the_memory_back():
    import psutil

    _, address = keep = _source(200 << 20)
    area = StagingArea()
    before = psutil.Process().memory_info().rss
    view = area.hold(address, 200 << 20)
    assert psutil.Process().memory_info().rss - before > 150 << 20

    del view
    area.release()

    assert psutil.Process().memory_info().rss - before < 50 << 20
    assert area.size_bytes == 0
    assert keep


def test_memory_that_is_not_there_is_refused_with_both_numbers():
    area = StagingArea(available_bytes=lambda: 300_000_000)

    with pytest.raises(CheckpointError, match=r"needs 2\.0 GB more memory, and only 300 MB is available"):
        area.reserve(2_000_000_000)

    assert area.size_bytes == 0


def test_reserve_makes_room_once():
    area = StagingArea()

    area.reserve(100 << 20)
    size_bytes = area.size_bytes
    area.reserve(100 << 20)

    assert area.size_bytes == size_bytes >= 100 << 20


def test_what_a_container_leaves_is_all_that_is_available(monkeypatch):
    rooms = [cgroups.Room(600, 1000), cgroups.Room(900, 2000)]
    monkeypatch.setattr(cgroups, "rooms", lambda: iter(rooms))
    assert available_memory_bytes() == 400

    rooms.clear()
    assert available_memory_bytes() > 1 << 20


def test_a_big_copy_is_whole_where_no_thread_can_start(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    memory, address = _source(9 << 20)
    monkeypatch.setattr(staging.threading.Thread, "start", refuse)

    assert StagingArea().hold(address, 9 << 20) == memory


@pytest.mark.parametrize("sizes", [[100], [10, 10], [4096 * 5, 3, 8192, 1], [1, 1, 1_000_000]])
def test_halves_together_move_every_byte_once(sizes):
    moves, place = [], 0
    for size in sizes:
        moves.append((place, place + 7, size))
        place += size

    mine, other = staging._halves(moves)

    covered = [target + i for target, _, size in mine + other for i in range(size)]
    assert covered == list(range(sum(sizes)))
    assert all(source == target + 7 for target, source, _ in mine + other)
