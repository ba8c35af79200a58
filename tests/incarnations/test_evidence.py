"""What a dead kernel and its machine have left: traces, counters, parents. Most of it is missing on most machines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipyrescue.cgroups import control_groups
from ipyrescue.incarnations import evidence
from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.evidence import gather, machine_oom_kills, oom_group, oom_kills
from ipyrescue.store import layout
from ipyrescue.store.lives import Memory, process_facts
from tests.incarnations.samples import a_life, bury, here, trace
from tests.kernel.samples import NOW

V1 = "9:name=systemd:/\n7:blkio:/\n4:cpu,memory:/docker/5f0c\n1:cpu:/\n0::/\n"
V2 = "0::/user.slice/app.scope\n"


def machine(root, cgroup, **files):
    """A /proc and a /sys with what stands in *files*, whose names have __ for /."""
    for name, text in {"proc__self__cgroup": cgroup, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# --- counters --------------------------------------------------------------------------------------------------


def test_the_groups_of_version_2_innermost_first(tmp_path):
    mount = tmp_path / "sys/fs/cgroup"

    found = control_groups(machine(tmp_path, V2))

    assert found == [mount / "user.slice/app.scope", mount / "user.slice", mount]


def test_the_groups_of_version_1_are_those_of_memory(tmp_path):
    mount = tmp_path / "sys/fs/cgroup/memory"

    assert control_groups(machine(tmp_path, V1)) == [mount / "docker/5f0c", mount / "docker", mount]


@pytest.mark.parametrize("cgroup", ["0::/../../elsewhere\n", "0::/..\n"])
def test_a_group_above_what_a_container_sees_leads_nowhere_else(tmp_path, cgroup):
    mount = tmp_path / "sys/fs/cgroup"

    assert all(folder.is_relative_to(mount) for folder in control_groups(machine(tmp_path, cgroup)))


@pytest.mark.parametrize("cgroup", ["", "1:cpu:/\n", "nonsense\n", "4:memory\n", "::\n", "\udcff\n"])
def test_odd_descriptions_are_survived(tmp_path, cgroup):
    root = machine(tmp_path, "")
    (root / "proc/self/cgroup").write_bytes(os.fsencode(cgroup))

    assert oom_kills(root) is None
    assert oom_group(root) is None


def test_without_proc_nothing_is_known(tmp_path):
    assert control_groups(tmp_path) == []
    assert oom_kills(tmp_path) is None
    assert machine_oom_kills(tmp_path) is None


def test_the_kills_of_version_2_are_counted(tmp_path):
    events = "low 0\nhigh 3\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"
    root = machine(tmp_path, V2, **{"sys__fs__cgroup__user.slice__app.scope__memory.events": events})

    assert oom_kills(root) == 1
    assert oom_group(root) == str(tmp_path / "sys/fs/cgroup/user.slice/app.scope")


def test_the_kills_of_version_1_are_counted_where_a_container_mounts_them(tmp_path):
    """It names the group as the host does, and sees it at the mount's root."""
    control = "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"
    root = machine(tmp_path, V1, sys__fs__cgroup__memory__memory__oom_control="", proc__vmstat="pgfree 1\noom_kill 7\n")
    (root / "sys/fs/cgroup/memory/memory.oom_control").write_text(control)

    assert oom_kills(root) == 4
    assert oom_group(root) == str(tmp_path / "sys/fs/cgroup/memory")
    assert machine_oom_kills(root) == 7


@pytest.mark.parametrize("events", ["", "oom_kill\n", "oom_kill many\n", "\n\n", "oom 1\n"])
def test_odd_counters_count_nothing(tmp_path, events):
    root = machine(tmp_path, "0::/\n", **{"sys__fs__cgroup__memory.events": events, "proc__vmstat": events})

    assert oom_kills(root) is None
    assert machine_oom_kills(root) is None


def test_this_machine_is_understood():
    """Whatever is known here is a count; on Linux the machine's is known since 4.13."""
    assert oom_kills() is None or oom_kills() >= 0
    assert (oom_kills() is None) == (oom_group() is None)
    assert sys.platform != "linux" or machine_oom_kills() >= 0


# --- what is gathered ------------------------------------------------------------------------------------------


@pytest.fixture
def counters(monkeypatch):
    """A machine whose counts are 5 in the group `/g`, and 8 in all."""
    monkeypatch.setattr(evidence, "oom_kills", lambda: 5)
    monkeypatch.setattr(evidence, "oom_group", lambda: "/g")
    monkeypatch.setattr(evidence, "machine_oom_kills", lambda: 8)


def found(root, **fields):
    life = bury(root, a_life(**here(**fields)))
    return gather(root, Death(life, NOW))


@pytest.mark.usefixtures("counters")
@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (Memory(1, 1, oom_kills=3, oom_group="/g", machine_oom_kills=7), (2, 1)),
        (Memory(1, 1, oom_kills=5, oom_group="/g", machine_oom_kills=8), (0, 0)),
        (Memory(1, 1, oom_kills=0, oom_group="/another", machine_oom_kills=7), (None, 1)),
        (Memory(1, 1, oom_kills=0, machine_oom_kills=None), (None, None)),
        (Memory(1, 1, oom_kills=9, oom_group="/g", machine_oom_kills=9), (None, None)),  # counted from 0 again since
        (None, (None, None)),
    ],
)
def test_kills_count_since_the_last_sign_of_life_in_the_same_group(store_root, memory, expected):
    known = found(store_root, memory=memory)

    assert (known.oom_kills, known.machine_oom_kills) == expected


