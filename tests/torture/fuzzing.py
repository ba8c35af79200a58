"""Hostile manifests behind the MAC, mutated trees and bytes, read with bounded memory and time; hostile streams.

What of them atheris chooses is read in a process of its own, this file with the name of a target.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyrescue.errors import CorruptError, StoreFormatError
from ipyrescue.manifest import BlobRef, Frame, Import, Skipped, Snapshot, Variable
from tests.store.conftest import snapshot_of
from torture import streams
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


def missing() -> str:
    """What has to be done before anything can be guided by coverage here; nothing if it can."""
    if importlib.util.find_spec("atheris") is not None:
        return ""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return "it needs atheris, which requirements/ pins: pip install atheris"
    return "it needs atheris, which is there for Linux on x86_64 alone"


def run_guided(cases: int) -> Outcome:
    """*cases* of manifests that atheris chooses by the branches that they reach."""
    return _run_guided("manifests", cases)


def run_guided_streams(cases: int) -> Outcome:
    """*cases* of streams that are read without unpickling, chosen in the same way."""
    return _run_guided("streams", cases)


def _run_guided(target: str, cases: int) -> Outcome:
    with tempfile.TemporaryDirectory() as corpus:
        for number, raw in enumerate(TARGETS[target].seeds(random.Random(1))):
            Path(corpus, str(number)).write_bytes(raw)
        limits = [f"-runs={cases}", "-seed=1", "-max_len=8192", "-rss_limit_mb=1024"]
        command = [sys.executable, __file__, target, corpus, *limits]
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


@dataclass(frozen=True)
class Target:
    """What atheris is to break: where it begins, which code it watches, how else than by bytes a case is changed.

    *problem* says what is wrong with a case; nothing is, where that is no text.
    """

    seeds: Callable[[random.Random], Iterable[bytes]]
    code: Callable[[], Iterable[object]]
    changed: Callable[[random.Random, bytes], bytes | None]
    problem: Callable[[bytes], str | bool]


def _manifest_code() -> list[object]:
    named = [*vars(sys.modules["ipyrescue.manifest"]).values(), Snapshot.from_bytes.__func__, Snapshot.to_bytes]
    return [getattr(found, "__wrapped__", found) for found in named]


def _changed_manifest(rng: random.Random, raw: bytes) -> bytes | None:
    try:
        text, places = _places(json.loads(raw))
    except (ValueError, RecursionError):
        return None
    return _mutated(rng, text, places) if places else None


TARGETS = {
    "manifests": Target(
        lambda rng: [GOOD.to_bytes(), *(mutated(rng) for _ in range(_SEEDS))],
        _manifest_code,
        _changed_manifest,
        problem,
    ),
    "streams": Target(
        lambda rng: [*streams.GOOD, *(streams.mutated(rng, rng.choice(streams.GOOD)) for _ in range(_SEEDS))],
        streams.code,
        streams.mutated,
        streams.problem,
    ),
}


def _guided(target: Target) -> None:
    """The process in which atheris runs."""
    import atheris

    def one(raw: bytes) -> None:
        found = target.problem(raw)
        assert isinstance(found, bool), found

    def change(raw: bytes, most_bytes: int, seed: int) -> bytes:
        """What came far is changed by bytes or as the target knows."""
        rng = random.Random(seed)
        known = target.changed(rng, raw) if rng.random() < 0.5 else None
        return atheris.Mutate(raw, most_bytes) if known is None else known[:most_bytes]

    for function in target.code():
        if isinstance(function, types.FunctionType) and function.__module__.startswith("ipyrescue."):
            atheris.instrument_func(function)
    atheris.Setup(sys.argv, one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    _guided(TARGETS[sys.argv.pop(1)])
