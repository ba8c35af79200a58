"""The status panel: what it says, when it is redrawn, and that it never becomes another cell's output."""

import itertools
import threading
from types import SimpleNamespace

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher, DisplayPublisher
from kernels import Kernel

from ipyrescue.kernel import panel as module
from ipyrescue.kernel.faces import MIME_TYPE
from ipyrescue.kernel.panel import Panel, PanelReport, PanelState
from ipyrescue.wording import clock
from tests.incarnations.samples import a_life
from tests.kernel.samples import NOW, iso, snapshot

LAST = snapshot(id="3f9c21aa" + "0" * 8, pause_seconds=0.041)


def state(seconds=0.0, *, last=LAST, **fields):
    """An armed kernel in the middle of a cell, *seconds* after its snapshot."""
    known = {"every_seconds": 300.0, "saved_at": iso(0), "cell_started": iso(1000), "cell_running": True}
    return PanelState(a_life(**(known | fields)), NOW + seconds, last)


def at(seconds=0.0):
    return f"at {clock(NOW - seconds, now=NOW)}"


@pytest.mark.parametrize(
    ("shown", "level", "lines"),
    [
        (
            state(12, protected_since=iso(3600)),
            "success",
            [
                f"Protected since {clock(NOW - 3600, now=NOW)}: snapshot 3f9c21aa less than 1 min ago, {at()} "
                "(pause 41 ms), at most every 5 min, also inside cells. To stop: %checkpoint_vars --off"
            ],
        ),
        (
            state(12, cell_running=False, cell_ended=iso(0), last=None),
            "success",
            [
                f"Protected: the last snapshot {at()}, at most every 5 min, also inside cells. "
                "To stop: %checkpoint_vars --off"
            ],
        ),
        (
            state(130, interval_seconds=400.0, pause_seconds=0.5, slowdown_seconds=3.5),
            "success",
            [
                f"Protected: snapshot 3f9c21aa 2 min ago, {at()} (pause 41 ms), at most every 6 min 40 s (stretched "
                "from 5 min, because a snapshot costs 4 s), also inside cells. To stop: %checkpoint_vars --off"
            ],
        ),
        (
            state(12, inside="a debugger holds the tracer"),
            "success",
            [
                f"Protected: snapshot 3f9c21aa less than 1 min ago, {at()} (pause 41 ms), at most every 5 min, also "
                "inside cells. To stop: %checkpoint_vars --off",
                "Inside this cell it is paused: a debugger holds the tracer.",
            ],
        ),
        (
            state(700, inside="a debugger holds the tracer"),
            "error",
            [
                "The running cell is NOT protected: a debugger holds the tracer. Snapshots are wanted every 5 min; "
                f"the last one 10 min ago, {at()}."
            ],
        ),
        (
            state(42, failure="The disk is full."),
            "error",
            [f"NOT protected: saving fails; the last one less than 1 min ago, {at()}. The disk is full."],
        ),
        (
            state(42, every_seconds=None),
            "hint",
            [
                f"Snapshots are made only by hand; the last one less than 1 min ago, {at()}. "
                "To protect it: %checkpoint_vars every=5m"
            ],
        ),
    ],
)
def test_it_says_how_well_the_work_is_protected(shown, level, lines):
    report = PanelReport(shown)

    assert [line.text for line in report.lines()] == lines
    assert report.lines()[0].level == level
    assert report.as_json()["report"] == "panel"
    assert report._repr_mimebundle_()[MIME_TYPE]["state"] == report.judged.state


def test_where_it_is_not_redrawn_it_shows_no_age():
    assert repr(PanelReport(state(130), live=False)).startswith(f"Protected: snapshot 3f9c21aa {at()} (pause")


def test_while_no_cell_runs_its_words_stay_the_same():
    """An idle notebook would be written to for ever, and saved for ever."""
    shown = {repr(PanelReport(state(seconds, cell_running=False, cell_ended=iso(0)))) for seconds in range(0, 6000, 7)}

    assert len(shown) == 1


def test_while_a_cell_runs_they_change_a_few_times_for_each_snapshot():
    shown = [repr(PanelReport(state(seconds / 10))) for seconds in range(6000)]

    assert len([1 for before, after in itertools.pairwise(shown) if before != after]) == 5


class Publisher:
    """A front end's publisher that is not ipykernel's."""

    def __init__(self):
        self.sent = []

    def publish(self, data, metadata=None, *, transient=None, update=False):
        self.sent.append((data["text/plain"], transient["display_id"], update))


@pytest.fixture
def clock_of_the_panel(monkeypatch):
    """A clock that goes on when the test says so."""
    passed = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: passed.seconds))
    return passed


def test_it_is_redrawn_at_most_once_a_second_and_only_when_its_words_change(clock_of_the_panel):
    publisher = Publisher()
    panel = Panel(SimpleNamespace(display_pub=publisher))
    panel.update(state())
    assert publisher.sent == [], "never shown, never updated"

    panel.show(state())
    panel.update(state(70))
    assert len(publisher.sent) == 1, "too soon"
    clock_of_the_panel.seconds += 1
    for _ in range(3):
        panel.update(state(70))
    assert len(publisher.sent) == 2
    panel.update(state(70, failure="The disk is full."))

    texts = [text for text, _, _ in publisher.sent]
    assert ("less than 1 min" in texts[0], "1 min ago, at" in texts[1]) == (True, True)
    assert texts[2].startswith("NOT protected: saving fails"), "what turns red is told at once"
    assert [update for _, _, update in publisher.sent] == [False, True, True]
    assert {display_id for _, display_id, _ in publisher.sent} == {panel.display_id}


