"""`python -m benchmarks`: run every contender, print one table for each size."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.document import write_section
from benchmarks.table import render

ROOT = Path(__file__).parent.parent
Measured = dict[str, list[dict[str, Any]]]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a contender did not bring back what was saved."""
    options = _parse(arguments)
    print(_machine())
    whole, documents = True, []
    for scale in options.scale:
        measured = _rounds(scale, options)
        whole = whole and not _report_differences(measured)
        if not any(measured.values()):
            continue
        text = render(scale, measured)
        print(f"\n{text}")
        documents.append({"scale": scale, "measured": measured, "text": text})
    if options.json:
        Path(options.json).write_text(json.dumps(documents, indent=1) + "\n")
    if options.write:
        texts = ["## Saving and restoring a session", _machine(), *(document["text"] for document in documents)]
        write_section(Path(options.write) / "BENCHMARKS.md", "bench", "\n\n".join(texts))
    return 0 if whole else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure side by side. Needs a quiet machine."
    )
    parser.add_argument("--scale", type=float, nargs="+", default=[0.3, 1.2], help="GB of model and Adam (0.3 1.2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often; medians are shown (3)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="some contenders")
    parser.add_argument("--folder", type=Path, help="where the snapshots go; the disk that is measured (TMPDIR)")
    parser.add_argument("--json", metavar="FILE", help="write every sample there")
    parser.add_argument("--write", metavar="DIR", help="write BENCHMARKS.md into DIR, e.g. docs")
    return parser.parse_args(arguments)


def _machine() -> str:
    import torch

    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()} {platform.release()}), "
        f"Python {platform.python_version()}, torch {torch.__version__}, load average {load}."
    )


def _rounds(scale: float, options: argparse.Namespace) -> Measured:
    """Every contender once a round, in an order that rotates, so that a busy minute hits all of them."""
    measured: Measured = {name: [] for name in options.only}
    for number in range(options.rounds):
        turn = number % len(options.only)
        for name in [*options.only[turn:], *options.only[:turn]]:
            print(f"scale {scale}, round {number + 1}: {name}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="ipyrescue-bench-", dir=options.folder) as folder:
                spec = {"contender": name, "scale": scale, "folder": folder}
                saved = _measure({**spec, "do": "save"})
                restored = _measure({**spec, "do": "restore"})
            measured[name].append({"saved": saved, "restored": restored})
    return measured


def _measure(spec: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.measure", json.dumps(spec)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if finished.returncode != 0:
        raise SystemExit(f"{spec['contender']} failed to {spec['do']}:\n{finished.stderr}")
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def _report_differences(measured: Measured) -> bool:
    """Say which variables did not come back as they were saved."""
    wrong: dict[str, set[str]] = defaultdict(set)
    for name, rounds in measured.items():
        for one in rounds:
            saved, restored = one["saved"]["digest"], one["restored"]["digest"]
            wrong[name] |= {key for key in saved | restored if saved.get(key) != restored.get(key)}
    for name, keys in wrong.items():
        if keys:
            print(f"{name} did not bring back: {', '.join(sorted(keys))}")
    return any(wrong.values())


if __name__ == "__main__":
    sys.exit(main())
