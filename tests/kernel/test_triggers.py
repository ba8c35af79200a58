"""What makes a snapshot beside the clock, in real kernels: a terminal that asks, and signals."""

import os
import signal

from typer.testing import CliRunner

from ipyrescue.cli.app import app
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
