"""Every contender once a round, each in fresh processes, in an order that rotates: a busy minute hits all of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pause import accounting
from benchmarks.pause.contenders import OURS

ROOT = Path(__file__).parent.parent.parent
_PATIENCE_SECONDS = 900.0


class FailedError(Exception):
    """A contender's process ended badly; its last words."""


def measure(scale: float, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one size. A contender that fails is told, and left out from then on."""
    names: dict[str, str] = options.contenders
    measured: dict[str, Any] = {
        "scale": scale,
        "every_seconds": options.every,
        "long_seconds": options.long_every,
        "limits": [],
        "contenders": {name: {"saved": [], "restored": [], "unverified": []} for name in names},
        "failed": {},
    }
    for number in range(options.rounds):
        _tell(f"{scale:g} GB, round {number + 1} of {options.rounds}: physical limits")
        measured["limits"].append(_limits(scale, options))
        turn = number % len(names)
        for name in [*names][turn:] + [*names][:turn]:
            if name in measured["failed"]:
                continue
            _tell(f"{scale:g} GB, round {number + 1} of {options.rounds}: {name}")
            try:
                _one_turn(name, scale, number, options, measured["contenders"][name])
            except FailedError as error:
                measured["failed"][name] = str(error)
                _tell(f"{name} failed, and is left out from here on: {error}")
    return measured


def _one_turn(name: str, scale: float, number: int, options: argparse.Namespace, into: dict[str, Any]) -> None:
    """Save, then restore: in the first round to compare, later where the time is asked for."""
    with scratch(options.folder) as folder:
        spec = {"contender": options.contenders[name], "scale": scale, "folder": str(folder)}
        blocks = [[options.every, 2 * options.cycles, options.cycles]]
        if number == 0 and name in options.long and scale == max(options.scale):
            blocks.append([options.long_every, 1, 1])
        into["saved"].append(process({**spec, "do": "save", "snapshots": options.snapshots, "blocks": blocks}))
        if "quiet" not in into["saved"][-1]:
            return
        if number == 0 or name in (*OURS, "torch.save + fsync"):
            into["restored"].append(process({**spec, "do": "restore"}))
        if name in OURS:
            into["unverified"].append(process({**spec, "do": "restore unverified"}))


def _limits(scale: float, options: argparse.Namespace) -> dict[str, Any]:
    with scratch(options.folder) as folder:
        repeats = options.snapshots
        return process({"do": "limits", "scale": scale, "folder": str(folder), "repeats": repeats})


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for one contender's files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ipyrescue-bench-", dir=folder) as name:
        yield Path(name)


def process(spec: dict[str, Any]) -> dict[str, Any]:
    """Run one process of `benchmarks.pause.measure`; whatever becomes of it, nothing that it started outlives it."""
    command = [sys.executable, "-m", "benchmarks.pause.measure", json.dumps(spec)]
    try:
        with tempfile.TemporaryFile("w+") as told:
            # A session of its own: Ctrl-C reaches us alone, and we end the others.
            running = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=told, text=True, start_new_session=True
            )
            with running:
                output = _output(running)
            told.seek(0)
            if running.returncode != 0:
                raise FailedError(told.read()[-2000:].strip() or f"exit code {running.returncode}")
    finally:
        accounting.end_descendants()
    measured: dict[str, Any] = json.loads(output.splitlines()[-1])
    return measured


def _output(running: subprocess.Popen[str]) -> str:
    try:
        return running.communicate(timeout=_PATIENCE_SECONDS)[0]
    except subprocess.TimeoutExpired:
        raise FailedError(f"it was not done after {_PATIENCE_SECONDS:g} s") from None
    finally:
        if running.poll() is None:
            running.kill()


def _tell(text: str) -> None:
    load = os.getloadavg()[0]
    print(f"{time.strftime('%H:%M:%S')}  load {load:.1f}  {text}", file=sys.stderr, flush=True)
