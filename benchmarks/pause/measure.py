"""What one process does for one contender: save beside a training, or restore; from a spec to plain numbers.

A process of its own, because memory that an earlier contender left warm, a daemon that it started or a module that it
imported would be counted for the next one.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measure import read_into_page_cache, settle
from benchmarks.pause import accounting, limits
from benchmarks.pause.contenders import CONTENDERS, Contender
from benchmarks.pause.training import Training, digests

WARM_STEPS = 3
LEAST_STEPS = 8
"""In every block of steps, whatever its seconds."""


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Do what *spec* says and return what was measured."""
    accounting.adopt_orphans()
    settle(int(3e9 * spec["scale"]) + (256 << 20))
    folder = Path(spec["folder"])
    if spec["do"] == "limits":
        training = Training(spec["scale"])
        return {"size_bytes": training.size_bytes, **limits.measure(training, folder, spec["repeats"])}
    contender = contender_type(spec["contender"])(folder)
    contender.load_libraries()
    if spec["do"] == "save":
        return _save(contender, Training(spec["scale"]), spec)
    return _restore(contender, folder, spec)


def contender_type(name: str) -> type[Contender]:
    """The contender of this name; `module:Class` names one that is not in the table."""
    if name in CONTENDERS:
        return CONTENDERS[name]
    module, _, found = name.partition(":")
    contender: type[Contender] = getattr(import_module(module), found)
    return contender


# --- save -------------------------------------------------------------------------------------------------------


def _save(contender: Contender, training: Training, spec: dict[str, Any]) -> dict[str, Any]:
    for _ in range(WARM_STEPS):
        training.step()
    plain = _peak_of(training.step)
    contender.begin(training)
    measured: dict[str, Any] = {"size_bytes": training.size_bytes}
    if contender.saves:
        measured["first"] = _quiet_snapshot(contender)
        measured["memory_bytes"] = _peak_of(lambda: _snapshot_and_steps(contender, training)) - plain
        measured["quiet"] = [_changed_snapshot(contender, training) for _ in range(spec["snapshots"])]
    measured["blocks"] = list(_blocks(contender, training, spec))
    if contender.saves:
        measured["digests"] = _checked_snapshot(contender, training)
    contender.end()
    return measured


def _peak_of(work: Callable[[], None]) -> int:
    with accounting.watched_memory() as peak:
        work()
    return peak.size_bytes


def _snapshot_and_steps(contender: Contender, training: Training) -> None:
    """What memory is watched of: the training goes on while the snapshot is written."""
    training.step()
    pending = contender.save()
    training.step()
    while not pending.done():
        training.step()
    pending.result()


def _changed_snapshot(contender: Contender, training: Training) -> dict[str, float]:
    training.step()
    return _quiet_snapshot(contender)


def _quiet_snapshot(contender: Contender) -> dict[str, float]:
    """A snapshot after which the training stands still until it is durable: what it takes by itself."""
    _same_start(contender)
    cpu = accounting.cpu_seconds()
    start = time.perf_counter()
    pending = contender.save()
    blocked = time.perf_counter() - start
    pending.result()
    durable = time.perf_counter() - start
    time.sleep(0.1)  # a process that wrote gives its memory back after it has told that it is done
    return {
        "blocked_seconds": blocked,
        "durable_seconds": durable,
        "cpu_seconds": accounting.cpu_seconds() - cpu,
    }


def _checked_snapshot(contender: Contender, training: Training) -> dict[str, str]:
    """A snapshot of a state that is overwritten as soon as the training may go on; what it must hold."""
    training.step()
    _same_start(contender)
    expected = digests(training.tensors())
    pending = contender.save()
    training.spoil()
    pending.result()
    contender.tidy()
    return expected


def _same_start(contender: Contender) -> None:
    """What others left to be written, or to be collected, is not this one's to wait for."""
    contender.tidy()
    gc.collect()
    os.sync()


# --- training beside it -----------------------------------------------------------------------------------------


def _blocks(contender: Contender, training: Training, spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Blocks of steps as long as a snapshot's interval, some begin with one and some do not, in random order."""
    for every_seconds, protected, plain in spec["blocks"]:
        order = [True] * protected + [False] * plain
        random.shuffle(order)
        for protects in order:
            yield {"every_seconds": every_seconds, **_block(contender, training, every_seconds, protects)}


def _block(contender: Contender, training: Training, seconds: float, protected: bool) -> dict[str, Any]:
    """Steps until *seconds* have passed and the snapshot, if there is one, is durable."""
    _same_start(contender)
    training.step()
    steps: list[float] = []
    start = time.perf_counter()
    pending = contender.save() if protected else None
    now = time.perf_counter()
    blocked = now - start
    durable = blocked if pending is not None and pending.done() else None
    while now - start < seconds or len(steps) < LEAST_STEPS or (pending is not None and durable is None):
        began = now
        training.step()
        now = time.perf_counter()
        steps.append(now - began)
        if pending is not None and durable is None and pending.done():
            durable = now - start
    if pending is not None:
        pending.result()
    return {
        "protected": protected,
        "seconds": now - start,
        "blocked_seconds": blocked,
        "durable_seconds": durable,
        "steps": steps,
    }


# --- restore ----------------------------------------------------------------------------------------------------


def _restore(contender: Contender, folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Restore into a process that has only loaded its libraries; the files are in the page cache."""
    contender.make_ready(spec["scale"])
    read_into_page_cache(folder)
    gc.collect()
    with _unverified() if spec["do"] == "restore unverified" else contextlib.nullcontext():
        start = time.perf_counter()
        restored = contender.restore()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "digests": digests(contender.tensors(restored))}


@contextlib.contextmanager
def _unverified() -> Iterator[None]:
    """Have ipyrescue read without hashing, which it never does for a user: what the check costs."""
    from ipyrescue.store import blobs

    checked = blobs.read_checked
    blobs.read_checked = lambda reader, blob, view, _proofs: blob.size_bytes and reader.read_into(blob, view)
    try:
        yield
    finally:
        blobs.read_checked = checked
