"""`ipyrescue.resume()`: what a program says at its beginning, to go on where it was cut off the last time.

Decides whether there is anything to go on from: life records and snapshots into a restore, or into nothing. A run that
came to its end is none, and neither is a first one.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import FrameType

from ipyrescue.errors import RescueError, UntrustedError
from ipyrescue.incarnations.deaths import previous_death, still_alive, undecided
from ipyrescue.kernel import session
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.manifest import Snapshot
from ipyrescue.restoring import Restored, Scope
from ipyrescue.store import lives
from ipyrescue.training import progress
from ipyrescue.wording import clock, count, seconds_of

_LOOK_SECONDS = 0.5
_SHOWN_NAMES = 4


def resume() -> Restored | None:
    """Go on where the last run of this script, or the last kernel of this notebook, was cut off; else do nothing.

        model, opt, losses = ...
        ipyrescue.resume()
        with ipyrescue.guard(every="5m"):
            for epoch in ipyrescue.loop(range(100), name="train"): ...

    After a death (killed, terminated, out of memory, crashed, a reboot) and after an exception that nobody caught,
    everything is restored from the newest consistent snapshot: variables, random streams, and what `loop` and `batches`
    were at. At the first start, and after a run that came to its end, None is returned and the program begins anew.

    What stands above this line is replaced by what was saved, what stands below runs again; functions and classes of
    the script stay as its text has them now. Variables of functions are in `ipyrescue.frames()`: a loop that needs them
    is refused until they are asked for, or until what it trains is what came back. A line on stderr says what was done.
    A last run that cannot be seen from here, as in a container that was started anew, may still be
    alive: it is waited for up to a minute.

    Does nothing in the worker processes of `multiprocessing`. Raises as `ipyrescue.restore` does: a snapshot that
    cannot be read is no reason to begin anew without a word.
    """
    if session.is_worker():
        return None
    comes_to("resume", sys._getframe(1))
    with session.worded() as here:
        chosen = cut_off(here)
        if chosen is None:
            _tell_of_one_beside(here)
            return None
        return go_on(here, chosen)


awaited: Callable[[str, FrameType], None] | None = None
"""Called once, with the frame, when a program that is run unedited comes to its first `resume` or `guard`."""


def comes_to(what: str, frame: FrameType) -> None:
    """Tell whoever awaits it that the program has come to *what*: `resume` or `guard`."""
    global awaited
    call, awaited = awaited, None
    if call is not None:
        call(what, frame)


def go_on(here: Recorder, chosen: Snapshot) -> Restored:
    """Restore all of *chosen*, and tell of it in one line on stderr. Raises as `ipyrescue.restore` does."""
    if here.notebook.is_script:
        restored = session.restore_script(here, chosen.id, Scope())
    else:
        restored = here.restore(chosen.id, Scope())
    _tell(here, restored)
    return restored


def remind(here: Recorder) -> None:
    """Tell a script that begins its work, and did not ask for it, what its last run has left. Never raises."""
    where = here.notebook.identity
    if where.kind != "script" or here.notebook.has_restored:
        return
    with contextlib.suppress(RescueError):
        death = previous_death(where.store_root, where.notebook, here.notebook.incarnation)
        left = (s for s in here.notebook.snapshots() if death is not None and s.incarnation == death.life.incarnation)
        snapshot = next((s for s in left if s.consistent), None)
        if snapshot is not None:
            say(
                f"the last run of {where.title} was cut off, and this one does not go on from its snapshot "
                f"{snapshot.id[:8]}. To do so, say ipyrescue.resume() before the guard."
            )


def cut_off(here: Recorder, fits: Callable[[Snapshot], bool] = lambda snapshot: True) -> Snapshot | None:
    """The snapshot to go on from that *fits*, if the last run did not come to its end. Raises `RescueError`.

    A last run that cannot be seen from here is waited for, until it is known to live or to be dead. Whether the run
    that made the snapshot ended well is asked too: a later one that died before it saved anything has left nothing to
    go on from.
    """
    _wait_for_a_verdict(here)
    where = here.notebook.identity
    if previous_death(where.store_root, where.notebook, here.notebook.incarnation) is None:
        return None
    here.notebook.wait_for_writers()
    if not any(snapshot.consistent for snapshot in here.notebook.snapshots()):
        _refuse_what_is_out_of_reach(here)
        _tell_of_torn_ones(here)
        return None
    chosen = next(filter(fits, here.notebook.find(None)), None)
    return None if chosen is None or _came_to_its_end(here, chosen) else chosen


def _came_to_its_end(here: Recorder, snapshot: Snapshot) -> bool:
    known = lives.read_all(here.notebook.identity.store_root)
    return any(life.incarnation == snapshot.incarnation and life.ended is not None for life in known)


def _wait_for_a_verdict(here: Recorder) -> None:
    """Wait until a last run that cannot be seen gives a sign of life, or has given none for so long that it is dead."""
    where, told = here.notebook.identity, False
    signs = undecided(where.store_root, where.notebook, here.notebook.incarnation)
    first = dict(signs)
    while signs and all(sign == first.setdefault(name, sign) for name, sign in signs.items()):
        if not told:
            told = True
            say(f"waiting up to {lives.DEAD_SECONDS:.0f} s to see whether the last run of {where.title} still lives.")
        time.sleep(_LOOK_SECONDS)
        signs = undecided(where.store_root, where.notebook, here.notebook.incarnation)


def _refuse_what_is_out_of_reach(here: Recorder) -> None:
    lost, unreadable = here.notebook.lost_key(), here.notebook.unreadable()
    if lost is not None:
        raise UntrustedError(lost)
    if unreadable:
        raise unreadable[0].error


def _tell_of_torn_ones(here: Recorder) -> None:
    torn = next(iter(here.notebook.snapshots()), None)
    if torn is not None:
        say(
            f"{here.notebook.identity.title} begins anew: its last run left only snapshot {torn.id[:8]}, which was cut "
            f'in mid-step and may be torn. To take it all the same: ipyrescue.restore("{torn.id[:8]}")'
        )


def _tell_of_one_beside(here: Recorder) -> None:
    where = here.notebook.identity
    alive = still_alive(where.store_root, where.notebook, here.notebook.incarnation)
    if alive is not None and here.notebook.is_script:
        say(
            f"another run of {where.title} is alive (pid {alive.pid}), so this one begins anew. Give runs side by side "
            "a store of their own each: IPYRESCUE_STORE"
        )


def _tell(here: Recorder, restored: Restored) -> None:
    snapshot = restored.snapshot
    names = [v.name for v in snapshot.globals if v.name in restored.names and v.name not in restored.kept]
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    made = clock(seconds_of(snapshot.created) or 0.0, now=time.time())
    facts = [f"{', '.join(names[:_SHOWN_NAMES]) or 'no variables'}{more}", *progress.sentences(restored.progress)]
    say(f"{here.notebook.identity.title} goes on from snapshot {snapshot.id[:8]}, made at {made}: {'; '.join(facts)}.")
    if not names and any(frame.locals for frame in restored.frames):
        say(
            "what came back are locals of functions, which Python cannot put back: take them from ipyrescue.frames(), "
            "or keep at the top level what must come back."
        )
    lost = [str(skipped) for skipped in restored.skipped if skipped not in snapshot.skipped]
    if lost:
        say(f"{count(len(lost), 'variable')} did not come back: {'; '.join(lost)}")
    for warning in restored.warnings:
        say(warning)


def say(text: str) -> None:
    """Tell whoever reads the output of a script, on the main thread."""
    print(f"ipyrescue: {text}", file=sys.stderr, flush=True)  # noqa: T201 - at the beginning of a program
