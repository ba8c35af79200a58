"""What a user may turn: texts from arguments, environment and configuration into typed values.

Every knob stands once, as a field of `Configuration`: its default, its unit (in the name), how it is read and what
it means. The environment variable and the name in `c.IPyRescue` follow from the field's name. Also the one home of
durations, sizes and ages as people write and read them. Knows no IPython and no traitlets, opens no file.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipyrescue.errors import RescueError

_DURATION = re.compile(
    r"(?:(?P<d>[\d.]+)d)?(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m(?:in)?)?(?:(?P<s>[\d.]+)s(?:ec)?)?", re.ASCII
)
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_SIZE = re.compile(r"(?P<number>[\d.]+) ?(?P<unit>[kmgtp]?)(?P<binary>i?)b?", re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_SHARE = re.compile(r"(?P<number>[\d.]+) ?(?P<percent>%?)", re.ASCII)


WRITERS = ("auto", "process", "thread")
"""Who may write snapshots beside the cell; `auto` takes a process where there can be one."""

POLICIES = ("offer", "restore", "never")
"""What a new kernel does when the last one died: offer its snapshot, restore it before the first cell, or nothing."""


def parse_duration(text: str) -> float:
    """Turn `30s`, `5m`, `1h30m`, `2d` or a bare number of seconds into seconds; raise `ValueError` for the rest."""
    spelled = text.strip().lower()
    if _NUMBER.fullmatch(spelled):
        spelled += "s"
    match = _DURATION.fullmatch(spelled)
    parts = {unit: number for unit, number in match.groupdict().items() if number} if match else {}
    if not parts or not all(_NUMBER.fullmatch(number) for number in parts.values()):
        raise ValueError(f"`{text}` is no duration. Write it like 30s, 5m, 1h30m or 2d.")
    seconds = sum(float(number) * _SECONDS[unit] for unit, number in parts.items())
    if not 0 < seconds < math.inf:
        raise ValueError(f"`{text}` is no usable duration: it must be above zero. Write it like 30s, 5m, 1h30m or 2d.")
    return seconds


def parse_period(text: str) -> float | None:
    """Turn `1d` into seconds and `off` into None; raise `ValueError` for the rest."""
    return None if text.strip().lower() == "off" else parse_duration(text)


def parse_size(text: str) -> int:
    """Turn `500MB` (10^6), `2GiB` (2^30), `1.5G` or a bare number into bytes; raise `ValueError` for the rest."""
    match = _SIZE.fullmatch(text.strip().lower())
    if not match or not _NUMBER.fullmatch(match["number"]) or (match["binary"] and not match["unit"]):
        raise ValueError(f"`{text}` is no size. Write it like 500MB, 2GiB or 1.5G.")
    base = 1024 if match["binary"] else 1000
    size = float(match["number"]) * base ** _POWERS[match["unit"]]
    if not 1 <= size < 1 << 63:
        raise ValueError(f"`{text}` is no usable size: it must be above zero. Write it like 500MB, 2GiB or 1.5G.")
    return int(size)


def parse_count(text: str) -> int:
    """Turn `10` into 10; raise `ValueError` for anything but a whole number above zero."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or int(text) < 1:
        raise ValueError(f"`{text}` is no count. Write a whole number above zero, like 10.")
    return int(text)


def parse_share(text: str) -> float:
    """Turn `1%` or `0.01` into 0.01; raise `ValueError` for the rest, and for 1, which may be meant as either."""
    match = _SHARE.fullmatch(text.strip())
    if not match or not _NUMBER.fullmatch(match["number"]):
        raise ValueError(f"`{text}` is no share. Write it like 1% or 0.01.")
    share = float(match["number"]) / (100 if match["percent"] else 1)
    if not 0 < share <= 1 or (share == 1 and not match["percent"]):
        raise ValueError(f"`{text}` is no usable share: it must be above zero, at most 100%. Write it like 1% or 0.01.")
    return share


def parse_policy(text: str) -> str:
    """Take one of the words that say what happens after a death; raise `ValueError` for the rest."""
    word = text.strip().lower()
    if word not in POLICIES:
        raise ValueError(f"`{text}` is no policy. Write one of {', '.join(POLICIES)}.")
    return word


def parse_writer(text: str) -> str:
    """Take one of the words that say who writes; raise `ValueError` for the rest."""
    word = text.strip().lower()
    if word not in WRITERS:
        raise ValueError(f"`{text}` is no writer. Write one of {', '.join(WRITERS)}.")
    return word


def parse_path(text: str) -> Path:
    """Turn a path as a user writes it into a `Path`, `~` expanded; raise `ValueError` where that is impossible."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"`{text}` is no usable path: {error}") from error


def parse_fixed_path(text: str) -> Path:
    """The same for what must stay where it is, wherever the program goes: a relative one is of where it started."""
    return Path(_STARTED_IN) / parse_path(text)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


_STARTED_IN = _working_directory()


def format_duration(seconds: float) -> str:
    """Say how long, for people: `18 ms`, `0.21 s`, `42 s`, `5 min`, `1 min 30 s`, `3 h 12 min`, `2 d`."""
    if seconds < 0.0995:
        return f"{max(seconds, 0.0) * 1e3:.2g} ms"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    return _largest_two(round(seconds), (" d", " h", " min", " s"), between=" ")


def spell_duration(seconds: float) -> str:
    """Write a duration the way an argument takes it: `5m`, `1h30m`. `parse_duration` turns it back."""
    if seconds != int(seconds) or seconds < 1:
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    return _all_parts(int(seconds), ("d", "h", "m", "s"))


def format_size(size_bytes: int) -> str:
    """Say how many bytes, for people, in powers of ten: `812 B`, `41 MB`, `1.3 GB`."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value, units = size_bytes / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    unit = units[0]
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def format_age(seconds: float) -> str:
    """Say how long ago, for people: `just now`, `42 s ago`, `3 min ago`; a clock that went back is named."""
    if seconds < -60:
        return f"{_largest(round(-seconds))} ahead of this clock"
    return "just now" if seconds < 3 else f"{_largest(round(seconds))} ago"