def test_in_a_terminal_it_is_shown_once(clock_of_the_panel, capsys):
    shell = SimpleNamespace(history_manager=SimpleNamespace(outputs={0: []}), execution_count=1, mime_renderers={})
    shell.display_pub = DisplayPublisher.__new__(DisplayPublisher)
    shell.display_pub.shell, shell.display_pub._in_post_execute = shell, False
    panel = Panel(shell)

    panel.show(state(130))
    clock_of_the_panel.seconds += 10
    panel.update(state(900))

    assert capsys.readouterr().out == f"{PanelReport(state(130), live=False)!r}\n"


def test_what_a_user_captures_holds_no_redrawing(clock_of_the_panel):
    """`%%capture` and `capture_output` swap the shell's publisher while a thread of ours goes on."""
    real, captured = Publisher(), CapturingDisplayPublisher()
    shell = SimpleNamespace(display_pub=captured)
    panel = Panel(shell)
    panel.show(state())
    clock_of_the_panel.seconds += 10
    panel.update(state(70))
    assert len(captured.outputs) == 1, "what was shown inside is all that is inside"

    shell.display_pub = real
    panel.show(state())
    shell.display_pub = captured
    clock_of_the_panel.seconds += 10
    panel.update(state(70))

    assert (len(real.sent), len(captured.outputs)) == (2, 1)


def test_a_publisher_that_refuses_ends_the_redrawing_and_nothing_else(clock_of_the_panel):
    class Refusing(Publisher):
        def publish(self, data, metadata=None, *, transient=None, update=False):
            super().publish(data, transient=transient, update=update)
            if update:
                raise OSError("the front end is gone")

    publisher = Refusing()
    panel = Panel(SimpleNamespace(display_pub=publisher))
    panel.show(state())
    for seconds in (70, 130):
        clock_of_the_panel.seconds += 10
        panel.update(state(seconds))

    assert len(publisher.sent) == 2


def test_an_update_does_not_wait_for_another():
    """A signal handler of ours runs on the main thread, perhaps in the middle of an update."""

    class Reentrant(Publisher):
        def publish(self, data, metadata=None, *, transient=None, update=False):
            super().publish(data, transient=transient, update=update)
            if update:
                panel.update(state(9000))

    publisher = Reentrant()
    panel = Panel(SimpleNamespace(display_pub=publisher))
    panel.show(state())
    thread = threading.Thread(target=panel.update, args=(state(70, failure="full"),), daemon=True)
    thread.start()
    thread.join(60)

    assert not thread.is_alive()
    assert len(publisher.sent) == 2


SHOW = """
import dataclasses, threading, time
from ipyrescue.kernel import panel as module
from ipyrescue.kernel.panel import Panel, PanelState
from ipyrescue.store.lives import Life
module.REDRAWN_SECONDS = 0.0
life = Life("b" * 16, "train.ipynb", "notebook", 1, 1, "x", "y", "lab", "2026-11-21T10:00:00+00:00",
            every_seconds=300.0, saved_at="2026-11-21T10:00:00+00:00")
def state(failure=None):
    return PanelState(dataclasses.replace(life, failure=failure), 1795255200.0)
panel = Panel(get_ipython())
panel.show(state())
print(panel.display_id)
"""
UPDATE = """
print("before")
asked, done, stop = threading.Event(), threading.Event(), threading.Event()
def watch():
    asked.wait(); panel.update(state("first")); done.set()
    asked.clear(); asked.wait(); panel.update(state("second")); done.set()
    while not stop.wait(0.05):
        panel.update(state(f"after {time.monotonic()}"))
thread = threading.Thread(target=watch, daemon=True); thread.start()
asked.set(); done.wait(); done.clear()
print("after")
"""
CAPTURED = """%%capture kept
asked.set(); done.wait()
print("inside")
"""


def test_in_a_kernel_it_is_replaced_where_it_stands(make_kernel):
    """While another cell runs, from a thread, under `%%capture`, and while no cell runs at all."""
    kernel = make_kernel()
    shown = messages_of(kernel, SHOW)
    display_id = text_of(shown).strip()
    (first,) = [m for m in shown if m["msg_type"] == "display_data"]
    assert first["content"]["transient"] == {"display_id": display_id}
    assert {"text/plain", "text/html", MIME_TYPE} == first["content"]["data"].keys()

    during = messages_of(kernel, UPDATE)
    captured = messages_of(kernel, CAPTURED)
    idle = kernel.client.get_iopub_msg(timeout=60)
    kernel.run("stop.set(); thread.join()")

    assert text_of(during) == "before\nafter\n"
    assert [m["msg_type"] for m in during if "data" in m["content"]] == ["update_display_data"]
    updates = [m for m in (*during, *captured, idle) if m["msg_type"] == "update_display_data"]
    assert [m["content"]["transient"] for m in updates] == [{"display_id": display_id}] * len(updates)
    texts = [m["content"]["data"]["text/plain"] for m in updates]
    assert [text.rpartition(". ")[2].partition(" ")[0] for text in texts[:3]] == ["first", "second", "after"]
    assert idle["msg_type"] == "update_display_data"
    assert kernel.value("(kept.stdout, kept.outputs)") == ("inside\n", [])


def messages_of(kernel: Kernel, source: str) -> list[dict]:
    """All that a cell makes the kernel publish."""
    found: list[dict] = []
    kernel.client.execute_interactive(source, timeout=120, allow_stdin=False, output_hook=found.append)
    return found


def text_of(messages: list[dict]) -> str:
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
