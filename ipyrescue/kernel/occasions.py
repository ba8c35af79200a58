"""Why a snapshot is taken when a cell has ended: an exception into words that are safe to keep."""

from __future__ import annotations

import traceback

from ipyrescue.redaction import redacted, shows_a_secret
from ipyrescue.selection import Occasion

_REASON_CHARACTERS = 300
_TRACEBACK_CHARACTERS = 8_000


def occasion_of(trigger: str, error: BaseException | None) -> Occasion:
    """Why a snapshot is taken at the end of a cell, and with which traceback if *error* ended it."""
    if error is None:
        return Occasion(trigger=trigger)
    said = "".join(traceback.format_exception_only(error)).strip().removesuffix(":")
    reason = said.splitlines()[-1][:_REASON_CHARACTERS]
    if shows_a_secret(reason):
        reason = type(error).__name__
    return Occasion(trigger=trigger, cut="interrupted", reason=reason, traceback=_traceback(error))


def _traceback(error: BaseException) -> str:
    """The traceback as Python prints it, without credentials; of a long one the end."""
    return redacted("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARACTERS:]