def coarse_age(seconds: float) -> str:
    """Say how long ago in steps that are worth a redrawing: `less than 1 min ago`, `4 min ago`, `25 min ago`."""
    if -60 <= seconds < 60:
        return "less than 1 min ago"
    steps = ((60, 300), (300, 3600), (3600, 86_400))
    step = next((step for step, end in steps if seconds < end), 86_400)
    return format_age(seconds - seconds % step if seconds > 0 else seconds)


def _split(seconds: int) -> tuple[int, int, int, int]:
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return hours // 24, hours % 24, minute, second


def _all_parts(seconds: int, units: tuple[str, str, str, str], *, between: str = "") -> str:
    return between.join(f"{number}{unit}" for number, unit in zip(_split(seconds), units, strict=True) if number)


def _largest_two(seconds: int, units: tuple[str, str, str, str], *, between: str) -> str:
    parts = list(_split(seconds))
    first = next(i for i, number in enumerate(parts) if number)
    kept = [number if first <= i <= first + 1 else 0 for i, number in enumerate(parts)]
    return between.join(f"{number}{unit}" for number, unit in zip(kept, units, strict=True) if number)


def _largest(seconds: int) -> str:
    units = (" d", " h", " min", " s")
    return next(f"{number}{unit}" for number, unit in zip(_split(seconds), units, strict=True) if number)


def _knob(parse: Callable[[str], Any], help: str) -> dict[str, Any]:
    return {"parse": parse, "help": help}


@dataclass(frozen=True)
class Configuration:
    """What holds where a magic's argument says nothing. This is the table of every knob."""

    store: Path | None = field(
        default=None, metadata=_knob(parse_path, "where snapshots go; when not set, .ipyrescue/ beside the notebook")
    )
    key_file: Path | None = field(
        default=None,
        metadata=_knob(parse_fixed_path, "the signing key; when not set, <jupyter data dir>/ipyrescue/key"),
    )
    keep: int = field(default=10, metadata=_knob(parse_count, "how many of the last snapshots stay"))
    max_size_bytes: int | None = field(
        default=None, metadata=_knob(parse_size, "how large the store may grow; when not set, half of the free disk")
    )
    long_cell_seconds: float = field(
        default=60.0, metadata=_knob(parse_duration, "a cell that ran this long is followed by a snapshot")
    )
    max_share: float = field(
        default=0.01,
        metadata=_knob(parse_share, "the most of run time that snapshots may take before they become rarer"),
    )
    pickle_deadline_seconds: float = field(
        default=10.0,
        metadata=_knob(parse_duration, "an object whose own code takes longer to hand itself over is left out"),
    )
    autostart_seconds: float | None = field(
        default=None, metadata=_knob(parse_duration, "arm with this interval when loaded; when not set, save nothing")
    )
    scrub_seconds: float | None = field(
        default=86_400.0,
        metadata=_knob(parse_period, "how old the last reading of a kept byte may become while armed; off: never read"),
    )
    check_timeout_seconds: float = field(
        default=120.0, metadata=_knob(parse_duration, "how long one variable may take to load in --check")
    )
    writer: str = field(
        default="auto",
        metadata=_knob(parse_writer, "who writes snapshots beside the cell: a process of its own, or a thread"),
    )
    on_death: str = field(
        default="offer",
        metadata=_knob(parse_policy, "after a death: offer the snapshot, restore it before the first cell, or never"),
    )


@dataclass(frozen=True)
class Knob:
    """One row of the table, as the documentation and the traitlets need it."""

    name: str
    variable: str
    field: str
    default: Any
    help: str
    parse: Callable[[str], Any]


def _as_knob(column: dataclasses.Field[Any]) -> Knob:
    name = re.sub("_(bytes|seconds)$", "", column.name)
    said, parse = column.metadata["help"], column.metadata["parse"]
    return Knob(name, f"IPYRESCUE_{name.upper()}", column.name, column.default, said, parse)


KNOBS: tuple[Knob, ...] = tuple(_as_knob(column) for column in dataclasses.fields(Configuration))
"""Every knob: `long_cell` in `c.IPyRescue` is `IPYRESCUE_LONG_CELL` in the environment."""


def resolve(environ: Mapping[str, str], configured: Mapping[str, object] | None = None) -> Configuration:
    """Decide each knob: environment, then what traitlets *configured*, then the default. A magic argument beats all.

    An empty text or `None` counts as not said. *configured* may hold texts ("5m") or values (300).
    """
    decided: dict[str, Any] = {}
    for knob in KNOBS:
        for origin, said in (
            (knob.variable, environ.get(knob.variable)),
            (f"c.IPyRescue.{knob.name}", (configured or {}).get(knob.name)),
        ):
            if said is not None and said != "":
                decided[knob.field] = _read(knob, origin, said)
                break
    return Configuration(**decided)


def named_key_file(environ: Mapping[str, str]) -> Path | None:
    """The signing key that the environment names, as `resolve` reads it, whatever else stands there."""
    knob = next(knob for knob in KNOBS if knob.field == "key_file")
    said = environ.get(knob.variable)
    return _read(knob, knob.variable, said) if said else None


def _read(knob: Knob, origin: str, said: object) -> Any:
    try:
        return knob.parse(str(said))
    except ValueError as error:
        raise RescueError(f"The setting {origin} cannot be used: {error}") from error
