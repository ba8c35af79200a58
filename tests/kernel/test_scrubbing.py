"""The scrub of an armed kernel: it reads all, stands aside, tells of damage at once, and leaves no process behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from kernels import REPLY_SECONDS, Kernel
from typer.testing import CliRunner

from ipyrescue.cli.app import app
from ipyrescue.kernel import scrubbing as module
from ipyrescue.kernel.scrubbing import Scrubber
from ipyrescue.kernel.verified import in_words, read_back_line, tally_as_json
from ipyrescue.store import Store, scrub, signing
from ipyrescue.store.rereading import Reader
from ipyrescue.store.scrub import Finding, Tally
from ipyrescue.store.signing import Key
from ipyrescue.wording import clock
from tests.store.conftest import save_to


def wait_until(true: Callable[[], Any], *about: object) -> None:
    deadline = time.monotonic() + REPLY_SECONDS
    while not true():
        assert time.monotonic() < deadline, about
        time.sleep(0.02)


def readers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "rereading" in " ".join(p.cmdline())]


def rot(root: Path, pack: str, offset: int) -> None:
    path = root / "packs" / f"{pack}.pack"
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    os.chmod(path, 0o400)


def test_it_rests_longer_than_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a list of the store costs: cells have most of the interpreter."""
    worked = itertools.count()
    monkeypatch.setattr(module.time, "thread_time", lambda: float(next(worked)))
    monkeypatch.setattr(module, "Reader", lambda root: SimpleNamespace(look=partial(scrub.look, root)))
    store = Store.open(tmp_path / "store", Key(b"k" * 32), create=True)
    made = [save_to(store, b"%d" % n) for n in range(3)]
    notebook: Any = SimpleNamespace(store=lambda: store, identity=SimpleNamespace(notebook="a.ipynb"))
    scrubber, rests = Scrubber(notebook, 3600.0, lambda: False, lambda tally: None), []
    monkeypatch.setattr(scrubber._stopped, "wait", lambda seconds: rests.append(seconds))

    scrubber._pass()

    assert all(map(store.verified, made))
    assert [seconds for seconds in rests if seconds >= 1] == [19.0] * 3


def test_it_reads_all_in_turn_and_stands_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a snapshot is made nothing is read; then all is, each thing once, and no process is left."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    store = Store.open(tmp_path / "store", Key(b"k" * 32), create=True)
    made = [save_to(store, b"shared" * 50_000, b"%d" % n * 9000) for n in range(3)]
    told: list[Tally] = []
    asked: list[bool] = []
    busy = [True]

    def is_busy() -> bool:
        asked.append(busy[0])
        return busy[0]

    notebook: Any = SimpleNamespace(store=lambda: store, identity=SimpleNamespace(notebook="a.ipynb"))
    scrubber = Scrubber(notebook, 3600.0, is_busy, told.append)
    scrubber.start()
    try:
        wait_until(lambda: len(asked) > 2)
        assert not any(map(store.verified, made)), "it stands aside"
        busy[0] = False
        wait_until(lambda: told and not told[-1].unread, told)
        wait_until(lambda: not readers())
        rot(store.root, made[1].blobs[1].pack, made[1].blobs[1].offset)
        rested = len(told)
        wait_until(lambda: len(told) > rested + 1)
        assert told[-1].damaged == (), "what was read is not read again before its time"
    finally:
        scrubber.stop()

    assert told[-1].newest is not None
    assert told[-1].newest[0] == made[2].id
    assert [asked.count(False), store.verified(made[0]), store.verified(made[1])] == [4, True, False], (
        "the shared blob once"
    )
    assert read_ids(store.root) == {s.id for s in made}
    assert not readers()


def read_ids(root: Path) -> set[str]:
    return set(scrub.read(root).verified)


def test_it_ends_in_the_middle_and_a_full_disk_keeps_it_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be noted in the store is known to this kernel all the same, and not read for ever."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    store = Store.open(tmp_path / "store", Key(b"k" * 32), create=True)
    made = save_to(store, b"content" * 9000)
    store.root.chmod(0o777)
    told: list[Tally] = []
    notebook: Any = SimpleNamespace(store=lambda: store, identity=SimpleNamespace(notebook="a.ipynb"))
    scrubber = Scrubber(notebook, 3600.0, lambda: False, told.append)
    scrubber.start()
    wait_until(lambda: told and told[-1].newest, told)
    scrubber.stop()
    assert (told[-1].newest or ("", 0))[0] == made.id
    assert not (store.root / "scrub.json").exists()

    monkeypatch.setattr(module, "BYTES_PER_SECOND", 1.0)
    store.proofs = type(store.proofs)()
    slow = Scrubber(notebook, 3600.0, lambda: False, told.append)
    slow.start()
    slow.stop()
    assert not readers()


