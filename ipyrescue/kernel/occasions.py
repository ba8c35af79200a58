"""Why a snapshot is taken when a cell has ended: an exception into words that are safe to keep."""

from __future__ import annotations

import traceback

from ipyrescue.redaction import shows_a_secret
from ipyrescue.selection import Occasion

_REASON_CHARACTERS = 300
_MOST_PLACES = 60


def occasion_of(trigger: str, error: BaseException | None) -> Occasion:
    """Why a snapshot is taken at the end of a cell, and with which traceback if *error* ended it."""
    if error is None:
        return Occasion(trigger=trigger)
    said = "".join(traceback.format_exception_only(error)).strip().removesuffix(":")
    reason = said.splitlines()[-1][:_REASON_CHARACTERS]
    if shows_a_secret(reason):
        reason = type(error).__name__
    return Occasion(trigger=trigger, cut="interrupted", reason=reason, traceback=_traceback(error, reason))


def _traceback(error: BaseException, reason: str) -> str:
    """The way that *error* came, without the lines themselves: text of the user may show a credential.

    Of a long way the end. The cells, without credentials, are kept with the snapshot anyway.
    """
    way = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    places = [f"  {frame.filename}, line {frame.lineno}, in {frame.name}" for frame in way]
    return "\n".join(["Traceback (most recent call last):", *places[-_MOST_PLACES:], reason])
