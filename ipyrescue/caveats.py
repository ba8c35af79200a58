"""From what was restored to sentences: what came back otherwise than it was, and what to type for another way.

Changes nothing. What could not be restored at all is told beside it, as skipped.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from ipyrescue import environment
from ipyrescue.binding import Journal
from ipyrescue.finding import Scope
from ipyrescue.getting import Got
from ipyrescue.manifest import Group
from ipyrescue.pickling.sources import is_class, source_of
from ipyrescue.redaction import redacted

_SHOWN_DIFFERENCE_LINES = 12


def edited_classes(
    journal: Journal, got: Got, own: Mapping[str, type], class_source: Callable[[str], str | None]
) -> Iterator[str]:
    """Tell of classes that were edited and run again since the snapshot, unless they are kept."""
    for variable in got.snapshot.variables if not journal.is_beside else ():
        live = journal.globals.get(variable.name)
        if variable.source is None or not _is_of_a_cell(live) or variable.name not in got.wanted:
            continue
        now = redacted(source_of(live) or class_source(variable.name) or "")
        if now and now.strip() != variable.source.strip() and variable.name not in own:
            yield _difference(variable.name, variable.source, now)


def strangers(journal: Journal, got: Got, own: Mapping[str, type]) -> Iterator[str]:
    """Tell of names whose class comes from the snapshot without being bound, while there is a live one of its name."""
    groups = got.snapshot.groups
    for group in groups if not journal.is_beside else ():
        classes = {name for position in group.depends for name in groups[position].names} - got.wanted - own.keys()
        live = sorted(name for name in classes if is_class(journal.globals.get(name)))
        wanted = [name for name in got.wanted_names(group) if name in journal.bound]
        if live and wanted:
            yield (
                f"{', '.join(wanted)}: of the snapshot's {', '.join(live)}, which is another class than yours for "
                "isinstance. To use yours: --keep-classes"
            )


def _is_of_a_cell(value: Any) -> bool:
    """Whether *value* is a class that a cell made; that of a library is another in each release of it."""
    return is_class(value) and type.__getattribute__(value, "__module__") == "__main__"


def _difference(name: str, then: str, now: str) -> str:
    lines = [*difflib.unified_diff(then.splitlines(), now.splitlines(), lineterm="", n=1)][2:]
    rest = len(lines) - _SHOWN_DIFFERENCE_LINES
    return "\n".join([
        f"class {name} was edited since the snapshot, and the snapshot's is bound now. To have yours, run its cell "
        "again; to keep yours, also for the instances that come back: --keep-classes. Below, - is the snapshot's and "
        "+ is yours.",
        *lines[:_SHOWN_DIFFERENCE_LINES],
        *([f"... {rest} more lines"] if rest > 0 else []),
    ])  # fmt: skip


def separated(got: Got, in_place: Sequence[str], scope: Scope) -> Iterator[str]:
    """Tell of groups of which a part came back only (--keep-existing, --force), the rest perhaps *in_place*."""
    if in_place:
        yield f"{', '.join(in_place)}: loaded into the live object by load_state_dict, so that what uses it still does."
    for group in got.snapshot.groups:
        wanted = got.wanted_names(group)
        apart = [name for name in wanted if name not in in_place]
        bindable = got.bindable_names(group)
        if group.kind == "data" and apart and len(wanted) < len(bindable):
            others = ", ".join(name for name in bindable if name not in got.wanted)
            fate = "kept" if scope.keep_existing else "not restored"
            yield f"{', '.join(apart)} shared objects with {others}, which was {fate}: they are separate now."


def of_another_python(got: Got, lost: Collection[str]) -> Iterator[str]:
    """Tell how what is *lost* with the classes of another Python can come: with the same classes, made by this one."""
    made_by, here = environment.python(got.snapshot.environment), environment.python(environment.process())
    groups, lost = got.snapshot.groups, set(lost)
    needy = [g for g in groups if g.kind != "class" and lost.intersection(g.names) and _classes(groups, g) & lost]
    if made_by not in (None, here) and needy:
        classes = sorted({name for group in needy for name in _classes(groups, group) & lost})
        names = [name for group in needy for name in got.bindable_names(group)]
        yield (
            f"{', '.join(classes)} cannot come from {made_by} to {here}, what belongs to them can. Run their cells, "
            f"then: %restore_vars {' '.join(names)} from={got.snapshot.id[:8]} --keep-classes"
        )


def _classes(groups: Sequence[Group], group: Group) -> set[str]:
    """The names of the classes that a group needs."""
    return {name for position in group.depends if groups[position].kind == "class" for name in groups[position].names}
