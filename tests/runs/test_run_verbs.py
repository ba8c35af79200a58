"""The verbs of runs: what they print and how they end, over real runners."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client import MultiKernelManager, write_connection_file

from ipyrescue.cli.exits import Exit
from ipyrescue.places import examining
from ipyrescue.runs import record as records
from ipyrescue.runs import registry
from ipyrescue.store import lives, pins
from tests.cli.test_verbs import run, run_json
from tests.runs.conftest import on_a_terminal

pytestmark = pytest.mark.usefixtures("stand_in")

RUNS = """
    say(state='running', cell=2, cells=3, progress='train 4/10')
    asked()
    say(state='stopped', exit_code=75)
    code = 75
"""
CELLS = """
    import json
    cells = [dict(cell_type="code", source=text) for text in ("import torch", ["model = Net()\\n", "opt"], "fit()")]
    (folder / "notebook.ipynb").write_text(json.dumps({"cells": cells}))
    for cell in (1, 2, 3):
        say(state="running", cell=cell, cells=3)
        if cell == 2:
            from ipyrescue.runs.record import Death
            say(deaths=(Death("", 2, "was killed (SIGKILL)"),), state="waiting", reason="It begins again in 1 s.")
            say(state="running", reason=None)
    say(state="finished", reason="The outputs are in train.run.ipynb.", ended="2999-01-01T00:00:00+00:00")
