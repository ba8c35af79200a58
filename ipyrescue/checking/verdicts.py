"""What a check found, name by name. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

SAME, DIFFERS, FAILED = "same", "differs", "failed to load"
INCOMPARABLE, UNCHECKED = "cannot be compared", "not checked"
OUTCOMES = (SAME, DIFFERS, FAILED, INCOMPARABLE, UNCHECKED)

RANDOM_STREAMS = "(random streams)"
"""Stands for the global random streams, which a snapshot holds under no name."""


@dataclass(frozen=True)
class Verdict:
    """What became of one name. *where* is the first place that differs, *why* says how, or why there is no answer."""

    name: str
    type: str
    outcome: str
    where: str = ""
    why: str = ""


@dataclass(frozen=True)
class Checked:
    """The verdicts on all names of a snapshot, in its order, how long it took, and how many processes."""

    verdicts: tuple[Verdict, ...]
    seconds: float
    processes: int = 1

    def count(self, outcome: str) -> int:
        """How many names came to this."""
        return sum(verdict.outcome == outcome for verdict in self.verdicts)

    @property
    def good(self) -> bool:
        """Whether every name came back the same."""
        return self.count(SAME) == len(self.verdicts)
