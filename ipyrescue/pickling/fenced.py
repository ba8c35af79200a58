"""The rest of an encoding in a child: objects that sleep, crash, exit or change themselves cost themselves only.

Turns what was set aside into groups, by a fence that knows how to have a child. The child sees this process as it is,
goes on where it stands, and hands over all groups: nothing that it met is ever tried here. When it dies, its last mark
tells of what; that is refused, and the next child goes on.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from ipyrescue.errors import CheckpointError
from ipyrescue.pickling.buffers import OnDevice, overlapping
from ipyrescue.pickling.roots import Denied, Root, SetAside, Work, pickle_alone
from ipyrescue.wording import type_name

_MOST_DEATHS = 6
_DENIED_ITS_KIND = 2


class Marks(Protocol):
    """What a child is at; see `ipyrescue.capture.fence`."""

    def leave(self, position: int, identity: int = 0, kind: str = "") -> None:
        """Note what comes next, before it is touched."""


class Ended(Protocol):
    """How a child ended that handed nothing over, and what it had marked last."""

    how: str
    position: int
    identity: int
    kind: str


class Fence(Protocol):
    """Runs functions in children, and remembers by (type name, identity) what must not be tried again, and why."""

    denied: dict[tuple[str, int], str]

    def run(self, work: Callable[[Any], Sequence[Any]]) -> Any:
        """Return the buffers that *work* handed over in a child, or how the child `Ended`. Raises `OSError`."""


class Onlooker:
    """Lets everything happen here: there are no children to be had."""

    may_set_aside = False

    def begin(self, roots: Sequence[Root]) -> None:
        """Nothing."""

    def unknown(self, value: Any) -> None:
        """Nothing."""


class Refuser(Onlooker):
    """Lets everything happen here but what ended a child before."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    def unknown(self, value: Any) -> None:
        """Raise `Denied` for what must not be tried again."""
        refuse_denied(self._fence, value)


class Guard(Refuser):
    """Keeps code of unknown manners out of this process."""

    may_set_aside = True

    def unknown(self, value: Any) -> None:
        """Raise `Denied` or `SetAside`."""
        super().unknown(value)
        raise SetAside


class Marker(Refuser):
    """Leaves marks in a child: which of the roots that were set aside is pickled, and what unknown code takes apart."""

    def __init__(self, fence: Fence, marks: Marks, set_aside: Sequence[Root]) -> None:
        super().__init__(fence)
        self._marks = marks
        self._positions = {root: position for position, root in enumerate(set_aside)}
        self._position = -1

    def begin(self, roots: Sequence[Root]) -> None:
        """Mark the first of *roots* that was set aside, if any was."""
        self._position = next((self._positions[root] for root in roots if root in self._positions), -1)
        self._marks.leave(self._position)

    def unknown(self, value: Any) -> None:
        """Mark the object, unless it is denied."""
        super().unknown(value)
        self._marks.leave(self._position, id(value), type_name(value))


def refuse_denied(fence: Fence, value: Any) -> None:
    """Raise `Denied` for what ended a child before, and for all of its kind when two of them did."""
    kind = type_name(value)
    of_its_kind = [how for (name, _), how in fence.denied.items() if name == kind]
    how = fence.denied.get((kind, id(value)), of_its_kind[0] if len(of_its_kind) >= _DENIED_ITS_KIND else None)
    if how is not None:
        raise Denied(kind, how)


def encode(work: Work, fence: Fence, finish: Callable[[Work], Any]) -> Any:
    """Go on in children until one of them comes to the end; *finish* makes groups of what was pickled."""
    _copy_known_memory(work)
    blamed: set[Root] = set()
    for _ in range(_MOST_DEATHS):
        try:
            outcome = fence.run(partial(_in_child, work, fence, finish))
        except OSError:
            return _finish_here(work, fence, finish)
        if isinstance(outcome, list):
            return _received(work, fence, outcome, finish)
        _blame(work, fence, outcome, blamed)
        if not work.set_aside:
            break
    for root in work.set_aside:
        work.refused[root] = "not tried: too many objects beside it end the process that pickles them"
    return finish(work)


def _copy_known_memory(work: Work) -> None:
    """Copy here what the child's streams will mostly refer to, so that its bytes need not be handed over."""
    references = [r for pickler in work.alone.values() for r in pickler.references.ranges()]
    for cluster in overlapping(references):
        work.frozen.copies.take_cluster(cluster)


# --- the child --------------------------------------------------------------------------------------------------


def _in_child(work: Work, fence: Fence, finish: Callable[[Work], Any], marks: Marks) -> list[Any]:
    """Pickle what was set aside and all that follows; hand over the outcome, then the copies that were taken here."""
    pending = work.set_aside
    work.watch = Marker(fence, marks, pending)
    work.frozen.copies.in_child = True
    taken = work.frozen.copies.taken()
    try:
        pickle_alone(work, pending)
        work.watch.begin(())
        encoded = finish(work)
    except OnDevice:
        refused = {position: work.refused[root] for position, root in enumerate(pending) if root in work.refused}
        return [pickle.dumps(("here", refused))]
    except CheckpointError as error:
        return [pickle.dumps(("raised", str(error)))]
    sent: list[Any] = []
    origins = [[taken.get(id(b)) or _send(b, sent) for b in group.buffers] for group in encoded.groups]
    bare = replace(encoded, groups=tuple(replace(group, buffers=()) for group in encoded.groups))
    return [pickle.dumps(("encoded", (bare, origins)), 5), *sent]


def _send(buffer: Any, sent: list[Any]) -> int:
    sent.append(buffer)
    return len(sent)


# --- this process -----------------------------------------------------------------------------------------------


def _received(work: Work, fence: Fence, parts: list[Any], finish: Callable[[Work], Any]) -> Any:
    """What the child handed over; its own memory is known to it alone, so copies come by range or behind."""
    outcome, said = pickle.loads(parts[0])
    if outcome == "raised":
        raise CheckpointError(said)
    if outcome == "here":
        work.refused.update({work.set_aside[position]: reason for position, reason in said.items()})
        return _finish_here(work, fence, finish)
    bare, origins = said
    copies = work.frozen.copies
    buffers = [tuple(parts[o] if isinstance(o, int) else copies.at(o) for o in group) for group in origins]
    groups = zip(bare.groups, buffers, strict=True)
    return replace(bare, groups=tuple(replace(group, buffers=own) for group, own in groups))


def _finish_here(work: Work, fence: Fence, finish: Callable[[Work], Any]) -> Any:
    """Where there is no child to be had, or it came through and memory of a device was left to this process."""
    work.watch = Refuser(fence)
    pickle_alone(work, [root for root in work.set_aside if root not in work.refused])
    return finish(work)


def _blame(work: Work, fence: Fence, ended: Ended, blamed: set[Root]) -> None:
    """Refuse what the child's last mark tells of: the object, and its root where that was not enough."""
    roots = work.set_aside[ended.position : ended.position + 1] if ended.position >= 0 else list(work.set_aside)
    known = (ended.kind, ended.identity) in fence.denied
    if ended.kind:
        fence.denied[ended.kind, ended.identity] = ended.how
    for root in roots:
        if not ended.kind or known or root in blamed:
            work.refused[root] = str(Denied(type_name(root.value), ended.how))
            work.set_aside.remove(root)
    blamed.update(roots)