"""


def folder_of(name="train"):
    return registry.find(name)


def test_a_run_in_the_foreground_tells_of_its_cells(notebook):
    notebook(CELLS)

    result = run("run", "train.ipynb", "-p", "lr", "-3", "--every", "1m", "--retries", "1", "-p", "n", "--wait")

    lines = [re.sub(r"  +[\d.]+ m?s$", " TOOK", line) for line in result.stderr.splitlines()]
    assert lines[:-1] == [
        "[1/3] import torch ...",
        "[1/3] import torch TOOK",
        "[2/3] model = Net() ...",
        "  cell 2: the kernel was killed (SIGKILL)",
        "  It begins again in 1 s.",
        "[2/3] model = Net() TOOK",
        "[3/3] fit() ...",
        "[3/3] fit() TOOK",
    ]
    assert lines[-1].startswith("train: finished after ")
    assert lines[-1].endswith(", 3 cells. The outputs are in train.run.ipynb.")
    assert (result.exit_code, result.stdout) == (Exit.OK, "")
    options = records.read(folder_of()).options
    assert (options.parameters, options.every_seconds, options.retries) == ((("lr", "-3"), ("n", "--wait")), 60.0, 1)


def test_a_detached_run_is_seen_stopped_resumed_and_removed(notebook):
    notebook(RUNS)
    result = run("run", "train.ipynb", "--detach", "--in-place")
    assert (result.exit_code, result.stdout) == (Exit.OK, "train\n")

    result = run("ps")
    assert result.stdout.splitlines()[0].split() == ["NAME", "STATE", "CELL", "PROGRESS", "SAVED", "RAM", "VRAM", "UP"]
    assert re.match(r"train  running   2/3  train 4/10  no +[\d.]+ m?s$", result.stdout.splitlines()[1])
    for refused, words in (
        (("run", "train.ipynb"), "is run already, by the run train, which is running (cell 2 of 3)"),
        (("resume", "train"), "is running, so there is nothing to resume"),
        (("rm", "train"), "Nothing was removed: train is running. Stop it first: ipyrescue stop train"),
        (("attach", "train"), "no kernel to attach to"),
    ):
        result = run(*refused)
        assert (result.exit_code, words in result.stderr) == (Exit.FAILED, True), result.stderr

    result, document = run_json("stop", "train")
    assert (result.exit_code, result.stderr) == (Exit.OK, "Asked train to make a snapshot and end.\n")
    assert (document["run"]["state"], document["run"]["exit_code"]) == ("stopped", 75)
    assert run("stop", "train").stdout == "train: stopped, cell 2 of 3.\n"
    assert run("run", "--wait", "train").exit_code == Exit.STOPPED
    assert run("resume", "train.ipynb", "-d").stdout == "train\n"
    assert run("rm", "train", "--force").stdout == "Removed train\n"
    assert run("ps", "-a").stderr == "There are no runs. Begin one: ipyrescue run train.ipynb --detach\n"
    assert not list(registry.registry().glob("*.json"))


def test_what_a_removed_run_had_pinned_is_left_to_retention(notebook):
    """Only its runner would have unpinned it; what a person pinned stays."""
    notebook("""
        from ipyrescue.runs.record import Done
        say(state="failed", exit_code=1, done=(Done(1, "c" * 64, "a" * 16, 7, "2026-01-01T00:00:00+00:00"),))
        code = 1
    """)
    run("run", "train.ipynb")
    root = records.store_of(folder_of())
    pins.add(root, "a" * 16)
    pins.add(root, "b" * 16)

    assert run("rm", "train").stdout == "Removed train\n"
    assert pins.read(root) == {"b" * 16}


def test_the_end_of_a_run_is_the_end_of_the_command(notebook):
    for state, code in (("failed", 1), ("died", 6), ("stopped", 75)):
        notebook(f"say(state={state!r}, exit_code={code}, reason='That is how it was.'); code = {code}")
        result, document = run_json("run", "train.ipynb", "--name", state)
        assert (result.exit_code, document["run"]["state"], document["run"]["exit_code"]) == (code, state, code)
        result = run("run", "--wait", state)
        assert (result.exit_code, f"{state}. That is how it was." in result.stderr) == (code, True), result.stderr
        notebook(f"time.sleep(0.2); say(state={state!r}, exit_code={code}); code = {code}")
        assert run("resume", state, "--detach").exit_code == code


def test_a_dead_run_is_never_said_to_run(notebook):
    notebook(RUNS)
    run("run", "train.ipynb", "-d")
    runner = records.read(folder_of()).runner
    os.kill(runner.pid, signal.SIGKILL)
    while lives.process_state(runner) == "alive":
        time.sleep(0.01)

    result = run("ps")
    assert (result.exit_code, result.stdout.splitlines()[1].split()[:2]) == (Exit.OK, ["train", "dead"])
    assert f"Its runner (pid {runner.pid}) is gone" in result.stderr
    _, document = run_json("ps")
    assert [(one["name"], one["state"], one["snapshot"]) for one in document["runs"]] == [("train", "dead", None)]
    assert run("run", "--wait", "train").exit_code == Exit.RUN_DIED
    assert run("stop", "train", "--now").stdout.startswith("train: dead, cell 2 of 3. Its runner")


def test_a_runner_that_does_not_answer_is_ended(notebook, monkeypatch):
    monkeypatch.setattr("ipyrescue.cli.stop._ANSWER_SECONDS", 0.1)
    notebook("say(state='running')\ntime.sleep(600)")
    run("run", "train.ipynb", "-d")

    result, document = run_json("stop", "train", "--now")

    assert (result.exit_code, document["run"]["state"]) == (Exit.OK, "dead")


def test_ctrl_c_ends_the_waiting_and_in_the_foreground_the_run(notebook):
    """With a terminal: what turns there is a person's, and a Ctrl-C reaches the whole group."""
    notebook("say(state='running', cell=1, cells=1)\nopen('ready', 'w').close()\ntime.sleep(600)")
    shell, terminal = on_a_terminal(sys.executable, "-m", "ipyrescue", "run", "train.ipynb")
    said = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while not Path("ready").exists():
            said += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while True:
            said += os.read(terminal, 1000)
    assert shell.wait() == Exit.INTERRUPTED, said.decode()
    os.close(terminal)
    assert b"Traceback" not in said
    assert records.read(folder_of()).state == "stopped"

    notebook(RUNS)
    run("resume", "train", "-d")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "ipyrescue", "run", "--wait", "train"], stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr.readline() == "Waiting for train.\n"
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate(timeout=60)[1] == ""
    assert waiting.returncode == Exit.INTERRUPTED
    assert records.judged(records.read(folder_of())).state == "running"


def test_what_would_lose_the_work_is_said_before(notebook, monkeypatch):
    told = ["It is on no volume.", "On the host:\nx"]
    asked = []
    monkeypatch.setattr(examining, "at_start", lambda *of: asked.append(of) or told)
    notebook("say(state='finished')")

    result = run("run", "train.ipynb", "--json")

    assert result.stderr.splitlines()[:3] == ["It is on no volume.", "On the host:", "x"]
    assert asked == [(Path("train.ipynb").absolute(), Path(".ipyrescue").absolute())]


def test_a_hang_up_in_the_foreground_asks_to_save_and_stop(notebook):
    notebook(
        """
        heard = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        signal.raise_signal(signal.SIGHUP)
        signal.signal(signal.SIGTERM, before)
        say(state="stopped", progress=str(heard), exit_code=75)
        code = 75
        """
    )
    before = signal.getsignal(signal.SIGHUP)

    assert run("run", "train.ipynb").exit_code == Exit.STOPPED
    assert (records.read(folder_of()).progress, signal.getsignal(signal.SIGHUP)) == ("[15]", before)


