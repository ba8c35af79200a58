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


def keeper_out(fence: Fence | None) -> Callable[[Any], None]:
    """What to do in this process when an object is met whose code is unknown: with a fence, keep it out of here."""

    def keep_out(value: Any) -> None:
        if fence is not None:
            refuse_denied(fence, value)
            raise SetAside

    return keep_out


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
    work.unknown = partial(_mark, work, fence, marks, {root: position for position, root in enumerate(pending)})
    work.frozen.copies.in_child = True
    taken = work.frozen.copies.taken()
    try:
        pickle_alone(work, pending)
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


def _mark(work: Work, fence: Fence, marks: Marks, positions: dict[Root, int], value: Any) -> None:
    refuse_denied(fence, value)
    position = next((positions[root] for root in work.touched if root in positions), -1)
    marks.leave(position, id(value), type_name(value))


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
    work.unknown = partial(refuse_denied, fence)
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
