"""Which names a snapshot holds: those that the user made, without secrets and what was excluded.

The first stage of a checkpoint. Knows names, values and patterns; no bytes, no IPython.
"""

from __future__ import annotations

import fnmatch
import re
import sys
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ipyrescue import cells
from ipyrescue.credentials import is_credential
from ipyrescue.manifest import PROGRESS, Import, Settings, Skipped, local_name
from ipyrescue.stack import Running
from ipyrescue.trained import Trained
from ipyrescue.wording import type_name

_IPYTHON_NAME = re.compile(r"_|__|___|_i{1,3}|_i?\d+|_[dios]h|_exit_code|__\w+__|In|Out|exit|quit|get_ipython")

EXCLUDED = "excluded by -x"
"""Why a name is left out that the user wanted left out."""


@dataclass(frozen=True)
class Origin:
    """Which notebook and kernel process a snapshot comes from, and what the kernel knows about its names.

    *hidden* are names with the values that IPython itself put there; *cells* maps a name to the execution count
    of the cell that bound it; *history* are all the cells that were run, as `ipyrescue.cells` writes them; *session* is
    what only a kernel knows of the session, for its fingerprint (see `ipyrescue.environment`).
    """

    notebook: str
    incarnation: str
    host: str
    hidden: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    cell: int | None = None
    history: bytes = b""
    session: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Occasion:
    """Why and where in the program a snapshot is taken.

    *frames* are the functions that run there, *progress* is what the loops of the session are at; both are saved beside
    the variables, under pseudo-names. *trained* is what optimizers are at work on there.
    """

    trigger: str = "command"
    cut: str = "cell_end"
    reason: str | None = None
    traceback: str | None = None
    label: str | None = None
    frames: tuple[Running, ...] = ()
    progress: Mapping[str, Any] = field(default_factory=dict)
    trained: tuple[Trained, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The names that a snapshot will hold, those that it will not, and its place in the order of snapshots."""

    sequence: int
    origin: Origin
    occasion: Occasion
    settings: Settings
    namespace: dict[str, Any]
    values: Mapping[str, Any]
    imports: tuple[Import, ...]
    skipped: tuple[Skipped, ...]
    tagged: tuple[str, ...]


def select(
    namespace: dict[str, Any], sequence: int, origin: Origin, occasion: Occasion, settings: Settings
) -> Selection:
    """Choose the names that the user made; modules become imports, secrets and excluded names are Skipped.

    Locals of running functions obey the rules for their own names, and come with them, but for globs that tag.
    """
    mine, taken = _without_taken(made_by_user(namespace, origin.hidden), occasion.frames)
    local = list(_locals(occasion.frames))
    tagged = (*expand(settings.tagged, mine), *_tagged_locals(settings.tagged, local))
    values, imports = {}, []
    skipped = [*_missing(settings.tagged, {*mine, *(c.own_name for c in local)}), *_nameless(namespace), *taken]
    for candidate in (*(_Candidate(name, name, value) for name, value in mine.items()), *local):
        name, value = candidate.name, candidate.value
        if settings.only and name not in tagged:
            continue
        reason = _reason_to_leave_out(candidate.own_name, value, settings)
        if reason:
            skipped.append(Skipped(name, type_name(value), reason, origin.cells.get(name)))
        elif name in mine and (module := _imported(value)) is not None:
            imports.append(Import(name, module))
        else:
            values[name] = value
    if occasion.progress:
        values[PROGRESS] = dict(occasion.progress)
    # A variable of that name is what was meant.
    tagged = tuple(name for name in tagged if name in mine or local_name(name) not in mine)
    # What a pattern means is what is left; who types a name whole means that very one.
    left_out = {s.name for s in skipped} - set(settings.tagged)
    tagged = tuple(name for name in tagged if name not in left_out)
    return Selection(
        sequence,
        origin,
        occasion,
        settings,
        namespace,
        values,
        tuple(_with_submodules(imports, origin.history)),
        tuple(skipped),
        tagged,
    )


class _Candidate(NamedTuple):
    """What may be saved under *name*; of a local that is its pseudo-name, *own_name* is what its function calls it."""

    name: str
    own_name: str
    value: Any


def _locals(frames: Iterable[Running]) -> Iterator[_Candidate]:
    for frame in frames:
        for name, value in frame.locals.items():
            yield _Candidate(frame.pseudo_name(name), name, value)


def _tagged_locals(tagged: Iterable[str], local: Iterable[_Candidate]) -> Iterator[str]:
    """The locals whose very names are tagged: a glob means variables."""
    return (candidate.name for candidate in local if candidate.own_name in tagged)


def _without_taken(mine: dict[str, Any], frames: Sequence[Running]) -> tuple[dict[str, Any], list[Skipped]]:
    """The namespace without what `globals()["train().step"] = 1` made, which a snapshot could not tell from a local."""
    pseudo_names = {PROGRESS, *(candidate.name for candidate in _locals(frames))}
    taken = [
        Skipped(name, type_name(value), "ipyrescue saves something else under this name")
        for name, value in mine.items()
        if name in pseudo_names
    ]
    return {name: value for name, value in mine.items() if name not in pseudo_names}, taken


def made_by_user(namespace: Mapping[str, Any], hidden: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a namespace that the user made: not IPython's own names."""
    return {name: value for name, value in list(namespace.items()) if _is_users(name, value, hidden)}


def _imported(value: Any) -> str | None:
    """The name of a module that an import brings back; one that a cell made is a value like others.

    A module of a class of its own, as lazy ones are, is not asked for anything.
    """
    if not issubclass(type(value), types.ModuleType):
        return None
    held: dict[str, Any] = vars(types.ModuleType)["__dict__"].__get__(value)
    name = held.get("__name__")
    return name if type(name) is str and sys.modules.get(name) is value else None


def _with_submodules(imports: list[Import], history: bytes) -> Iterator[Import]:
    """Note which submodules of a package cells imported: the import of the package alone may not load them."""
    asked_for = cells.imported(cells.from_bytes(history)) if imports else ()
    for wanted in imports:
        below = (name for name in asked_for if name.startswith(f"{wanted.module}.") and _is_reachable(name))
        yield replace(wanted, submodules=tuple(sorted(below)))


def _is_reachable(dotted: str) -> bool:
    """Whether a module of that name is loaded, and hangs on its packages; no `__getattr__` of theirs is called."""
    package, _, name = dotted.rpartition(".")
    module = sys.modules.get(dotted)
    if not package or module is None:
        return module is not None
    above = sys.modules.get(package)
    hangs = issubclass(type(above), types.ModuleType) and vars(above).get(name) is module
    return hangs and _is_reachable(package)


def _is_users(name: Any, value: Any, hidden: Mapping[str, Any]) -> bool:
    if not _is_name(name):
        return False
    if name in hidden and hidden[name] is value:
        return False
    return not _IPYTHON_NAME.fullmatch(name)


def _is_name(key: Any) -> bool:
    """Whether *key* can be a variable's: `globals()[5] = 1` makes one that cannot."""
    return issubclass(type(key), str)


def _nameless(namespace: Mapping[Any, Any]) -> Iterator[Skipped]:
    for key, value in list(namespace.items()):
        if not _is_name(key):
            yield Skipped(f"a key of type {type_name(key)}", type_name(value), "not a text, so no variable")


def expand(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The names that the tagged names and globs mean, in the order of *patterns*."""
    known = list(names)
    found = [name for pattern in patterns for name in fnmatch.filter(known, pattern)]
    return tuple(dict.fromkeys(found))


def _missing(tagged: Iterable[str], names: Collection[str]) -> Iterator[Skipped]:
    for name in tagged:
        if not re.search(r"[*?\[]", name) and name not in names:
            yield Skipped(name, "", "tagged, but not in the namespace")


def _reason_to_leave_out(name: str, value: Any, settings: Settings) -> str | None:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.exclude):
        return EXCLUDED
    if name not in settings.allow and name not in settings.tagged and is_credential(name, value):
        return f"looks like a secret; save it with --allow {name}"
    return None
