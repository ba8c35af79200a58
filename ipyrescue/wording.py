"""Single values into words that are safe to show: names, types, counts, moments. Pure; knows no reports."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ipyrescue.settings import format_age

CUTS = {
    "boundary": "between two iterations of your loop",
    "cell_end": "at the end of a cell",
    "await": "at an await",
    "line": "at a line of your cell",
    "in_hook": "after an optimizer step of a library's loop, whose scheduler may be one step behind",
    "interrupted": "in the middle of a step",
}
"""Where in the program a snapshot was taken, for people."""

CUTS_INSIDE = ("boundary", "await", "in_hook")
"""Those that are known to stand inside a cell."""


def clean(text: str) -> str:
    """Make a text from outside fit for one line of a terminal: no line breaks, no control or escape characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def type_name(value: Any) -> str:
    """A type as a person would say it: `list`, `torch.Tensor`, `Net`."""
    kind = type(value)
    # past a metaclass that raises
    name: str = type.__dict__["__qualname__"].__get__(kind)
    module: str = type.__getattribute__(kind, "__module__")
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def count(number: int, noun: str) -> str:
    """Say how many: `1 variable`, `12 variables`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def seconds_of(moment: str | None) -> float | None:
    """Turn ISO 8601 into seconds since the epoch; what names no zone is UTC, and what is no time is `None`."""
    try:
        parsed = datetime.fromisoformat((moment or "").replace("Z", "+00:00"))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def clock(seconds: float, *, now: float) -> str:
    """Say when, in local time: `10:56:40`, with the date in front when that is not today's.

    What no calendar has, as a damaged record may say, is `an unknown time`.
    """
    try:
        moment, today = datetime.fromtimestamp(seconds).astimezone(), datetime.fromtimestamp(now).astimezone()
    except (ValueError, OverflowError, OSError):
        return "an unknown time"
    return f"{moment:%H:%M:%S}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def age(moment: str | None, *, now: float) -> str:
    """Say how long ago an ISO 8601 moment was; *now* is in seconds since the epoch."""
    seconds = seconds_of(moment)
    return format_age(now - seconds) if seconds is not None else "at an unknown time"


def shortened(text: str, characters: int) -> str:
    """Cut a text to at most so many *characters*, the last three of them dots if something is missing."""
    return text if len(text) <= characters else text[: characters - 3] + "..."


def listed(items: list[str], *, most: int, more: str = "") -> str:
    """Join *items* with commas; beyond *most*, say only how many more there are and, in *more*, what to type."""
    rest = len(items) - most
    if rest <= 0:
        return ", ".join(items)
    return ", ".join(items[:most]) + f" and {rest:,} more" + (f" ({more})" if more else "")
