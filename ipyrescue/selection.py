"""Which names a snapshot holds: those that the user made, without secrets and what was excluded.

The first stage of a checkpoint. Knows names, values and patterns; no bytes, no IPython.
"""

from __future__ import annotations

import fnmatch
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ipyrescue.manifest import Import, Settings, Skipped
from ipyrescue.wording import type_name

_IPYTHON_NAME = re.compile(r"_|__|___|_i{1,3}|_i?\d+|_[dios]h|_exit_code|__\w+__|In|Out|exit|quit|get_ipython")
_SECRET_NAME = re.compile(
    r"(?i)(^|_)(passw(or)?d|passphrase|secret|token|api_?key|access_?key|private_?key|credentials?)(_|$)"
)
_SECRET_VALUE = re.compile(
    r"sk-[\w-]{16,}|gh[pousr]_\w{20,}|hf_\w{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|\w{1,20}://[^/\s:@]+:[^/\s:@]+@|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
)


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
    """Why and where in the program a snapshot is taken."""

    trigger: str = "command"
    cut: str = "cell_end"
    reason: str | None = None
    label: str | None = None


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
    """Choose the names that the user made; modules become imports, secrets and excluded names are Skipped."""
    mine = made_by_user(namespace, origin.hidden)
    tagged = expand(settings.tagged, mine)
    wanted = {name: value for name, value in mine.items() if not settings.only or name in tagged}
    values, imports, skipped = {}, [], [*_missing(settings.tagged, mine)]
    for name, value in wanted.items():
        reason = _reason_to_leave_out(name, value, tagged, settings)
        if reason:
            skipped.append(Skipped(name, type_name(value), reason, origin.cells.get(name)))
        elif _is_imported(value):
            imports.append(Import(name, value.__name__))
        else:
            values[name] = value
    return Selection(sequence, origin, occasion, settings, namespace, values, tuple(imports), tuple(skipped), tagged)


def made_by_user(namespace: Mapping[str, Any], hidden: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a namespace that the user made: not IPython's own names."""
    return {name: value for name, value in list(namespace.items()) if _is_users(name, value, hidden)}


def _is_imported(value: Any) -> bool:
    """Whether *value* is a module that an import brings back; one that a cell made is a value like others."""
    return issubclass(type(value), types.ModuleType) and sys.modules.get(vars(value).get("__name__")) is value


def _is_users(name: str, value: Any, hidden: Mapping[str, Any]) -> bool:
    if name in hidden and hidden[name] is value:
        return False
    return not _IPYTHON_NAME.fullmatch(name)


def expand(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The names that the tagged names and globs mean, in the order of *patterns*."""
    known = list(names)
    found = [name for pattern in patterns for name in fnmatch.filter(known, pattern)]
    return tuple(dict.fromkeys(found))


def _missing(tagged: Iterable[str], names: Mapping[str, Any]) -> Iterator[Skipped]:
    for name in tagged:
        if not re.search(r"[*?\[]", name) and name not in names:
            yield Skipped(name, "", "tagged, but not in the namespace")


def _reason_to_leave_out(name: str, value: Any, tagged: tuple[str, ...], settings: Settings) -> str | None:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.exclude):
        return "excluded by -x"
    if name in settings.allow or name in tagged or not issubclass(type(value), (str, bytes)):
        return None
    text = value.decode("latin-1") if issubclass(type(value), bytes) else str(value)
    if _SECRET_NAME.search(name) or _SECRET_VALUE.search(text[:4096]):
        return f"looks like a secret; save it with --allow {name}"
    return None


def shows_a_secret(text: str) -> bool:
    """Whether a line of code or an error's message spells a secret out: what is not saved is not noted either."""
    quotes = "'" in text or '"' in text
    return bool(_SECRET_VALUE.search(text) or (quotes and any(map(_SECRET_NAME.search, re.findall(r"\w+", text)))))


_REDACTED = "[redacted]"
_SECRET_TEXT = re.compile(
    rf"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)|{_SECRET_VALUE.pattern}", re.DOTALL
)
_LITERAL = re.compile(
    r"""(?P<before>\b(?P<name>\w+)["']?\]?\s*(?::\s*\w+\s*)?[:=]\s*[rbfuRBFU]{0,2})"""
    r"""(?P<quote>\"\"\"|'''|"|')(?P<text>.{1,4096}?)(?P=quote)""",
    re.DOTALL,
)
_COMMAND = re.compile(r"^[ \t]*[%!].*", re.MULTILINE)
_COMMAND_WORD = re.compile(
    r"(?P<before>\b(?P<name>(?=\w*(?i:passw|passphrase|secret|token|key|credential))\w+)[= ])"
    r"(?P<text>[^\s'\"(){}$=]+)"
)


def redacted(source: str) -> str:
    """The text of a cell without its credentials, which are known by what they look like or by the name they get."""

    def hide(found: re.Match[str]) -> str:
        if not _SECRET_NAME.search(found["name"]):
            return found[0]
        quote = found.groupdict().get("quote", "")
        return f"{found['before']}{quote}{_REDACTED}{quote}"

    shown = _LITERAL.sub(hide, _SECRET_TEXT.sub(_REDACTED, source))
    return _COMMAND.sub(lambda line: _COMMAND_WORD.sub(hide, line[0]), shown)
