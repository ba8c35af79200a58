"""Which record a kernel's end belongs on, and what is noted there. The processes here are stand-ins of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ipyrescue.incarnations import witness
from ipyrescue.incarnations.witness import End, Process, attest, cause_of, end_by_request, ended_cleanly, life_of
from ipyrescue.store import layout, lives
from ipyrescue.store.lives import Life

KERNEL = "6962ab68-6247-4b05-a7be-45a56056ac0a"


@pytest.fixture
def root(store_root: Path) -> Path:
    layout.create(store_root)
    return store_root


@pytest.fixture
def gone() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def record(root: Path, pid: int, incarnation: str = "a" * 16, **said: object) -> Life:
    facts = lives.process_facts(os.getpid())
    life = Life(
        incarnation=incarnation,
        notebook="train.ipynb",
        kind="notebook",
        pid=pid,
        start_ticks=lives.process_facts(pid).start_ticks or 1,
        boot_id=facts.boot_id,
        pid_namespace=facts.pid_namespace,
        host=socket.gethostname(),
        started=datetime.now(timezone.utc).isoformat(),
        kernel_id=KERNEL,
    )
    life = replace(life, **said)
    lives.write(root, life)
    return life


def process(pid: int | None, **counters: int) -> Process:
    return Process(KERNEL, pid, counters.get("oom_kills"), counters.get("machine_oom_kills"))


def end(pid: int, exit_code: int, **counters: int) -> End:
    return End.seen_now(process(pid, **counters), exit_code, restarts=1)


def test_the_record_with_the_process_number_is_meant(root, gone):
    record(root, gone, "a" * 16)
    record(root, gone + 1, "b" * 16)

    assert life_of(root, process(gone)).incarnation == "a" * 16


def test_a_launchers_kernel_has_another_number_than_the_launcher(root, gone):
    """`conda run` or a shell script starts it, and the server knows only that."""
    record(root, gone, "a" * 16)
    record(root, gone, "b" * 16)

    assert life_of(root, process(gone + 1)).incarnation == "b" * 16
    assert life_of(root, process(None)).incarnation == "b" * 16


def test_a_kernel_without_an_id_is_known_by_its_number_on_this_host(root, gone):
    record(root, gone, "a" * 16, kernel_id=None)
    record(root, gone, "b" * 16, kernel_id=None, host="elsewhere")
    record(root, gone, "c" * 16, kernel_id="another")

    assert life_of(root, process(gone)).incarnation == "a" * 16
    assert life_of(root, process(gone + 1)) is None


@pytest.mark.parametrize("said", [{"ended": "exit"}, {"ended": "unload"}, {"died_at": "2026-11-21T10:00:00+00:00"}])
def test_what_is_over_is_not_meant(root, gone, said):
    record(root, gone, **said)

    assert life_of(root, process(gone)) is None
    assert attest(root, end(gone, -9)) is None


def test_goodbye_is_goodbye_but_unloading_is_none(root, gone):
    record(root, gone, "a" * 16, ended="unload")
    assert not ended_cleanly(root, process(gone))

    record(root, gone, "b" * 16, ended="exit")
    assert ended_cleanly(root, process(gone))
    assert not ended_cleanly(root, process(gone + 1))


def test_testimony_is_no_sign_of_life(root, gone):
    record(root, gone)
    path = layout.life_path(root, "a" * 16)
    os.utime(path, (1000, 1000))

    said = attest(root, end(gone, -11))

    assert (said.exit_code, said.restarts, said.cause.kind) == (-11, 1, "segmentation_fault")
    assert lives.read_all(root) == [said]
    assert path.stat().st_mtime == 1000


def test_what_cannot_be_written_is_said_nevertheless(root, gone, monkeypatch):
    record(root, gone)
    layout.kernels(root).chmod(0o500)
    if os.geteuid() == 0:  # whom permissions do not stop
        monkeypatch.setattr(lives, "write", _refuse)

    said = attest(root, end(gone, -9))

    assert (said.exit_code, said.cause.kind) == (-9, "killed")
    assert lives.read_all(root)[0].exit_code is None
    layout.kernels(root).chmod(0o700)


def _refuse(*_: object, **__: object) -> None:
    from ipyrescue.errors import StoreError

    raise StoreError("read-only")


@pytest.mark.parametrize(
    ("before", "after", "certain"),
    [({"oom_kills": 1, "machine_oom_kills": 1}, (2, 2), True), ({"machine_oom_kills": 1}, (None, 2), False)],
)
def test_a_kernel_without_a_record_is_known_to_be_out_of_memory_too(monkeypatch, before, after, certain):
    monkeypatch.setattr(witness, "oom_kills", lambda: after[0])
    monkeypatch.setattr(witness, "machine_oom_kills", lambda: after[1])

    life, cause = cause_of(end(1, -9, **before), "train.ipynb")

    assert (cause.kind, cause.certain) == ("out_of_memory", certain)
    assert (life.notebook, life.exit_code, life.cell_running) == ("train.ipynb", -9, False)


def test_a_kernel_that_was_ended_by_request_did_not_die(root, gone):
    record(root, gone)

    end_by_request(root, process(gone), "restart")

    (life,) = lives.read_all(root)
    assert (life.ended, lives.state(life)) == ("restart", "ended")
    assert life.ended_at is not None


def test_a_kernel_that_lives_was_not_ended(root):
    record(root, os.getpid())

    end_by_request(root, process(os.getpid()), "shutdown")

    assert lives.read_all(root)[0].ended is None
