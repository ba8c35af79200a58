"""Runs in the foreground whose terminal or pipe goes away: they go on, and end with their own exit codes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from ipyrescue.cli.exits import Exit
from ipyrescue.runs import record as records
from ipyrescue.runs import registry
from ipyrescue.runs.journal import Journal
from ipyrescue.runs.record import Options, Record
from tests.runs.conftest import on_a_terminal

RUN = (sys.executable, "-m", "ipyrescue", "run")
PATIENCE_SECONDS = 60.0


def wait_for(path):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_whoever_watches_may_go_away(tmp_path):
    folder = tmp_path / "runs" / "train"
    folder.mkdir(parents=True)
    records.write(folder, Record("train", "notebook", "", "", "", Options(), records.now()))
    told = []

    def watch(record):
        told.append(record.cell)
        raise BrokenPipeError

    journal = Journal(folder, watch)
    journal.note(cell=1)
    journal.note(cell=2)
    journal.close()

    assert (told, records.read(folder).cell) == ([1], 2)


@pytest.mark.parametrize("name", ["train.ipynb", "train.py"])
def test_what_nobody_reads_does_not_change_how_a_run_ends(notebook, name):
    notebook(
        """
        pathlib = __import__("pathlib")
        (folder / "log").write_text("2026-11-21T00:00:00.000000000Z stdout F a line\\n" * 9)
        while not pathlib.Path("closed").exists():
            time.sleep(0.01)
        say(state="stopped", exit_code=75)
        code = 75
        """,
        name,
    )
    reader, writer = os.pipe()
    shell = subprocess.Popen([*RUN, name], stdout=writer, stderr=writer)
    os.close(writer)
    os.close(reader)
    Path("closed").touch()

    assert shell.wait(PATIENCE_SECONDS) == Exit.STOPPED
    assert records.read(registry.find("train")).state == "stopped"


# --- real kernels --------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A notebook of two cells, the second of which waits for a file `go`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    waits = "import os, time\nopen('second', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)"
    cells = [nbformat.v4.new_code_cell(source) for source in ("x = 1", waits)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), "train.ipynb")
    return tmp_path


@contextlib.contextmanager
def ended(shell):
    """Whatever becomes of a test, its run is over afterwards."""
    try:
        yield
    finally:
        if shell.poll() is None:
            shell.send_signal(signal.SIGKILL)
            shell.wait()


@pytest.mark.slow
def test_a_notebook_outlives_the_reader_of_its_output(here):
    shell = subprocess.Popen([*RUN, "train.ipynb"], stderr=subprocess.PIPE)
    with ended(shell):
        wait_for(here / "second")
        shell.stderr.close()
        (here / "go").touch()

        assert shell.wait(PATIENCE_SECONDS) == Exit.OK

    record = records.read(registry.find("train"))
    assert (record.state, [done.cell for done in record.done]) == ("finished", [1, 2])


@pytest.mark.slow
def test_a_notebook_whose_terminal_is_closed_is_saved_and_stopped(here):
    shell, terminal = on_a_terminal(*RUN, "train.ipynb")
    with ended(shell):
        while not (here / "second").exists():
            os.read(terminal, 1000)
        os.close(terminal)

        assert shell.wait(PATIENCE_SECONDS) == Exit.STOPPED

    record = records.read(registry.find("train"))
    assert (record.state, [done.cell for done in record.done]) == ("stopped", [1])
