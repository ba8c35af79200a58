"""The rest of an encoding in a child: objects that sleep, crash, exit or change themselves cost themselves only.

Turns what was set aside into groups, by a fence that knows how to have a child. The child sees this process as it is,
goes on where it stands, and hands over all groups: nothing that it met is ever tried here. When it dies, its last mark
tells of what, or the half of what was set aside is tried; that is refused, and the next child goes on.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from ipyrescue.errors import CheckpointError
from ipyrescue.pickling.buffers import OnDevice, overlapping
from ipyrescue.pickling.roots import Denied, Root, SetAside, Work, pickle_alone
from ipyrescue.wording import type_name

_MOST_DEATHS = 12
_MOST_HANGS = 4
_DENIED_ITS_KIND = 2
_DENIED_SECONDS = 600.0


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
    """Runs functions in children, and remembers by kind and identity what ended them: how, and when."""

    denied: dict[tuple[str, int], tuple[str, float]]

    def run(self, work: Callable[[Any], Sequence[Any]]) -> Any:
        """Return the buffers that *work* handed over in a child, or how the child `Ended`. Raises `OSError`."""


# --- what is denied, and who watches ----------------------------------------------------------------------------


def kind_of(value: Any) -> str:
    """The name by which a kind is denied: of this very type, so that a class that was run again has a chance."""
    return f"{type_name(value)} at {id(type(value)):x}"


def forgive(fence: Fence) -> None:
    """Forget what ended a child a while ago: a lock that was held then may be free now."""
    recent = time.monotonic() - _DENIED_SECONDS
    fence.denied = {key: (how, when) for key, (how, when) in fence.denied.items() if when > recent}


def refuse_denied(fence: Fence, value: Any) -> None:
    """Raise `Denied` for what ended a child, and for all of its kind when two of them did."""
    if not fence.denied:
        return
    kind = kind_of(value)
    of_its_kind = [denied for (name, _), denied in fence.denied.items() if name == kind]
    denied = fence.denied.get((kind, id(value)))
    if denied is None and len(of_its_kind) >= _DENIED_ITS_KIND:
        denied = of_its_kind[0]
    if denied is not None:
        raise Denied(type_name(value), denied[0])


def _as_a_whole(root: Root) -> tuple[str, int]:
    """The key under which a variable is denied, where no object in it can be blamed."""
    return f"variable {' '.join(root.names)}", id(root.value)


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
    """Keeps code of unknown manners out of this process, and what ended a child a short while ago out of the next."""

    may_set_aside = True

    def __init__(self, fence: Fence) -> None:
        super().__init__(fence)
        forgive(fence)

    def begin(self, roots: Sequence[Root]) -> None:
        """Raise `Denied` for a variable that must not be tried again."""
        for root in roots if self._fence.denied else ():
            denied = self._fence.denied.get(_as_a_whole(root))
            if denied is not None:
                raise Denied(type_name(root.value), denied[0])

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
        self._marks.leave(self._position, id(value), kind_of(value))


# --- children, one after the other ------------------------------------------------------------------------------


def encode(work: Work, fence: Fence, finish: Callable[[Work], Any]) -> Any:
    """Go on in children until one of them comes to the end; *finish* makes groups of what was pickled."""
    _copy_known_memory(work)
    trial = _Trial(work, fence, finish)
    try:
        while work.set_aside and trial.goes_on:
            outcome = trial.run(work.set_aside)
            if isinstance(outcome, _Heard):
                return _received(work, fence, outcome, finish)
            trial.blame(outcome)
    except OSError:
        return _finish_here(work, fence, finish)
    for root in work.set_aside:
        work.refused[root] = "not tried: too much beside it ends the process that pickles it"
    return finish(work)


@dataclass(frozen=True)
class _Heard:
    """What a child said when it came to its end, and the parts that it handed over, of which the first said it."""

    outcome: str
    said: Any
    parts: list[Any]


@dataclass
class _Trial:
    """What children have shown so far: how many died or hung, and which roots were blamed once."""

    work: Work
    fence: Fence
    finish: Callable[[Work], Any]
    deaths: int = 0
    hangs: int = 0
    blamed: set[Root] = field(default_factory=set)

    @property
    def goes_on(self) -> bool:
        """Whether the next child is worth its time."""
        return self.deaths < _MOST_DEATHS and self.hangs < _MOST_HANGS

    def run(self, roots: Sequence[Root]) -> Any:
        """Have a child that goes on with *roots* of what was set aside; return what it handed over, or how it ended."""
        outcome = self.fence.run(partial(_in_child, self.work, roots, self.fence, self.finish))
        if isinstance(outcome, list):
            try:
                said = _Plain(io.BytesIO(outcome[0])).load()
                heard = _Heard(said[0], said[1], outcome)
            except Exception:  # noqa: BLE001 - whatever it is, it is not what was asked for
                outcome = _Spoke()
            else:
                return heard
        self.deaths += 1
        if outcome.how.startswith("did not end"):
            self.hangs += 1 if outcome.position >= 0 else 2  # one that left no mark was waited for longer
        return outcome

    def blame(self, ended: Ended) -> None:
        """Deny what the child's last mark tells of: the object, or its root where that was not enough."""
        if ended.position < 0:
            self._refuse(self._culprits(self.work.set_aside), ended.how)
            return
        root, key = self.work.set_aside[ended.position], (ended.kind, ended.identity)
        if not ended.kind or key in self.fence.denied or root in self.blamed:
            self._refuse([root], ended.how)
        else:
            self.fence.denied[key] = ended.how, time.monotonic()
        self.blamed.add(root)

    def _culprits(self, roots: Sequence[Root]) -> list[Root]:
        """Halve what nothing in particular is to blame for, until single roots are found without which all is well."""
        if len(roots) <= 1 or not self.goes_on:
            return list(roots)
        halves = roots[: len(roots) // 2], roots[len(roots) // 2 :]
        guilty = [half for half in halves if not isinstance(self.run(half), _Heard)]
        return [root for half in guilty for root in self._culprits(half)] or list(roots)

    def _refuse(self, roots: Iterable[Root], how: str) -> None:
        for root in roots:
            self.fence.denied[_as_a_whole(root)] = how, time.monotonic()
            self.work.refused[root] = str(Denied(type_name(root.value), how))
            self.work.set_aside.remove(root)


def _copy_known_memory(work: Work) -> None:
    """Copy here what the child's streams will mostly refer to, so that its bytes need not be handed over."""
    references = [r for pickler in work.alone.values() for r in pickler.references.ranges()]
    for cluster in overlapping(references):
        work.frozen.copies.take_cluster(cluster)


# --- the child --------------------------------------------------------------------------------------------------


def _in_child(
    work: Work, roots: Sequence[Root], fence: Fence, finish: Callable[[Work], Any], marks: Marks
) -> list[Any]:
    """Pickle *roots* of what was set aside and all that follows; hand over the outcome, then copies taken here."""
    work.watch, work.set_aside = Marker(fence, marks, roots), []
    work.frozen.copies.in_child = True
    taken = work.frozen.copies.taken()
    try:
        pickle_alone(work, list(roots))
        work.watch.begin(())
        encoded = finish(work)
    except OnDevice:
        refused = {position: work.refused[root] for position, root in enumerate(roots) if root in work.refused}
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


class _Plain(pickle.Unpickler):
    """Reads what a child says, in which code of the user ran: names of ours, and nothing that could run theirs."""

    def find_class(self, module: str, name: str) -> Any:
        """Find the classes of a manifest's parts only."""
        if module not in ("ipyrescue.manifest", "ipyrescue.pickling.encode"):
            raise pickle.UnpicklingError(f"{module}.{name} is nothing that a child hands over")
        return super().find_class(module, name)


@dataclass(frozen=True)
class _Spoke:
    """A child that came to its end, and yet nothing of it can be used."""

    how: str = "hands over what is not plain"
    position: int = -1
    identity: int = 0
    kind: str = ""


def _received(work: Work, fence: Fence, heard: _Heard, finish: Callable[[Work], Any]) -> Any:
    """What the child handed over; its own memory is known to it alone, so copies come by range or behind."""
    if heard.outcome == "raised":
        raise CheckpointError(heard.said)
    if heard.outcome == "here":
        work.refused.update({work.set_aside[position]: reason for position, reason in heard.said.items()})
        return _finish_here(work, fence, finish)
    bare, origins = heard.said
    copies = work.frozen.copies
    buffers = [tuple(heard.parts[o] if isinstance(o, int) else copies.at(o) for o in group) for group in origins]
    groups = zip(bare.groups, buffers, strict=True)
    return replace(bare, groups=tuple(replace(group, buffers=own) for group, own in groups))


def _finish_here(work: Work, fence: Fence, finish: Callable[[Work], Any]) -> Any:
    """Where there is no child to be had, or it came through and memory of a device was left to this process."""
    work.watch = Refuser(fence)
    pickle_alone(work, [root for root in work.set_aside if root not in work.refused])
    return finish(work)
