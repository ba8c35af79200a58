"""What an experiment found: how many cases there were, and a sentence for each that broke a promise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Outcome:
    """*control* says how the same cases fare where the protection is taken out: it must be broken to count."""

    cases: int = 0
    failures: list[str] = field(default_factory=list)
    control: str = ""
    note: str = ""

    def count(self, case: str, problems: Iterable[str]) -> None:
        """One case more, and what was wrong with it."""
        self.cases += 1
        self.failures += [f"{case}: {problem}" for problem in problems]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of our own that is gone afterwards; in memory where there is such a place, since rot needs no disk."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="ipyrescue-torture-", dir=where) as folder:
        yield Path(folder)
