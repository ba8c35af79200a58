"""Every contender once a round, each in fresh processes, in an order that rotates: a busy minute hits all of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from benchmarks.pause import accounting

_PATIENCE_SECONDS = 900.0


class FailedError(Exception):
    """A contender's process ended badly; its last words."""


def measure(scale: float, options: argparse.Namespace, processes: Processes) -> dict[str, Any]:
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
        measured["limits"].append(_limits(scale, options, processes))
        turn = number % len(names)
        for name in [*names][turn:] + [*names][:turn]:
            if name in measured["failed"]:
                continue
            _tell(f"{scale:g} GB, round {number + 1} of {options.rounds}: {name}")
            try:
                _one_turn(processes, name, scale, number, options, measured["contenders"][name])
            except FailedError as error:
                measured["failed"][name] = str(error)
                _tell(f"{name} failed, and is left out from here on: {error}")
    return measured


def _one_turn(
    processes: Processes, name: str, scale: float, number: int, options: argparse.Namespace, into: dict[str, Any]
) -> None:
    """Save, then restore: in the first round to compare, later where the time is asked for."""
    with scratch(options.folder) as folder:
        spec = {"contender": options.contenders[name], "scale": scale, "folder": str(folder)}
        blocks = [[options.every, 2 * options.cycles, options.cycles]]
        if number == 0 and name in options.long and scale == max(options.scale):
            blocks.append([options.long_every, 1, 1])
        into["saved"].append(processes.run({**spec, "do": "save", "snapshots": options.snapshots, "blocks": blocks}))
        if "quiet" not in into["saved"][-1]:
            return
        if number == 0 or name in (*options.ours, "torch.save + fsync"):
            into["restored"].append(processes.run({**spec, "do": "restore"}))
        if name in options.ours:
            into["unverified"].append(processes.run({**spec, "do": "restore unverified"}))


def _limits(scale: float, options: argparse.Namespace, processes: Processes) -> dict[str, Any]:
    with scratch(options.folder) as folder:
        repeats = options.snapshots
        return processes.run({"do": "limits", "scale": scale, "folder": str(folder), "repeats": repeats})


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for one contender's files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ipyrescue-bench-", dir=folder) as name:
        yield Path(name)


class Processes:
    """Runs `benchmarks.pause.measure` in fresh processes; whatever becomes of them, nothing that they started stays.

    On Linux they are forked from one that has imported the libraries and done nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            self._context.set_forkserver_preload(["benchmarks.pause.libraries"])
            forkserver.ensure_running()
        self._stays = accounting.descendants()

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Return what the process measured. Raises `FailedError`."""
        with scratch(self._folder) as folder:
            running = self._context.Process(target=child, args=(spec, folder))
            try:
                running.start()
                running.join(_PATIENCE_SECONDS)
                code = running.exitcode
            finally:
                accounting.end(accounting.descendants() - self._stays)
            if code != 0:
                raise FailedError(_last_words(folder, code))
            measured: dict[str, Any] = json.loads((folder / "measured.json").read_text())
        return measured


def child(spec: dict[str, Any], folder: Path) -> None:
    """What a process does: measure, and leave the result in *folder*, and there what it says while it does."""
    from benchmarks.pause.measure import main as measuring  # torch, which the harness itself has no need of

    accounting.die_with_the_parent()
    os.setsid()  # Ctrl-C reaches the harness alone, and that ends us
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT)
    os.dup2(told, 1)
    os.dup2(told, 2)
    (folder / "measured.json").write_text(json.dumps(measuring(spec)))


def _last_words(folder: Path, code: int | None) -> str:
    if code is None:
        return f"it was not done after {_PATIENCE_SECONDS:g} s"
    told = folder / "told"
    said = told.read_text(errors="replace")[-2000:].strip() if told.exists() else ""
    return f"exit code {code}\n{said}"


def _tell(text: str) -> None:
    load = os.getloadavg()[0]
    print(f"{time.strftime('%H:%M:%S')}  load {load:.1f}  {text}", file=sys.stderr, flush=True)
