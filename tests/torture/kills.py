"""SIGKILL before, within and after each call that a snapshot makes, in stores of several pasts."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from ipyrescue.store import Store
from tests.store.conftest import save_to
from torture.dying import CALLS, in_child, killing
from torture.judging import KEY, Contents, create, goes_on, problems
from torture.outcome import Outcome, scratch

SHARED = b"shared" * 1000


def run(cases: int) -> Outcome:
    """At least *cases* kills, or in each past every call once."""
    outcome, rng = Outcome(), random.Random(1)
    with scratch() as folder:
        for number in itertools.count():
            for past, prepare in PASTS.items():
                origin = folder / f"{past}-{number}"
                kept = prepare(origin)
                for call, half in itertools.product(CALLS, (False, True)):
                    _sweep(outcome, f"{past}, {call}, half={half}", origin, kept, call, half, rng)
                    if outcome.cases >= cases:
                        return outcome
    raise AssertionError("unreachable")


def _sweep(
    outcome: Outcome, case: str, origin: Path, kept: Contents, call: str, half: bool, rng: random.Random
) -> None:
    """Kill at the first, second, ... use of *call* until one survives."""
    root = origin.with_name("live")
    for nth in itertools.count(1):
        contents = [rng.randbytes(rng.choice([1, 5000, 40_000, 1 << 20])), SHARED, rng.randbytes(300)]
        shutil.rmtree(root, ignore_errors=True)
        if origin.exists():
            shutil.copytree(origin, root)
        ended = in_child(lambda nth=nth, contents=contents: _die(root, call, nth, half, contents))
        if not (root / "format.json").exists():
            create(root)
        outcome.count(f"{case}, call {nth}", [*problems(root, kept), *goes_on(root)])
        if ended != signal.SIGKILL:
            return


def _die(root: Path, call: str, nth: int, half: bool, contents: list[bytes]) -> None:
    killing(call, nth, half=half)
    save_to(Store.open(root, KEY, create=True), *contents)


def _existing(root: Path) -> Contents:
    store = create(root)
    old = [b"old" * 5000, SHARED]
    return {save_to(store, *old).id: old}


def _several(root: Path) -> Contents:
    """Three packs, one of which a snapshot shares with another."""
    store = create(root)
    contents = ([SHARED], [b"two" * 3000, SHARED], [b"three" * 9000])
    return {save_to(store, *blobs).id: list(blobs) for blobs in contents}


def _after_a_crash(root: Path) -> Contents:
    """A writer was killed when its pack was visible and its manifest was not."""
    kept = _existing(root)
    in_child(lambda: _die(root, "link", 2, half=False, contents=[os.urandom(9000)]))
    return kept


PASTS: dict[str, Callable[[Path], Contents]] = {
    "no store": lambda root: {},
    "one snapshot": _existing,
    "several packs": _several,
    "after a crash": _after_a_crash,
}
