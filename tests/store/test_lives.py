"""Who lives, who ended, who died; and nothing that a record says can do harm."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.store import lives
from ipyrescue.store.lives import Cause, Life, Memory, process_facts, state

HERE = process_facts(os.getpid())


def life_of(pid, **fields):
    facts = process_facts(pid)
    defaults = {
        "incarnation": "a" * 16,
        "notebook": "a.ipynb",
        "kind": "notebook",
        "pid": pid,
        **facts._asdict(),
        "host": socket.gethostname(),
        "started": "2026-11-21T10:00:00+00:00",
    }
    return Life(**{**defaults, **fields})


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_records_come_back(store):
    first = life_of(1, cell=3, cell_source="train()\nmore()", cell_running=True, cell_started="2026-11-21T10:01:00")
    second = life_of(2, incarnation="b" * 16, ended="shutdown", ended_at="2026-11-21T11:00:00", restored="c" * 16)

    lives.write(store.root, second, durable=True)
    lives.write(store.root, first)

    assert lives.read_all(store.root) == [dataclasses.replace(first, cell_source="train()"), second]
    assert sorted(os.listdir(store.root / "kernels")) == [f"{'a' * 16}.json", f"{'b' * 16}.json"]


def test_all_that_is_known_of_a_death_comes_back(store):
    life = life_of(
        1,
        kernel_id="5f0c",
        parent_pid=7,
        parent_start_ticks=8,
        parent_name="jupyter-lab",
        cell_ids=("first", "second"),
        error="ValueError: 1",
        memory=Memory(1, 2, limit_bytes=3, oom_kills=4, oom_group="/sys/fs/cgroup", warning="more each time"),
        every_seconds=300.0,
        restoring="d" * 16,
        restoring_device="cpu",
        dismissed=True,
        exit_code=-9,
        restarts=2,
        cause=Cause("killed", "was killed", "SIGKILL", certain=False, place=("f (a.py:1)", "g (b.py:2)")),
    )

    lives.write(store.root, life)

    assert lives.read_all(store.root) == [life]


def test_what_is_noted_about_the_dead_is_no_sign_of_life(store):
    life = life_of(1)
    lives.write(store.root, life)
    path = store.root / "kernels" / f"{life.incarnation}.json"
    os.utime(path, (1000.5, 1000.5))

    noted = lives.annotate(store.root, life, exit_code=-11, dismissed=True)

    assert lives.read_all(store.root) == [noted] == [dataclasses.replace(life, exit_code=-11, dismissed=True)]
    assert lives.last_seen(store.root, life) == 1000.5


def test_a_record_of_another_version_is_read(store):
    """What it has more is ignored, also inside, and what it lacks is not known."""
    fields = dataclasses.asdict(life_of(1, memory=Memory(1, 2), cause=Cause("killed", "was killed", "SIGKILL")))
    for name in ("kernel_id", "cell_ids", "memory", "every_seconds", "restoring_device", "exit_code"):
        older = {key: value for key, value in fields.items() if key != name}
        newer = {**older, "mood": "fine", "memory": {"rss_bytes": 1, "peak_rss_bytes": 2, "swap_bytes": 3}}
        (store.root / "kernels" / f"{'a' * 16}.json").write_text(json.dumps(newer))

        (life,) = lives.read_all(store.root)

        assert life.memory == Memory(1, 2)
        assert name == "memory" or getattr(life, name) == getattr(life_of(1), name)


def test_a_record_holds_one_line_of_the_cell(store):
    lives.write(store.root, life_of(1, cell_source="\n\n" + "x" * 500 + "\nsecret = 1"))

    assert lives.read_all(store.root)[0].cell_source == "x" * 200


def test_a_touch_is_seen(store):
    life = life_of(os.getpid())
    assert lives.last_seen(store.root, life) == 0.0
    lives.write(store.root, life)
    os.utime(store.root / "kernels" / f"{life.incarnation}.json", (1, 1))
    assert lives.last_seen(store.root, life) == 1.0

    lives.touch(store.root, life.incarnation)

    assert abs(lives.last_seen(store.root, life) - time.time()) < 60
    with pytest.raises(StoreError):
        lives.touch(store.root, "f" * 16)


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "1"},
        {"pid": True},
        {"kind": "server"},
        {"cell_running": 1},
        {"notebook": None},
        {"incarnation": "b" * 16},
        {"incarnation": "../" * 5 + "x"},
        {"cell_source": "x" * 5000},
        {"cell_ids": "first"},
        {"cell_ids": [1]},
        {"memory": []},
        {"memory": {"rss_bytes": 1}},
        {"memory": {"rss_bytes": "1", "peak_rss_bytes": 1}},
        {"cause": {"kind": "killed"}},
        {"cause": {"kind": "killed", "verb": "was", "text": "x" * 5000}},
        {"pid": 1 << 63},
        {"memory": {"rss_bytes": 10**400, "peak_rss_bytes": 1}},
        {"every_seconds": 10**400},
        {"every_seconds": float("nan")},
        {"every_seconds": float("-inf")},
        {"notebook": "x" * 100_000},
    ],
    ids=lambda change: str(change)[:60],
)
def test_malformed_records_are_skipped(store, change):
    path = store.root / "kernels" / f"{'a' * 16}.json"
    path.write_text(json.dumps({**dataclasses.asdict(life_of(1)), **change}))

    assert lives.read_all(store.root) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 60_000])
def test_unreadable_records_are_skipped(store, content):
    (store.root / "kernels" / f"{'a' * 16}.json").write_bytes(content)
    (store.root / "kernels" / f"{'b' * 16}.json").mkdir()
    (store.root / "kernels" / f"{'c' * 16}.json").symlink_to("/etc/passwd")
    os.mkfifo(store.root / "kernels" / f"{'d' * 16}.json")

    assert lives.read_all(store.root) == []


def test_without_a_store_there_are_no_lives(tmp_path):
    assert lives.read_all(tmp_path) == []


def test_a_running_process_is_alive(child):
    assert state(life_of(child.pid)) == "alive"


def test_a_clean_end_is_an_end_even_before_the_process_is_gone(child):
    assert state(life_of(child.pid, ended="shutdown")) == "ended"


def test_a_killed_process_died_also_before_anyone_reaped_it(child):
    """A zombie answers kill(pid, 0) like a living process."""
    life = life_of(child.pid)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    os.kill(child.pid, 0)
    assert state(life) == "died"

    child.wait()
    assert state(life) == "died"


def test_another_process_of_the_same_number_is_not_the_kernel(child):
    life = life_of(child.pid)

    assert state(dataclasses.replace(life, start_ticks=life.start_ticks - 1)) == "died"


def test_a_process_with_a_strange_name_is_understood(tmp_path):
    """The name in /proc/PID/stat may hold brackets and spaces."""
    strange = tmp_path / "a) Z 1 ("
    strange.symlink_to("/bin/sleep")
    with subprocess.Popen([strange, "60"]) as process:
        while process_facts(process.pid).start_ticks is None:
            time.sleep(0.01)
        assert state(life_of(process.pid)) == "alive"
        process.kill()


@pytest.mark.parametrize(
    ("fields", "age_seconds", "expected"),
    [
        ({"boot_id": "another"}, 0, "died"),  # the machine was started again
        ({"boot_id": "another", "host": "elsewhere"}, 5, "alive"),
        ({"boot_id": "another", "host": "elsewhere"}, 45, "unknown"),
        ({"boot_id": "another", "host": "elsewhere"}, 61, "died"),
        ({"pid_namespace": "pid:[1]"}, 29, "alive"),  # a container beside this one
        ({"pid_namespace": "pid:[1]"}, 31, "unknown"),
        ({"pid_namespace": "pid:[1]"}, 3600, "died"),
        ({"pid_namespace": None}, 5, "alive"),
        ({"pid_namespace": "pid:[1]"}, None, "unknown"),
        ({"start_ticks": None}, 5, "unknown"),
        ({"pid_namespace": "pid:[1]", "ended": "restart"}, 3600, "ended"),
    ],
)
def test_what_cannot_be_seen_is_known_by_its_heartbeat(fields, age_seconds, expected):
    last_seen_at = None if age_seconds is None else 1000.0 - age_seconds

    assert state(life_of(os.getpid(), **fields), last_seen_at=last_seen_at, now=1000.0, here=HERE) == expected


def test_two_who_note_something_about_a_dead_kernel_keep_each_others_words(store):
    """A server and the next kernel hold the record as it was when they read it."""
    life = life_of(1)
    lives.write(store.root, life)

    lives.annotate(store.root, life, exit_code=-9)
    lives.annotate(store.root, life, dismissed=True)

    [noted] = lives.read_all(store.root)
    assert (noted.exit_code, noted.dismissed) == (-9, True)
