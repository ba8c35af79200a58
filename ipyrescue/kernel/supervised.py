"""What the runner of a notebook asks of its kernel: be armed, save what a cell has left, restore one snapshot.

Requests to execute with `silent=True`, `code=""` and these `user_expressions` into answers in JSON:

    __import__("ipyrescue.kernel.supervised", fromlist=["begin"]).begin(300.0)
    __import__("ipyrescue.kernel.supervised", fromlist=["begin"]).cell_done()
    __import__("ipyrescue.kernel.supervised", fromlist=["begin"]).restore("9f2c41d07ab3e655")

The `text/plain` of such an expression is one line of JSON in ASCII: the fields of the answer, or `{"error": sentence}`.
Nothing is bound in the user's namespace, printed or shown, and nothing is offered or restored but what the runner says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from IPython import get_ipython

from ipyrescue.errors import CorruptError, RescueError
from ipyrescue.kernel import extension
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.manifest import Settings
from ipyrescue.restoring import Restored
from ipyrescue.training import progress

P = ParamSpec("P")


class Answer(dict[str, Any]):
    """A dict of plain data whose repr is JSON: what the value of a user expression is shown as."""

    def __repr__(self) -> str:
        return json.dumps(self)


def _answered(asked: Callable[P, dict[str, Any]]) -> Callable[P, Answer]:
    """Turn whatever is raised into an answer: a request that fails must not look like a kernel that does."""

    @wraps(asked)
    def answer(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return Answer(asked(*args, **kwargs))
        except RescueError as error:
            return Answer(error=str(error))
        except BaseException as error:  # noqa: BLE001 - an object of the user may raise SystemExit, and so on
            return Answer(error=f"{type(error).__name__}: {error}")

    return answer


@_answered
def begin(every_seconds: float) -> dict[str, Any]:
    """Make snapshots inside cells from now on, every so many seconds; the ends of good cells are left to `cell_done`.

    Return `ok`, the kernel's `incarnation`, and the path of its `store`.
    """
    here = _recorder()
    here.arm(here.settled(Settings(every_seconds=float(every_seconds))))
    return {"ok": True, "incarnation": here.notebook.incarnation, "store": str(here.notebook.identity.store_root)}


@_answered
def cell_done() -> dict[str, Any]:
    """Save what the cell that has just ended left; the snapshot is durable when this returns.

    Return the `snapshot` (its id), its `sequence`, the `incarnation` that made it, sentences about what was `skipped`
    and, of these, what the user had named (`lost`), and the `seconds` that it took.
    """
    started, here = time.monotonic(), _recorder()
    snapshot = here.cell_is_done()
    return {
        "snapshot": snapshot.id,
        "sequence": snapshot.sequence,
        "incarnation": snapshot.incarnation,
        "skipped": [str(skipped) for skipped in snapshot.skipped],
        "lost": [str(skipped) for skipped in snapshot.lost],
        "seconds": round(time.monotonic() - started, 3),
    }


@_answered
def restore(snapshot_id: str) -> dict[str, Any]:
    """Bring back all of one snapshot, and be armed again as its kernel was; a damaged one is not touched.

    Return the `restored` names, sentences about what was `skipped` when it was saved or now, and of these what it holds
    and did not come back (`lost`), `warnings`, where loops go on (`goes_on`), and the `seconds` that it took.
    """
    started, here = time.monotonic(), _recorder()
    _refuse_damage(here, snapshot_id)
    restored = here.restore_between_cells(snapshot_id)
    return {
        "restored": list(restored.names),
        "skipped": [str(skipped) for skipped in restored.skipped],
        "lost": [str(skipped) for skipped in restored.skipped if skipped not in restored.snapshot.skipped],
        "warnings": _warnings(restored),
        "goes_on": progress.sentences(restored.progress),
        "seconds": round(time.monotonic() - started, 3),
    }


def _recorder() -> Recorder:
    shell = get_ipython()
    if shell is None:
        raise RescueError("No IPython runs in this process: it is a kernel that a runner asks.")
    return extension.supervise(shell)


def _refuse_damage(here: Recorder, snapshot_id: str) -> None:
    """A restore by a person takes what is left of a damaged snapshot; cells that go on need all of it."""
    found = here.notebook.find(snapshot_id)[0]
    damage = here.notebook.store().verify(found)
    if damage:
        raise CorruptError(f"Snapshot {found.id[:8]} is damaged, so nothing was restored: {damage[0]}")


def _warnings(restored: Restored) -> list[str]:
    changed = [f"{one.key} was {one.then} and is {one.now} now. {one.advice}".rstrip() for one in restored.differences]
    return [*restored.warnings, *changed]
