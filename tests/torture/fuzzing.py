"""Hostile manifests behind the MAC: mutated trees and bytes, read with bounded memory and bounded time."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyrescue.errors import CorruptError, StoreFormatError
from ipyrescue.manifest import BlobRef, Frame, Import, Skipped, Snapshot, Variable
from tests.store.conftest import snapshot_of
from torture.dying import forked
from torture.outcome import Outcome, scratch

MEMORY_BYTES = 64 << 20
"""What reading a manifest of a few kilobytes may take beside what the process has already."""
SECONDS = 5
"""Of processor time, for one manifest: a hundred thousand times what one takes."""

_BATCH = 20_000
_SEEDS = 200
_BLOBS = [BlobRef(str(n) * 64, "a" * 16, 4096 * n, 4096) for n in range(3)]
GOOD = snapshot_of(
    _BLOBS,
    sequence=7,
    label="warm",
    imports=(Import("np", "numpy"),),
    skipped=(Skipped("gen", "generator", "cannot be pickled", 4),),
    variables=(Variable("x", "Tensor", 12288, 3, None), Variable("train().step", "int", 3, 3, None)),
    frames=(Frame("train", 3, 2, ("train().step",)),),
    warnings=("torch 2.13",),
    cells=(0,),
)
_SCALARS = list(map(json.dumps, [
    None, True, False, 0, 1, -1, 2, 1 << 62, 1 << 63, -(1 << 80), 0.0, 1.5, 1e400, "", "x", "a" * 16, "0" * 64,
    "0" * 64 + "\n", "../../x", "\0", "\ud800", [], {}, [[]], {"x": 1}, [0] * 50, {"": None},
]))  # fmt: skip
_TOKENS = [b"NaN", b"Infinity", b"[" * 5000, b'{"a":1,"a":2}', b"\xef\xbb\xbf", b"\xff", b"\0", b"1e999", b"9" * 5000]


def run(cases: int) -> Outcome:
    """*cases* of seeded mutations, the same ones each time."""
    outcome, accepted = Outcome(), 0
    with scratch() as folder:
        for seed, start in enumerate(range(0, cases, _BATCH)):
            answer, count = folder / str(seed), min(_BATCH, cases - start)
            status = os.waitpid(forked(lambda: answer.write_text(json.dumps(_batch(seed, count)))), 0)[1]  # noqa: B023
            if status:
                outcome.failures.append(f"seed {seed} ended its process: status {status}")
                continue
            taken, failures = json.loads(answer.read_text())
            outcome.cases += count
            outcome.failures += failures
            accepted += taken
    outcome.note = f"{accepted} of them were manifests all the same"
    return outcome


def run_guided(cases: int) -> Outcome:
    """*cases* that atheris chooses by the branches that they reach; none where it is not installed."""
    if importlib.util.find_spec("atheris") is None:
        return Outcome(note="not run: `pip install atheris` (Python 3.11 or older)")
    with tempfile.TemporaryDirectory() as corpus:
        rng = random.Random(1)
        for number, raw in enumerate([GOOD.to_bytes(), *(mutated(rng) for _ in range(_SEEDS))]):
            Path(corpus, str(number)).write_bytes(raw)
        command = [sys.executable, __file__, corpus, f"-runs={cases}", "-seed=1", "-max_len=8192", "-rss_limit_mb=1024"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=corpus, env=_with_this_path())
    reached = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)[-1:] or [("no", "no")]
    outcome = Outcome(cases, note=f"by atheris: {reached[0][0]} branches, {reached[0][1]} features reached")
    if done.returncode or f"Done {cases} " not in done.stderr:
        outcome.failures.append(done.stderr[-2000:])
    return outcome


def problem(raw: bytes) -> str | bool:
    """Whether *raw* is a manifest, or what is wrong: another exception, or one that does not read as it was written."""
    try:
        snapshot = Snapshot.from_bytes(raw)
    except (CorruptError, StoreFormatError):
        return False
    except Exception as error:  # noqa: BLE001 - which other exception there is, is the question
        return f"{error!r} from {raw[:300]!r}"
    again = Snapshot.from_bytes(snapshot.to_bytes())
    return True if again == snapshot else f"reads otherwise once written: {raw[:300]!r}"


def mutated(rng: random.Random) -> bytes:
    """A manifest with one to four places changed, and now and then bytes that are no JSON."""
    return _mutated(rng, _TEXT, _PLACES)


def _mutated(rng: random.Random, text: str, places: list[_Place]) -> bytes:
    changed_from = len(text)
    for place in sorted(rng.choices(places, k=rng.choice([1, 1, 1, 2, 4])), key=lambda place: place.end, reverse=True):
        if place.end <= changed_from:
            text, changed_from = _changed(rng, text, place), place.start
    raw = text.encode("ascii")
    if rng.random() < 0.3:
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.choice(_TOKENS) + raw[at + rng.randrange(20) :]
    return raw


@dataclass(frozen=True)
class _Place:
    """Where a member of an object or an item of a list stands in the text; its value begins at *value*."""

    start: int
    value: int
    end: int


def _places(node: Any, start: int = 0) -> tuple[str, list[_Place]]:
    """The canonical text of a JSON value that stands at *start*, and every place within it."""
    if not isinstance(node, (dict, list)):
        return json.dumps(node), []
    named = sorted(node.items()) if isinstance(node, dict) else [(None, child) for child in node]
    text, found = "", []
    for name, child in named:
        text += "," * bool(text)
        at = start + 1 + len(text)
        text += "" if name is None else f"{json.dumps(name)}:"
        value = start + 1 + len(text)
        inner, within = _places(child, value)
        text += inner
        found += [*within, _Place(at, value, start + 1 + len(text))]
    return (f"{{{text}}}" if isinstance(node, dict) else f"[{text}]"), found


_TEXT, _PLACES = _places(json.loads(GOOD.to_bytes()))
_VALUES = [_TEXT[place.value : place.end] for place in _PLACES if place.end - place.value < 400]
assert _TEXT.encode("ascii") == GOOD.to_bytes()


def _changed(rng: random.Random, text: str, place: _Place) -> str:
    """*text* with one place taken out, doubled under the same or another name, or with another value in it."""
    before, it, after = text[: place.start], text[place.start : place.end], text[place.end :]
    kind = rng.randrange(5)
    if kind == 0:
        return before + after[1:] if after.startswith(",") else before.removesuffix(",") + after
    if kind == 1:
        return f"{before}{it},{it}{after}"
    if kind == 2:
        return f"{before}{it},{it.replace(chr(34), chr(34) + '_', 1)}{after}"
    return f"{text[: place.value]}{rng.choice(_VALUES if kind == 3 else _SCALARS)}{after}"


def _batch(seed: int, count: int) -> tuple[int, list[str]]:
    """How many were accepted, and the problems; in a process of its own, since the limits are."""
    rng, accepted, failures = random.Random(seed), 0, []
    _limit()
    for _ in range(count):
        raw = mutated(rng)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        found = problem(raw)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if found is True:
            accepted += 1
        elif found:
            failures.append(f"seed {seed}: {found}")
    return accepted, failures


def _limit() -> None:
    """No more memory than MEMORY_BYTES beside what is there, and an exception when the timer of a case runs out."""
    has_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has_bytes + MEMORY_BYTES,) * 2)
    signal.signal(signal.SIGPROF, _too_slow)


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _with_this_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}


def _guided() -> None:
    """The process in which atheris runs."""
    import atheris

    named = [*vars(sys.modules["ipyrescue.manifest"]).values(), Snapshot.from_bytes.__func__, Snapshot.to_bytes]
    for function in (getattr(found, "__wrapped__", found) for found in named):
        if isinstance(function, types.FunctionType) and function.__module__ == "ipyrescue.manifest":
            atheris.instrument_func(function)
    atheris.Setup(sys.argv, _one, custom_mutator=_guided_mutation)
    atheris.Fuzz()


def _guided_mutation(raw: bytes, most_bytes: int, seed: int) -> bytes:
    """What came far is changed by bytes or, where it is JSON, by places."""
    import atheris

    rng = random.Random(seed)
    try:
        text, places = _places(json.loads(raw))
    except (ValueError, RecursionError):
        places = []
    if not places or rng.random() < 0.5:
        changed: bytes = atheris.Mutate(raw, most_bytes)
        return changed
    return _mutated(rng, text, places)[:most_bytes]


def _one(raw: bytes) -> None:
    found = problem(raw)
    assert isinstance(found, bool), found


if __name__ == "__main__":
    _guided()
