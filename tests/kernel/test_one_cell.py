"""%%checkpoint_vars: one cell is protected, and nothing after it."""

from __future__ import annotations

LOOP = """
import pathlib, time
history = []
while len(list(pathlib.Path(".ipyrescue/snapshots").glob("*"))) < 3:
    history.append(len(history)); time.sleep(0.01)
"""
CUTS = "[(s.cut, s.trigger) for s in __import__('ipyrescue').snapshots()]"
ARMED = "get_ipython()._ipyrescue.armed is not None"


def test_a_cell_is_saved_while_it_runs_and_when_it_ends(make_kernel):
    """Armed for its time only; what it raises is shown once and kept with the snapshot after it."""
    kernel = make_kernel(IPYRESCUE_MAX_SHARE="100%")
    kernel.run("%load_ext ipyrescue")

    kernel.run(f"%%checkpoint_vars every=0.2s\n{LOOP}")
    cuts = kernel.value(CUTS)
    assert not kernel.value(ARMED)
    assert (cuts[0], cuts[-1]) == (("cell_end", "every"), ("line", "command"))
    assert ("line", "every") in cuts[1:-1], "no optimizer steps in this loop"

    output = kernel.try_run("%%checkpoint_vars every=1h\ndef fail(depth):\n    1 / 0\nfail(7)")
    newest = kernel.value("__import__('ipyrescue').snapshots()[0].traceback")
    assert "ended with the ZeroDivisionError above" in output.stderr
    assert "in fail" in newest
    assert kernel.value(CUTS)[0] == ("interrupted", "exception")

    kernel.run("%checkpoint_vars every=1h")
    kernel.run("%%checkpoint_vars every=5m\nx = 1")
    assert kernel.value("get_ipython()._ipyrescue.armed.settings.every_seconds") == 3600.0
