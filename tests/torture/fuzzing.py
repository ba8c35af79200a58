"""Hostile manifests behind the MAC: mutated trees and bytes, read with bounded memory and bounded time."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
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
_SCALARS = [
    None, True, False, 0, 1, -1, 2, 1 << 62, 1 << 63, -(1 << 80), 0.0, 1.5, 1e400, "", "x", "a" * 16, "0" * 64,
    "0" * 64 + "\n", "../../x", "\0", "\ud800", [], {}, [[]], {"x": 1}, [0] * 50, {"": None},
]  # fmt: skip
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
        Path(corpus, "good").write_bytes(GOOD.to_bytes())
        command = [sys.executable, __file__, corpus, f"-runs={cases}", "-seed=1", "-max_len=8192", "-rss_limit_mb=1024"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=corpus, env=_with_this_path())
    outcome = Outcome(cases, note="by atheris")
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
    tree = json.loads(GOOD.to_bytes())
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = rng.choice([path for path in places(tree) if path] or [()])
        if not path:
            break
        node = tree
        for step in path[:-1]:
            node = node[step]
        _change(rng, node, path[-1], tree)
    raw = json.dumps(tree, sort_keys=True, separators=(",", ":")).encode("ascii")
    if rng.random() < 0.3:
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.choice(_TOKENS) + raw[at + rng.randrange(20) :]
    return raw


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into a JSON value."""
    yield path
    for name, child in node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ()):
        yield from places(child, (*path, name))


def _change(rng: random.Random, node: Any, step: Any, tree: dict[str, Any]) -> None:
    kind = rng.randrange(4)
    if kind == 0 and isinstance(node, dict):
        del node[step]
    elif kind == 1 and isinstance(node, dict):
        node[str(step) + "_"] = node[step]
    elif kind == 1:
        node.append(copy.deepcopy(node[step]))
    elif kind == 2:
        node[step] = copy.deepcopy(tree[rng.choice(list(tree))]) if tree else None
    else:
        node[step] = copy.deepcopy(rng.choice(_SCALARS))


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

    for function in vars(sys.modules["ipyrescue.manifest"]).values():
        if isinstance(function, types.FunctionType) and function.__module__ == "ipyrescue.manifest":
            atheris.instrument_func(function)
    atheris.Setup(sys.argv, _one)
    atheris.Fuzz()


def _one(raw: bytes) -> None:
    found = problem(raw)
    assert isinstance(found, bool), found


if __name__ == "__main__":
    _guided()
