"""`ipyrescue now` against a process that lives as a kernel does, with a life record and an ear for requests."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ipyrescue.cli.exits import Exit
from ipyrescue.identity import Identity
from ipyrescue.kernel.life import LifeRecorder
from ipyrescue.store import layout, lives, requests
from tests.cli.test_verbs import run, run_json

KERNEL = """
    import sys, time
    from pathlib import Path
    from ipyrescue.identity import Identity
    from ipyrescue.kernel.life import LifeRecorder
    from ipyrescue.store import requests

    root, incarnation = Path(sys.argv[1]), "b" * 16
    recorder = LifeRecorder(incarnation, heartbeat_seconds=0.05)
    recorder.begin(root, Identity("train.ipynb", "notebook", root.parent / "train.ipynb", root))
    recorder.arms(300.0)
    recorder.cell_begins(9, "for epoch in range(100): train()")
    print("ready", flush=True)

    def request():
        while True:
            found = requests.pending(root, incarnation)
            if found is not None:
                return found
            time.sleep(0.02)
"""
INCARNATION = "b" * 16


@pytest.fixture
def kernel(store):
    """Begin a kernel's life that does *then*."""
    made = []

    def begin(then):
        code = textwrap.dedent(KERNEL) + textwrap.dedent(then)
        process = subprocess.Popen([sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE, text=True)
        made.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def test_a_snapshot_is_made_and_told(kernel, make):
    snapshot = make(cut="boundary")
    kernel(f"while True: requests.answer(root, incarnation, request(), snapshot_id={snapshot.id!r})")

    result = run("now", "train.ipynb")

    assert (result.exit_code, result.stderr.count("\n")) == (Exit.OK, 1)
    assert result.stdout.startswith(f"Saved {snapshot.id[:8]} in ")
    assert result.stdout.endswith("1 variable, 5.0 kB (5.0 kB new), cut: boundary, paused 20 ms.\n")

    result, document = run_json("now", "train.ipynb", "--timeout", "5m")
    assert document["snapshot"]["id"] == snapshot.id
    assert (document["incarnation"], document["notebook"]) == (INCARNATION, "train.ipynb")
    assert not layout.request_path(Path(document["store"]), INCARNATION).exists()


def test_a_refusal_is_told(kernel, store):
    kernel("requests.answer(root, incarnation, request(), refusal='a debugger holds the cell. Go on in it.')")

    result = run("now", "train.ipynb")

    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert "The kernel made no snapshot: a debugger holds the cell. Go on in it." in result.stderr


def test_a_kernel_that_dies_meanwhile_is_told_at_once(kernel, store):
    kernel("import os; request(); os.kill(os.getpid(), 9)")

    result = run("now", "train.ipynb", "--timeout", "10m")

    assert result.exit_code == Exit.FAILED
    assert "is dead" in result.stderr
    assert "ipyrescue why train.ipynb" in result.stderr


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("request(); time.sleep(60)", ["cell [9] has run for", "no place where the state is consistent", "--timeout"]),
        ("time.sleep(60)", ["cell [9] has run for", "lets nobody else have a word", "interrupt the cell"]),
        ("recorder.cell_ends(9); print('over', flush=True); time.sleep(60)", ["although no cell runs"]),
    ],
    ids=["no safe point", "one long call", "idle and silent"],
)
def test_a_kernel_that_makes_none_in_time_is_told_with_what_to_do(kernel, store, then, said):
    process = kernel(then)
    if "over" in then:
        process.stdout.readline()

    result = run("now", "train.ipynb", "--timeout", "0.5")

    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert all(words in result.stderr for words in ["made no snapshot within", *said]), result.stderr
    assert not layout.request_path(store.root, INCARNATION).exists()


def test_who_joined_asks_anew_when_the_other_takes_it_back(kernel, store, make, monkeypatch):
    snapshot = make()
    kernel(f"time.sleep(0.3); requests.answer(root, incarnation, request(), snapshot_id={snapshot.id!r})")
    theirs = requests.ask(store.root, INCARNATION, requests.Request.new(patience_seconds=60))
    looks = iter([lambda: None, lambda: requests.withdraw(store.root, INCARNATION, theirs)])
    waits = requests.waits
    monkeypatch.setattr(requests, "waits", lambda *asked: (next(looks, lambda: None)(), waits(*asked))[1])

    assert run("now", "train.ipynb").exit_code == Exit.OK


def test_ctrl_c_takes_the_request_back(kernel, store):
    kernel("time.sleep(60)")
    command = [sys.executable, "-m", "ipyrescue", "now", "train.ipynb"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not layout.request_path(store.root, INCARNATION).exists():
        assert process.poll() is None

    process.send_signal(signal.SIGINT)

    out, told = process.communicate(timeout=60)
    assert (process.returncode, out) == (Exit.INTERRUPTED, "")
    assert "Traceback" not in told
    assert not layout.request_path(store.root, INCARNATION).exists()


def test_without_a_kernel_it_says_why(store, tmp_path):
    (tmp_path / "train.ipynb").write_text("{}")
    assert "No kernel of train.ipynb has loaded ipyrescue" in run("now", "train.ipynb").stderr

    recorder = LifeRecorder(INCARNATION)
    recorder.begin(store.root, Identity("train.ipynb", "notebook", tmp_path / "train.ipynb", store.root))
    assert "runs and is not armed" in run("now", "train.ipynb").stderr
    recorder.ends("shutdown")
    recorder.stop()
    result = run("now", "train.ipynb")
    assert (result.exit_code, "the last one ended (shutdown)" in result.stderr) == (Exit.FAILED, True)

    lives.annotate(store.root, recorder.life, ended="unload")
    assert "has unloaded ipyrescue" in run("now", "train.ipynb").stderr

    lives.annotate(store.root, recorder.life, ended=None, ended_at=None, pid=2**22 + 1)
    assert "is dead" in run("now", "train.ipynb").stderr


def test_no_notebook_no_store_and_no_duration(store, tmp_path):
    result = run("now", "other.ipynb")
    assert (result.exit_code, "There is no notebook other.ipynb" in result.stderr) == (Exit.NOT_FOUND, True)

    result = run("now", "train.ipynb", "--store", tmp_path / "nowhere")
    assert (result.exit_code, "There is no ipyrescue store" in result.stderr) == (Exit.NOT_FOUND, True)

    result = run("now", "train.ipynb", "--timeout", "soon")
    assert (result.exit_code, "`soon` is no duration" in result.stderr) == (Exit.USAGE, True)

    result = run("now", "other.ipynb", "--json")
    assert json.loads(result.stderr)["error"]["exit_code"] == Exit.NOT_FOUND
