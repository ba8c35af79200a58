"""`python -m benchmarks.pause`: what a snapshot costs the training that it is taken of, beside its rivals."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.document import write_section
from benchmarks.pause import accounting, room, rounds
from benchmarks.pause.contenders import CONTENDERS, DCP, OURS
from benchmarks.pause.table import differing, render

WRITERS: dict[str, str] = {
    "forked writer": "ipyrescue (fork)",
    "standing writer": "benchmarks.pause.standing:StandingWriter",
    "thread": "ipyrescue (portable)",
}
"""What `--writers` compares, by the names of contenders or the places of adapters."""

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_QUICK: dict[str, Any] = {"rounds": 1, "snapshots": 1, "cycles": 1, "every": 0.1, "long_every": 0.15}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a contender failed or did not bring back what was there."""
    options = _parse(arguments)
    too_small = [sentence for scale in options.scale for sentence in room.missing(scale, options.folder)]
    if too_small:
        print("\n".join(too_small), "Choose sizes that fit: --scale 0.3", sep="\n", file=sys.stderr)
        return 2
    accounting.adopt_orphans()
    for signum in _STOPS:
        signal.signal(signum, _stop)
    try:
        return _run(options, shlex.join(arguments if arguments is not None else sys.argv[1:]))
    except _StoppedError as stopped:
        print("Stopped. The processes were ended, their files removed.", file=sys.stderr)
        return 128 + int(stopped.args[0])


class _StoppedError(BaseException):
    """We were told to end, by this signal."""


def _stop(signum: int, _frame: object) -> None:
    """End in order; who presses Ctrl-C twice gets no less order, and `timeout` sends its signal twice."""
    for one in _STOPS:
        signal.signal(one, lambda *_: None)  # not SIG_IGN: of a signal that is on its way Python would complain
    raise _StoppedError(signum)


def _run(options: argparse.Namespace, typed: str) -> int:
    start, machine = time.monotonic(), _machine()
    print(machine, end="\n\n")
    documents, whole, processes = [], True, rounds.Processes(options.folder)
    for scale in options.scale:
        measured = rounds.measure(scale, options, processes)
        whole = not _report_failures(measured) and whole
        succeeded = {n: r for n, r in measured["contenders"].items() if n not in measured["failed"]}
        ours = [name for name in options.ours if name in succeeded]
        text = render({**measured, "contenders": succeeded}, ours, [name for name in DCP if name in succeeded])
        print(text, end="\n\n", flush=True)
        documents.append({**measured, "text": text})
    minutes = (time.monotonic() - start) / 60
    told = f"`python -m benchmarks.pause {typed}`".replace(" `", "`") + f" took {minutes:.1f} minutes."
    print(told)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine, "sizes": documents}, indent=1) + "\n")
    if options.write:
        texts = ["## What a snapshot costs a training", f"{machine} {told}", _REMARKS]
        texts += [document["text"] for document in documents]
        write_section(Path(options.write) / "BENCHMARKS.md", "bench-pause", "\n\n".join(texts))
    return 0 if whole else 1


_REMARKS = """\
Each contender runs in processes of its own, in an order that rotates. The training is a stack of linear layers with
fused Adam, batch 16, gradients dropped after each step. Blocks of steps with and without a snapshot alternate in random
order within one process; the time lost is what the snapshot and the steps until it was durable took beyond as many
usual steps. The column "unprotected" takes no snapshot: its time lost is the noise. DCP is `async_save` of torch with
the stager kept. CPU time is that of all processes, hashing included, as only ipyrescue does it; memory is the
proportional set size of all processes beyond that of the training. Every contender's snapshot was compared bit for bit
with the state of its moment, which was overwritten as soon as the training was allowed to go on. DCP restores into
tensors that are there."""


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pause", description="What a snapshot costs a training. Needs a quiet machine."
    )
    add = parser.add_argument
    add("--scale", type=float, nargs="+", default=[0.3, 1.2], help="GB of model and Adam (0.3 1.2); 4 needs 18 GB")
    add("--rounds", type=int, help="processes of each contender (2)")
    add("--snapshots", type=int, help="quiet snapshots in each process (3)")
    add("--cycles", type=int, help="in each process: two blocks of steps with a snapshot, one without (1)")
    add("--every", type=float, help="seconds of such a block (5)")
    add("--long-every", type=float, help="seconds of the long loop (60)")
    add("--long", nargs="*", help="who runs the long loop, at the largest size (the default way of ipyrescue)")
    add("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(CONTENDERS)}")
    add("--adapter", nargs="+", metavar="NAME=MODULE:CLASS", default=[], help="more contenders, taken for ours")
    add("--writers", action="store_true", help="compare kinds of writers instead")
    add("--quick", action="store_true", help="seconds instead of minutes, and numbers that mean nothing")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where snapshots go; its disk is measured")
    add("--json", metavar="FILE", help="write everything that was measured there")
    add("--write", metavar="DIR", help="write the section into BENCHMARKS.md in DIR, e.g. docs")
    options = parser.parse_args(arguments)
    _settle_defaults(options)
    _choose_contenders(options, parser)
    return options


def _settle_defaults(options: argparse.Namespace) -> None:
    usual = {"rounds": 2, "snapshots": 3, "cycles": 1, "every": 5.0, "long_every": 60.0}
    for name, value in (_QUICK if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def _choose_contenders(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Fill in `contenders` by name, `ours` whose targets are shown, and `long`."""
    added = dict(adapter.split("=", 1) for adapter in options.adapter)
    known = {**(WRITERS if options.writers else {name: name for name in CONTENDERS}), **added}
    unknown = sorted(set(options.only or ()) - known.keys())
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are: {', '.join(known)}")
    options.contenders = {name: known[name] for name in options.only or known}
    options.ours = [name for name in options.contenders if name in (*WRITERS, *OURS, *added)]
    if options.long is None:
        options.long = list(options.contenders) if options.quick else options.ours[:1]


def _machine() -> str:
    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    names = ("ipyrescue", "torch", "safetensors", "blake3")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()} {platform.release()}), "
        f"Python {platform.python_version()}, {versions}, load average {load} at the start."
    )


def _report_failures(measured: dict[str, Any]) -> bool:
    """Say who failed, and which tensors did not come back as they were."""
    for name, error in measured["failed"].items():
        print(f"{name} failed:\n{error}\n", file=sys.stderr)
    wrong = {name: differing(rounds) for name, rounds in measured["contenders"].items()}
    for name, tensors in wrong.items():
        if tensors:
            print(f"{name} did not bring back: {', '.join(sorted(tensors))}", file=sys.stderr)
    return bool(measured["failed"]) or any(wrong.values())


if __name__ == "__main__":
    sys.exit(main())
