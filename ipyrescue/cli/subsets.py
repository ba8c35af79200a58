"""`10%` or `1/7` to a part of the packs: n/t takes turns through all of them, a percentage draws anew each time.

Words and meaning are restic's (`restic check --read-data-subset`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

_TURN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%")


@dataclass(frozen=True)
class PackSubset:
    """The *turn*-th of *turns* parts, by the packs' ids; or, with *share* (0 to 1), packs drawn at random."""

    turn: int = 1
    turns: int = 1
    share: float | None = None

    def of(self, lengths_bytes: Mapping[str, int]) -> frozenset[str]:
        """The packs that belong to it, of all with their lengths; with a share at least one, if there is any."""
        if self.share is not None:
            return _drawn(lengths_bytes, self.share * sum(lengths_bytes.values()))
        return frozenset(pack for pack in lengths_bytes if int(pack, 16) % self.turns == self.turn - 1)

    def __str__(self) -> str:
        return f"{self.turn}/{self.turns}" if self.share is None else f"{self.share * 100:g}%"


def _drawn(lengths_bytes: Mapping[str, int], wanted_bytes: float) -> frozenset[str]:
    """Packs in random order until there are enough bytes; the last one by chance, so that it is right on average."""
    order, drawn = random.sample(sorted(lengths_bytes), len(lengths_bytes)), set()
    for pack in order:
        length = lengths_bytes[pack]
        if length <= wanted_bytes or random.random() < wanted_bytes / length:  # noqa: S311 - no secret
            drawn.add(pack)
        wanted_bytes -= length
        if wanted_bytes <= 0:
            break
    return frozenset(drawn or order[-1:])


def parse(text: str) -> PackSubset:
    """Read `1/7` or `10%`. Raises typer.BadParameter."""
    turn, percent = _TURN.fullmatch(text), _PERCENT.fullmatch(text)
    if turn and 1 <= int(turn[1]) <= int(turn[2]):
        return PackSubset(int(turn[1]), int(turn[2]))
    if percent and 0 < float(percent[1]) <= 100:
        return PackSubset(share=float(percent[1]) / 100)
    raise typer.BadParameter(f"{text!r} is no part of the packs; write 10% or 1/7.")


SubsetOption = Annotated[
    PackSubset | None,
    typer.Option("--read-data-subset", metavar="N%|N/T", parser=parse, help="The same as --read-data=N%.", hidden=True),
]


def as_two_options(args: Iterable[str]) -> list[str]:
    """A command line in which `--read-data=1/7` is `--read-data-subset=1/7`; `--read-data` itself takes no value."""
    return [re.sub(r"\A--read-data=", "--read-data-subset=", argument) for argument in args]
