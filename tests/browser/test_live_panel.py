"""The status panel in a page: it turns red and green where it stands, and never shows in another cell."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "train.ipynb"
SHOW = """
import dataclasses, pathlib, threading, time
from ipyrescue.kernel.panel import Panel, PanelState
from ipyrescue.store.lives import Life
life = Life("b" * 16, "train.ipynb", "notebook", 1, 1, "x", "y", "lab", "2026-11-21T10:00:00+00:00", cell_running=True,
            every_seconds=300.0, saved_at="2026-11-21T10:00:00+00:00")
def state(failure=None):
    return PanelState(dataclasses.replace(life, failure=failure), 1795255200.0)
panel = Panel(get_ipython())
panel.show(state())
"""
RUN = """
def publish(failure):
    thread = threading.Thread(target=panel.update, args=(state(failure),)); thread.start(); thread.join()
publish("The disk is full.")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
publish(None)
while not pathlib.Path("end").exists():
    time.sleep(0.05)
"""


def test_it_turns_red_and_green_where_it_stands_while_another_cell_runs(lab):
    lab.served.write_notebook(NAME, SHOW, RUN)
    lab.open(NAME)
    lab.run(0)
    shown = lab.outputs(0)
    expect(shown).to_have_text(re.compile("^Protected: the last snapshot"))
    lab.picture("protected")

    lab.begin(1)
    expect(shown).to_have_text(re.compile("^NOT protected: saving fails; .* The disk is full"))
    lab.wait_until_busy()
    expect(lab.outputs(1)).to_have_count(0)
    lab.picture("failing")

    (lab.served.folder / "go").touch()
    expect(shown).to_have_text(re.compile("^Protected"))
    lab.wait_until_busy()
    (lab.served.folder / "end").touch()
    expect(shown).to_have_count(1)
    expect(lab.outputs(1)).to_have_count(0)
