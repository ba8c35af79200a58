"""`10%` or `1/7` to a part of the packs: the same one each time, so that n/t takes turns through all of them.

restic's words (`restic check --read-data-subset`); there a percentage draws anew each time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated

import typer

_TURN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%")


@dataclass(frozen=True)
class PackSubset:
    """The *turn*-th of *turns* parts, by the packs' ids; or, with *share* (0 to 1), the first of them by id."""

    turn: int = 1
    turns: int = 1
    share: float | None = None

    def of(self, packs: AbstractSet[str]) -> frozenset[str]:
        """Those of *packs* that belong to it; with a share at least one, if there is any."""
        if self.share is not None:
            return frozenset(sorted(packs)[: math.ceil(self.share * len(packs))])
        return frozenset(pack for pack in packs if int(pack, 16) % self.turns == self.turn - 1)

    def __str__(self) -> str:
        return f"{self.turn}/{self.turns}" if self.share is None else f"{self.share * 100:g}%"


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
