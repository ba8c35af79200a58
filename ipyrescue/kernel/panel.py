"""One status panel per notebook: how well its kernel is protected, shown once and then kept true where it stands.

It is redrawn by its display id, also from a thread of ours and while a cell runs, and never becomes output of a cell
that did not ask for it. Its words change seldom: ages go in coarse steps while a cell runs, and stand as a time of day
while none does, so that an idle notebook is not written to for ever. Knows the life record and one manifest, no store.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ipyrescue.incarnations.protection import Protection, interval_of, interval_words, protection
from ipyrescue.kernel.faces import Report
from ipyrescue.kernel.tables import Line
from ipyrescue.kernel.verified import read_back_line, tally_as_json
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import coarse_age, format_duration
from ipyrescue.store.lives import Life
from ipyrescue.store.scrub import Tally
from ipyrescue.wording import clean, clock, seconds_of

REDRAWN_SECONDS = 1.0
"""More often than this no change of words is shown, unless the protection itself has changed."""

_LEVELS = {"protected": "success", "stale": "error", "failing": "error"}


@dataclass(frozen=True)
class PanelState:
    """What the panel is drawn from: the life record, the *last* good snapshot, and *now* in seconds since the epoch.

    *tally* says how far the reading of what is kept has come.
    """

    life: Life | None
    now: float
    last: Snapshot | None = None
    tally: Tally | None = None


@dataclass(frozen=True, repr=False)
class PanelReport(Report):
    """The panel as it is drawn. *live* says that it will be drawn again, so that it may show ages."""

    state: PanelState
    live: bool = True

    def lines(self) -> list[Line]:
        """Say whether the work is protected and since when, and what stands in the way."""
        judged = self.judged
        if judged.state != "protected":
            return [Line(judged.text, _LEVELS.get(judged.state, "hint"))]
        told = [Line(self._protected(), _LEVELS["protected"])]
        if judged.paused is not None:
            told.append(Line(f"Inside this cell it is paused: {judged.paused}.", "warning"))
        if self.state.life is not None and self.state.life.damage is not None:
            told.append(Line(clean(self.state.life.damage), "error"))
        if self.state.life is not None and self.state.life.outlook is not None:
            told.append(Line(clean(self.state.life.outlook), "warning"))
        if self.state.tally is not None and self.state.tally.oldest is not None:
            told.append(Line(read_back_line(self.state.tally, self.state.now), "hint"))
        return told

    def as_json(self) -> dict[str, Any]:
        """Return the verdict and the numbers behind it."""
        life, last = self.state.life, self.state.last
        return {
            "report": "panel",
            "state": self.judged.state,
            "text": self.judged.text,
            "paused": self.judged.paused,
            "snapshot_id": last.id if last is not None else None,
            "saved_at": life.saved_at if life is not None else None,
            "protected_since": life.protected_since if life is not None else None,
            "every_seconds": life.every_seconds if life is not None else None,
            "interval_seconds": interval_of(life) if life is not None else None,
            "pause_seconds": last.pause_seconds if last is not None else None,
            "slowdown_seconds": life.slowdown_seconds if life is not None else None,
            "inside": life.inside if life is not None else None,
            "damage": life.damage if life is not None else None,
            "outlook": life.outlook if life is not None else None,
            "verified": tally_as_json(self.state.tally),
        }

    @property
    def judged(self) -> Protection:
        """How well the kernel is protected."""
        return protection(self.state.life, self.state.now, aged=self._aged())

    def _protected(self) -> str:
        life, last, now = self.state.life, self.state.last, self.state.now
        assert life is not None  # a kernel without a record is never protected
        began = seconds_of(life.protected_since)
        since = f" since {clock(began, now=now)}" if began is not None else ""
        which = f"snapshot {last.id[:8]}" if last is not None else "the last snapshot"
        made = self._aged()(now - (seconds_of(life.saved_at) or now))
        pause = f" (pause {format_duration(last.pause_seconds)})" if last is not None else ""
        return (
            f"Protected{since}: {which} {made}{pause}, at most every {interval_words(life)}, also inside cells. "
            "To stop: %checkpoint_vars --off"
        )

    def _aged(self) -> Callable[[float], str]:
        running = self.state.life is not None and self.state.life.cell_running
        return self._age_and_clock if self.live and running else self._clock

    def _age_and_clock(self, seconds: float) -> str:
        return f"{coarse_age(seconds)}, {self._clock(seconds)}"

    def _clock(self, seconds: float) -> str:
        return f"at {clock(round(self.state.now - seconds, 3), now=self.state.now)}"


class Panel:
    """The panel of one kernel. `show` on the main thread, in a cell; `update` from any thread, as often as you like."""

    def __init__(self, shell: Any) -> None:
        self.display_id = f"ipyrescue-{uuid4().hex[:16]}"
        self._shell = shell
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._publisher: Any = None
        self._shown: str | None = None
        self._level: str | None = None
        self._drawn = 0.0

    def show(self, state: PanelState) -> None:
        """Put the panel where the running cell shows its output; one that stands elsewhere already stays true too."""
        from IPython.core.displaypub import CapturingDisplayPublisher  # a script does without

        publisher = self._shell.display_pub
        with self._lock:
            if not isinstance(publisher, CapturingDisplayPublisher):
                self._publisher = publisher if _redraws(publisher) else None
            report = PanelReport(state, live=self._publisher is not None)
            self._note(report)
        publisher.publish(report._repr_mimebundle_(), transient={"display_id": self.display_id})

    def update(self, state: PanelState) -> None:
        """Redraw the panel if its words have changed. Never raises.

        A change that comes within a second of the last is left to a later call, unless it is one of colour.
        """
        # Not waited for: a signal handler may call while the main thread, which it interrupts, holds the lock.
        if os.getpid() != self._process or not self._lock.acquire(blocking=False):
            return
        try:
            self._redraw(PanelReport(state))
        except Exception:  # noqa: BLE001 - a front end that is gone, or its odd publisher, must not end a training
            self._publisher = None
        finally:
            self._lock.release()

    def _redraw(self, report: PanelReport) -> None:
        if self._shown is None or self._publisher is None or repr(report) == self._shown:
            return
        if report.lines()[0].level == self._level and time.monotonic() - self._drawn < REDRAWN_SECONDS:
            return
        self._note(report)
        _send(self._publisher, report._repr_mimebundle_(), self.display_id)

    def _note(self, report: PanelReport) -> None:
        self._shown, self._level, self._drawn = repr(report), report.lines()[0].level, time.monotonic()


def _redraws(publisher: Any) -> bool:
    """Whether what was shown can be replaced: IPython's own publisher prints, and what a terminal shows stays."""
    from IPython.core.displaypub import DisplayPublisher

    return type(publisher) is not DisplayPublisher


def _send(publisher: Any, data: dict[str, Any], display_id: str) -> None:
    """Replace what stands under *display_id*.

    ipykernel's `publish` would also flush `sys.stdout`, on our thread, and that may be an object of the user; so its
    message is sent without it. The parent is the running cell, which front ends expect and do not look at.
    """
    content = {"data": data, "metadata": {}, "transient": {"display_id": display_id}}
    session, socket = getattr(publisher, "session", None), getattr(publisher, "pub_socket", None)
    if session is None or socket is None:
        publisher.publish(data, transient=content["transient"], update=True)
    else:
        parent = publisher.parent_header
        session.send(socket, "update_display_data", content, parent=parent, ident=publisher.topic)
