"""What makes a snapshot beside the clock, in real kernels: a terminal that asks, and signals."""

import os
import signal

import pytest
from typer.testing import CliRunner

from ipyrescue.cli.app import app
from ipyrescue.incarnations.writers import wait_for_writers
from ipyrescue.kernel.cell_code import only_looks
from ipyrescue.store import Store, signing


def _snapshots(folder):
    found = Store.open(folder / ".ipyrescue", signing.load_key()).snapshots()
    return sorted(found, key=lambda snapshot: snapshot.sequence)


def _now(notebook):
    return CliRunner().invoke(app, ["now", str(notebook), "--timeout", "2m"], catch_exceptions=False)


def test_a_terminal_asks_for_a_snapshot_and_a_signal_leaves_a_last_one(make_kernel, tmp_path, monkeypatch):
    """In an idle kernel, in the middle of a cell, and at its end by docker stop."""
    monkeypatch.chdir(tmp_path)
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nimport time\nstep = 0\n%checkpoint_vars every=1h")
    armed = len(_snapshots(tmp_path))

    asked = _now(tmp_path / "train.ipynb")
    assert asked.exit_code == 0, asked.stderr
    assert len(_snapshots(tmp_path)) == armed + 1

    kernel.begin("print('running', flush=True)\nwhile True:\n    step += 1\n    time.sleep(0.01)")
    kernel.wait_for_output("running")
    asked = _now(tmp_path / "train.ipynb")
    assert asked.exit_code == 0, asked.stderr
    newest = _snapshots(tmp_path)[-1]
    assert newest.consistent
    assert newest.id[:8] in asked.stdout

    os.kill(kernel.pid, signal.SIGTERM)
    assert kernel.manager.provisioner.process.wait() == -signal.SIGTERM
    kernel.close()
    after = make_kernel()
    said = after.run("%load_ext ipyrescue").text
    assert "was terminated (SIGTERM" in said
    last = _snapshots(tmp_path)[-1]
    assert (last.cut, last.reason, last.sequence > newest.sequence) == ("interrupted", "SIGTERM", True)


def test_a_cell_that_only_looks_is_no_work(make_kernel, tmp_path, monkeypatch):
    """When the kernel is shut down after it there is nothing to save."""
    monkeypatch.chdir(tmp_path)
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\n%checkpoint_vars every=1h")
    assert _now(tmp_path / "train.ipynb").exit_code == 0
    saved = _snapshots(tmp_path)

    kernel.run("# what is there\n%snapshots\n\n%checkpoint_vars --status\n%restore_vars --dry-run")
    kernel.shut_down()
    wait_for_writers(tmp_path / ".ipyrescue", "train.ipynb", "")

    assert _snapshots(tmp_path) == saved


@pytest.mark.parametrize(
    ("cell", "looks"),
    [
        ("%snapshots", True),
        ("  %snapshots show 3f9c --code\n# and\n%restore_vars model --list", True),
        ("%checkpoint_vars --status\nx = 1", False),
        ("%checkpoint_vars model", False),
        ("%restore_vars", False),
        ("%snapshotsx", False),
        ("# %snapshots", False),
        ("", False),
    ],
)
def test_which_cells_only_look(cell, looks):
    assert only_looks(cell) is looks