@pytest.mark.usefixtures("counters")
@pytest.mark.parametrize("elsewhere", [{"host": "lab"}, {"pid_namespace": "pid:[1]"}, {"boot_id": "another"}])
def test_counters_of_another_place_or_time_say_nothing(store_root, elsewhere):
    memory = Memory(1, 1, oom_kills=3, oom_group="/g", machine_oom_kills=7)

    known = found(store_root, memory=memory, **elsewhere)

    assert (known.oom_kills, known.machine_oom_kills) == (None, None)
    assert known.rebooted == ("boot_id" in elsewhere)


def test_a_parent_is_gone_when_its_process_is(store_root):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        ticks = process_facts(parent.pid).start_ticks
        of = {"parent_pid": parent.pid, "parent_start_ticks": ticks}
        assert not found(store_root, **of).parent_gone
        assert found(store_root, **{**of, "parent_start_ticks": ticks - 1}).parent_gone  # the number is another's now
        parent.communicate(b"\n")

    assert found(store_root, **of).parent_gone
    assert not found(store_root, **of, host="lab").parent_gone
    assert not found(store_root).parent_gone


# --- traces ----------------------------------------------------------------------------------------------------


def test_last_words_are_read(store_root):
    life = bury(store_root, a_life())
    trace(store_root, life, "fault", "Fatal Python error: Aborted", at=NOW + 1)
    trace(store_root, life, "SIGTERM", "", at=NOW)
    trace(store_root, life, "SIGHUP", "Current \xff thread", at=NOW - 1)

    known = gather(store_root, Death(life, NOW))

    assert known.fault == "Fatal Python error: Aborted"
    assert known.signals == (("SIGHUP", "Current \xff thread"),)


def test_a_trace_that_the_kernel_outlived_is_somebody_elses(store_root):
    """A forked child that crashes writes into the file that it inherited."""
    life = bury(store_root, a_life())
    trace(store_root, life, "fault", "Fatal Python error: Aborted", at=NOW - 60)
    trace(store_root, life, "SIGTERM", "Current thread", at=NOW - 60)

    known = gather(store_root, Death(life, NOW))

    assert (known.fault, known.signals) == ("", ())


def test_what_is_no_trace_is_not_read(store_root, tmp_path):
    life = bury(store_root, a_life())
    secret = tmp_path / "secret"
    secret.write_text("Fatal Python error: secret")
    layout.trace_path(store_root, life.incarnation, "fault").symlink_to(secret)
    os.mkfifo(layout.trace_path(store_root, life.incarnation, "SIGTERM"))
    trace(store_root, life, "SIGHUP", "x" * (evidence.TRACE_LIMIT_BYTES + 1))

    known = gather(store_root, Death(life, NOW))

    assert (known.fault, known.signals) == ("", ())


def test_a_record_with_a_strange_incarnation_is_survived(store_root):
    assert gather(store_root, Death(a_life(incarnation="../../etc/passwd"), NOW)).fault == ""


# --- the real OOM killer ---------------------------------------------------------------------------------------

SERVER = """
import dataclasses, json, os, subprocess, sys, time
from pathlib import Path
from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.evidence import gather, oom_group, oom_kills, machine_oom_kills
from ipyrescue.incarnations.cause import diagnose
from ipyrescue.store.lives import Memory
from tests.incarnations.samples import a_life, bury, here

group, root, knows_exit = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "True"
(group / "cgroup.procs").write_text(str(os.getpid()))
memory = Memory(60 << 20, 60 << 20, limit_bytes=64 << 20, oom_kills=oom_kills(), oom_group=oom_group(),
                machine_oom_kills=machine_oom_kills())
eater = "held = []\\nwhile True: held.append(bytearray(b'x' * 1_000_000))"
kernel = subprocess.run([sys.executable, "-c", eater])
exit_code = kernel.returncode if knows_exit else None
life = bury(root, a_life(**here(memory=memory, exit_code=exit_code)), at=time.time())
known = gather(root, Death(life, time.time()))
print(json.dumps([known.oom_kills, known.machine_oom_kills, dataclasses.asdict(diagnose(known))]))
"""


@pytest.fixture
def a_tight_group():
    """A memory control group of 64 MB, of version 1 or 2."""
    group = control_groups()[-1] / f"ipyrescue-test-{os.getpid()}"
    group.mkdir()
    for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"):
        if (group / name).exists():
            (group / name).write_text(str(64 << 20))
    if (group / "memory.swap.max").exists():
        (group / "memory.swap.max").write_text("0")
    yield group
    group.rmdir()


@pytest.mark.system
@pytest.mark.parametrize("knows_exit", [True, False])
def test_the_oom_killer_is_recognized(a_tight_group, store_root, knows_exit):
    """A server and its kernel in one group, which is too small for the kernel."""
    command = [sys.executable, "-c", SERVER, a_tight_group, store_root, str(knows_exit)]
    folder = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "tests")])}

    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    kills, on_the_machine, cause = json.loads(told.stdout)
    assert kills >= 1
    assert on_the_machine is None or on_the_machine >= 1
    assert (cause["kind"], cause["verb"], cause["certain"]) == ("out_of_memory", "was killed", True)
    assert cause["text"] == "out of memory, 62.9 of 67 MB"
