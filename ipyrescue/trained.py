"""What is trained where a snapshot is cut, and the sentence about what of it no variable holds. Knows no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType

from ipyrescue.wording import count

_BEGINNING = "What trains here ("
_MODULE = "<module>"


@dataclass(frozen=True, eq=False)
class Trained:
    """An *optimizer* that is at work.

    *within* is the function or the file of the user's, outside of all cells, in which it steps; None where cells train
    themselves, or have a library do it.
    """

    optimizer: object
    within: CodeType | None = None

    def unsaved(self, missing: int, of: int) -> str:
        """Say that *missing* of the *of* tensors that it trains are in no variable, and what to type."""
        told = count(missing, "tensor") if missing == of else f"{missing:,} of {of:,} tensors"
        kind: str = type.__getattribute__(type(self.optimizer), "__name__")
        return (
            f"{_BEGINNING}{kind}, {told}{self._place}) is in no variable that is saved, so it is NOT saved. "
            f"To have it saved, {self._advice}"
        )

    @property
    def _place(self) -> str:
        if self.within is None:
            return ""
        file, name = os.path.basename(self.within.co_filename), self.within.co_name
        return f", stepping in {file}" if name == _MODULE else f", stepping in {name}() of {file}"

    @property
    def _advice(self) -> str:
        if self.within is None:
            return "have the model in a variable that is not left out."
        if self.within.co_name == _MODULE:
            return "run it with the variables of the notebook, by %run -i."
        return f"make the model in a variable and hand it to {self.within.co_name}()."


def unsaved_in(warnings: Iterable[str]) -> str | None:
    """The first of a snapshot's *warnings* that says so."""
    return next((warning for warning in warnings if warning.startswith(_BEGINNING)), None)