def test_a_script_s_own_arguments_stand_behind_two_dashes(notebook):
    notebook("say(state='finished')", "train.py")

    assert run("run", "train.py", "--every", "1m", "--", "--every", "-p", "9").exit_code == Exit.OK
    record = records.read(folder_of())
    assert (record.kind, record.options.arguments, record.options.output) == ("script", ("--every", "-p", "9"), None)
    result = run("run", "train.py", "--epochs", "10")
    assert (result.exit_code, "ipyrescue run train.py -- --epochs" in result.stderr) == (Exit.USAGE, True)
    result = run("run", "train.py", "-p", "lr", "1")
    assert (result.exit_code, "stands behind --: ipyrescue run a.py -- --lr 1" in result.stderr) == (Exit.FAILED, True)
    result = run("run", "train.py", "--in-place")
    assert (result.exit_code, "no notebook for --in-place" in result.stderr) == (Exit.FAILED, True)
    assert "There is no run of train.ipynb to resume" in run("resume", "train.ipynb").stderr
    assert "has finished. To run the script once more" in run("resume", "train.py").stderr


@pytest.mark.parametrize(
    "line",
    [
        ["run"],
        ["run", "train.ipynb", "--every", "soon"],
        ["run", "train.ipynb", "--on-failure", "cry"],
        ["run", "train.ipynb", "--retries", "-1"],
        ["run", "train.ipynb", "--timeout-cell", "x"],
        ["run", "train.ipynb", "-p", "lr"],
        ["run", "train.ipynb", "--in-place", "-o", "x.ipynb"],
        ["run", "train.ipynb", "--wait", "train"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line(line, notebook):
    notebook("")

    assert run(*line).exit_code == Exit.USAGE
    assert not Path(".ipyrescue").exists()


@pytest.mark.parametrize("verb", ["stop", "resume", "rm", "attach"])
@pytest.mark.parametrize("name", ["nobody", "../../etc", "\x1b[31m"])
def test_no_such_run(verb, name):
    result = run(verb, name, "--json")

    assert (result.exit_code, json.loads(result.stderr)["error"]["type"]) == (Exit.NOT_FOUND, "RunNotFoundError")


def test_a_hostile_record_obeys_nobody(notebook):
    notebook("say(state='running', progress='\\x1b]0;owned\\x07\\n' * 30); asked(); say(state='finished')")
    run("run", "train.ipynb", "-d")
    result = run("ps")
    assert ("\x1b" in result.stdout + result.stderr, len(result.stdout.splitlines())) == (False, 2)

    run("stop", "train")
    (folder_of() / "run.json").write_text("{")
    result = run("ps", "-a")
    assert (result.exit_code, "run.json is damaged" in result.stderr) == (Exit.OK, True)
    assert run("rm", "train").stdout == "Removed train\n"


def test_attach_says_how(notebook, tmp_path):
    file = tmp_path / "kernel x.json"
    notebook(f"say(state='running', connection_file={str(file)!r}); asked(); say(state='finished')")
    run("run", "train.ipynb", "-d")
    assert "cannot be seen from here" in run("attach", "train").stderr
    write_connection_file(str(file), key=b"a key", kernel_name="python3")

    result = run("attach", "train", "--print")

    assert f"jupyter console --existing '{file}'" in result.stdout
    folder = Path(os.environ["XDG_STATE_HOME"]) / "ipyrescue" / "kernels"
    assert f"--ServerApp.allow_external_kernels=True --ServerApp.external_connection_dir={folder}" in result.stdout
    assert run_json("attach", "train")[1]["connection_file"] == str(file)
    server = MultiKernelManager(external_connection_dir=str(folder))
    assert len(server.list_kernel_ids()) == 1
    file.unlink()
    assert server.list_kernel_ids() == []
    server.context.destroy()


def test_nothing_of_a_notebook_is_loaded_before_it_is_needed():
    """`ipyrescue ls` and `ps` wait for no library that only a runner needs."""
    code = "import sys; from ipyrescue.cli.app import app; print([m for m in sys.modules if m in sys.argv])"
    heavy = ["nbclient", "nbformat", "jupyter_client", "zmq", "rich.table", "IPython", "torch", "ipyrescue.runs.runner"]
    out = subprocess.run(
        [sys.executable, "-c", code, *heavy],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.environ["PYTHONPATH"].partition(os.pathsep)[2]},
    )

    assert out.stdout == "[]\n"


def test_every_verb_has_its_help():
    for verb in ("run", "ps", "attach", "stop", "resume", "rm"):
        result = run(verb, "--help")
        assert (result.exit_code, "--json prints {" in result.stdout) == (Exit.OK, True)