NOW = 1_700_000_000.0


def test_its_process_gives_way_and_ends_with_whoever_asks(tmp_path: Path) -> None:
    """Also where a child of the kernel's holds the pipe open, as a worker of a DataLoader does."""
    store = Store.open(tmp_path / "store", Key(b"k" * 32), create=True)
    made = save_to(store, b"content" * 9000)
    reading, writing = os.pipe()
    asker = os.fork()
    if asker == 0:
        reader = Reader(store.root)
        looked = reader.look(made.blobs)
        holder = os.fork()
        if holder == 0:
            time.sleep(REPLY_SECONDS)
            os._exit(0)
        same = looked == scrub.look(store.root, made.blobs)
        os.write(writing, json.dumps([reader._process.pid, holder, same]).encode())
        os._exit(0)
    os.close(writing)
    pid, holder, is_same = json.loads(os.read(reading, 4096))
    try:
        assert (psutil.Process(pid).nice(), is_same) == (19, True)
        os.waitpid(asker, 0)
        wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, pid)
    finally:
        os.close(reading)
        os.kill(holder, signal.SIGKILL)


def test_it_is_told_in_words() -> None:
    newest, oldest = ("a" * 16, NOW - 60), ("b" * 16, NOW - 7200)
    counted = Tally(5, 1, newest, oldest, (("c" * 16, Finding(NOW, ("model", "opt"), "d" * 16, None)),))

    assert read_back_line(counted, NOW) == (
        f"Read back whole: the newest is aaaaaaaa at {clock(NOW - 60, now=NOW)}, longest ago bbbbbbbb at "
        f"{clock(NOW - 7200, now=NOW)}; 1 not yet."
    )
    assert "snapshot cccccccc (lost: model, opt)" in in_words(counted.damaged)
    assert "and 2 more" in in_words(counted.damaged * 5)
    assert (tally_as_json(counted) or {})["damaged"] == [{"id": "c" * 16, "at": NOW, "names": ["model", "opt"]}]


@pytest.mark.slow
def test_rot_under_a_living_kernel(make_kernel: Callable[..., Kernel], tmp_path: Path, monkeypatch: Any) -> None:
    """It is said on the panel and at the end of the cell, once; a new snapshot holds whole bytes again."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / ".ipyrescue"
    kernel = make_kernel(IPYRESCUE_SCRUB="1s")
    kernel.run(
        "%load_ext ipyrescue\nimport time\nfrom pathlib import Path\nimport os\nx = os.urandom(900_000)\nstep = 0"
    )
    kernel.run("%checkpoint_vars x step every=1h")
    wait_until(lambda: read_ids(root), root)
    store = Store.open(root, signing.load_key())
    (first,) = store.snapshots()
    status = kernel.run("%checkpoint_vars --status").text
    assert f"Read back whole: the newest is {first.id[:8]}" in status

    kernel.begin("while not Path('stop').exists():\n    step += 1\n    time.sleep(0.01)")
    large = max(first.blobs, key=lambda blob: blob.size_bytes)
    rot(root, large.pack, large.offset)
    wait_until(lambda: len(store.snapshots()) > 1)
    second = store.snapshots()[0]
    assert (second.trigger, store.verify(second)) == ("damage", [])
    (life,) = [json.loads(p.read_text()) for p in (root / "kernels").glob("*.json")]
    assert f"snapshot {first.id[:8]} (lost: x)" in life["damage"]
    (tmp_path / "stop").touch()
    kernel.wait_for_output("DAMAGED on disk")
    assert "DAMAGED on disk" not in kernel.run("step").text, "said once"
    assert "DAMAGED on disk" in kernel.run("%checkpoint_vars --status").text
    listed = CliRunner().invoke(app, ["ls", "--json"], catch_exceptions=False)
    states = {entry["id"]: entry["state"] for entry in json.loads(listed.stdout)["snapshots"]}
    assert states == {first.id: "damaged", second.id: "ok"}
    kernel.kill()
    wait_until(
        lambda: not [p for p in psutil.process_iter(["cmdline"]) if str(root) in " ".join(p.info["cmdline"] or [])]
    )
