"""What the memory watch remembers of cells, and what it lets go again."""

from __future__ import annotations

import time
import types
from pathlib import Path

import pytest

from ipyrescue.identity import Identity
from ipyrescue.kernel import memory
from ipyrescue.kernel.life import LifeRecorder
from ipyrescue.kernel.memory import MemoryWatch
from ipyrescue.store import lives

ME = "a" * 16


@pytest.fixture
def rss(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """What the process holds from now on, in bytes."""
    held = types.SimpleNamespace(rss=1 << 30)
    monkeypatch.setattr(memory.psutil, "Process", lambda: types.SimpleNamespace(memory_info=lambda: held))
    return held


def run_cell(watch: MemoryWatch, rss: types.SimpleNamespace, source: str, taken: int) -> None:
    watch.cell_begins()
    rss.rss += taken
    watch.cell_ends(7, source)


def test_a_cell_that_keeps_growing_is_warned_of_until_it_stops(rss: types.SimpleNamespace) -> None:
    watch = MemoryWatch()
    for _ in range(3):
        run_cell(watch, rss, "keep()", 100 << 20)
    assert "Cell [7] took more memory in each of its last 3 runs, 315 MB" in str(watch.warning)
    run_cell(watch, rss, "look()", 0)
    assert watch.warning is not None

    run_cell(watch, rss, "keep()", 0)

    assert watch.warning is None


def test_memory_that_is_given_back_is_no_more_warned_of(rss: types.SimpleNamespace) -> None:
    watch = MemoryWatch()
    for _ in range(3):
        run_cell(watch, rss, "keep()", 100 << 20)

    run_cell(watch, rss, "kept.clear()", -300 << 20)

    assert watch.warning is None


def test_only_cells_that_grow_are_remembered(rss: types.SimpleNamespace) -> None:
    """A kernel runs for weeks, and each cell that is edited is another one."""
    watch = MemoryWatch()

    for number in range(100):
        run_cell(watch, rss, f"x = {number}", 0)

    assert watch._grown == {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / ".ipyrescue"


def begin(root: Path) -> LifeRecorder:
    recorder = LifeRecorder(ME, heartbeat_seconds=0.02)
    recorder.begin(root, Identity("train.ipynb", "notebook", root.parent / "train.ipynb", root))
    return recorder


def wait_until(root: Path, holds: object) -> None:
    deadline = time.monotonic() + 60
    while not holds(lives.read_all(root)[0]):  # type: ignore[operator]
        assert time.monotonic() < deadline, lives.read_all(root)
        time.sleep(0.01)


def test_a_worker_that_was_killed_for_memory_is_noted_while_the_kernel_lives(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its death would be counted hours later, as the cause of the kernel's own."""
    recorder = begin(root)
    try:
        wait_until(root, lambda life: life.memory is not None)

        monkeypatch.setattr(memory, "oom_kills", lambda: 99)

        wait_until(root, lambda life: life.memory.oom_kills == 99)
    finally:
        recorder.stop()


def test_a_torch_that_answers_nonsense_does_not_stop_the_heart(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose heart stands still is taken for dead by others who cannot see its process."""
    recorder = begin(root)
    try:
        nonsense = types.SimpleNamespace(is_initialized=lambda: True)
        with monkeypatch.context() as patch:
            patch.setitem(memory.sys.modules, "torch", types.SimpleNamespace(cuda=nonsense))
            time.sleep(0.1)  # some beats go wrong
        monkeypatch.setattr(memory, "oom_kills", lambda: 99)

        wait_until(root, lambda life: life.memory is not None and life.memory.oom_kills == 99)
    finally:
        recorder.stop()
