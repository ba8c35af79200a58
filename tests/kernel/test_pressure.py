"""Memory that comes near its limit: judged as a table, read from trees of files, and met in a real control group."""

import subprocess
import sys
import textwrap
import types

import pytest

from ipyrescue import cgroups
from ipyrescue.kernel import pressure
from ipyrescue.kernel.pressure import CALM_SECONDS, Judge, Level, Pressure

GB = 10**9
V2 = ("0::/user.slice\n", "user.slice", ("memory.max", "memory.current", "inactive_file"))
V1 = (
    "4:memory:/docker/5f0c\n0::/\n",
    "memory",
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ([0.5, 0.89, 0.899], []),
        ([0.5, 0.9], [1]),
        ([0.95], [0]),
        ([0.95, 0.95, 0.99, 1.0], [0]),
        ([0.95, 0.85, 0.95, 0.81, 0.95], [0]),
        ([0.95] + [0.85] * 200 + [0.95], [0]),
        ([0.95] + [0.5] * 10 + [0.95], [0]),
        ([0.95] + [0.5] * 61 + [0.95], [0, 62]),
        ([0.95, 0.5] * 100, [0]),
        ([0.95] + [0.5] * 61 + [0.85, 0.95, 0.95], [0, 63]),
    ],
)
def test_a_crossing_is_told_once(shares, told):
    """One look a second; what has been told must rest below the lower mark before it is news again."""
    judge = Judge()

    heard = [judge.crossed([Level("it", int(share * 1000), 1000)], second) for second, share in enumerate(shares)]

    assert [second for second, text in enumerate(heard) if text is not None] == told
    assert CALM_SECONDS == 60


def test_each_thing_crosses_for_itself():
    judge = Judge()
    full = Level("cuda:0", 95, 100)

    assert judge.crossed([Level("memory", 50, 100), full], 0) == "cuda:0 is nearly full: 95 B of 100 B are used"
    assert "memory is nearly full" in judge.crossed([Level("memory", 91, 100), full], 1)
    assert judge.crossed([Level("memory", 91, 100), full], 2) is None


class Machine:
    """A tree of /proc and /sys, of one version of control groups."""

    def __init__(self, root, version):
        described, folder, self._names = version
        self.root, self._group = root, root / "sys/fs/cgroup" / folder
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(described)
        self._group.mkdir(parents=True)
        self.available(32 * GB)
        self.group("max" if version is V2 else str(1 << 63), 0, 0)

    def available(self, size_bytes):
        lines = f"MemTotal: {64 * GB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {size_bytes // 1024} kB\n"
        (self.root / "proc/meminfo").write_text(lines + "Buffers: 1 kB\n" * 50)

    def group(self, limit, used, cache):
        limit_name, used_name, cache_name = self._names
        (self._group / limit_name).write_text(f"{limit}\n")
        (self._group / used_name).write_text(f"{used}\n")
        others = "inactive_file 7\n" if cache_name != "inactive_file" else "total_inactive_file 7\n"
        (self._group / "memory.stat").write_text(f"anon 1\n{others}{cache_name} {cache}\n")


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
def test_the_limit_of_a_control_group_comes_near(tmp_path, version):
    machine = Machine(tmp_path, version)
    watch = Pressure(machine=tmp_path)
    assert watch.crossed() is None

    machine.group(32 * GB, 30 * GB, 10 * GB)  # most of it is cache
    assert watch.crossed() is None
    machine.group(32 * GB, 30 * GB, GB // 10)
    assert watch.crossed() == "the memory limit of this session is nearly full: 30 GB of 32 GB are used"
    assert watch.crossed() is None


def test_the_machine_comes_near_its_end(tmp_path):
    machine = Machine(tmp_path, V2)
    watch = Pressure(machine=tmp_path)

    machine.available(4 * GB)
    assert watch.crossed() is None
    machine.available(3 * GB)
    assert watch.crossed() == "the machine's memory is nearly full: 61 GB of 64 GB are used"


def test_cuda_comes_near_its_limit_by_what_tensors_take(tmp_path, monkeypatch):
    """The allocator's reserve is no sign of need: it is what tensors will be made from."""
    Machine(tmp_path, V2)
    allocated = [10 * GB, 0]
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_allocated=lambda number: allocated[number],
        get_device_properties=lambda number: types.SimpleNamespace(total_memory=80 * GB),
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    watch = Pressure(machine=tmp_path)

    assert watch.crossed() is None
    allocated[1] = 75 * GB
    assert watch.crossed() == "the memory of cuda:1 is nearly full: 75 GB of 80 GB are used"

    cuda.memory_allocated = lambda number: 1 / 0
    assert watch.crossed() is None
    cuda.is_initialized = lambda: False
    assert watch.crossed() is None


@pytest.mark.parametrize("torch", [None, types.SimpleNamespace()], ids=["none", "half imported"])
def test_without_torch_there_is_no_cuda(monkeypatch, torch):
    monkeypatch.setitem(sys.modules, "torch", torch)

    assert list(pressure._cuda_levels(sys.modules["torch"])) == []


@pytest.mark.parametrize("text", ["", "nonsense", "MemTotal: many kB\n", "MemTotal: 0 kB\nMemAvailable: 0 kB\nx: 1\n"])
def test_odd_files_are_survived(tmp_path, text):
    machine = Machine(tmp_path, V2)
    machine.group(text or "-1", text, text)
    (tmp_path / "proc/meminfo").write_text(text)

    assert Pressure(machine=tmp_path).crossed() in (None, Pressure().crossed())
    assert list(cgroups.rooms(tmp_path)) == []


def test_this_machine_is_read():
    assert Pressure().crossed() is None or "nearly full" in Pressure().crossed()


GROUP = """
    import os, sys
    from pathlib import Path
    from ipyrescue.kernel.pressure import Pressure

    (Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
    watch, held, told = Pressure(), [], None
    assert watch.crossed() is None
    while told is None and len(held) < 200:
        held.append(bytearray(b"x" * 1_000_000))
        told = watch.crossed()
    print(told)
"""


@pytest.fixture
def a_group_of_200_megabytes():
    """A memory control group, of version 1 or 2."""
    groups = cgroups.control_groups()
    if not groups:
        pytest.skip("no control groups here")
    group = groups[-1] / "ipyrescue-test-pressure"
    try:
        group.mkdir()
        names = [n for n in ("memory.limit_in_bytes", "memory.max") if (group / n).exists()]
        (group / names[0]).write_text(str(200 << 20))
    except (OSError, IndexError):
        group.exists() and group.rmdir()
        pytest.skip("no control group can be made here")
    yield group
    group.rmdir()


def test_a_real_control_group_comes_near_its_limit(a_group_of_200_megabytes):
    code = textwrap.dedent(GROUP)

    ran = subprocess.run([sys.executable, "-c", code, a_group_of_200_megabytes], capture_output=True, text=True)

    assert "the memory limit of this session is nearly full" in ran.stdout, ran.stderr
