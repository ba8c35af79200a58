"""`python -m benchmarks.scale`: make stores of thousands of snapshots, and measure what each step on them takes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.document import write_section
from benchmarks.scale.stores import Shape, fill
from ipyrescue.store import signing

ROOT = Path(__file__).parent.parent.parent
SHAPES = {
    "10,000 snapshots of 4 blobs": Shape(10_000, 4, 1),
    "10,000 snapshots of 1,000 blobs, 100 of them new": Shape(10_000, 1000, 100, smallest_bytes=1 << 10),
    "200 snapshots of 10,000 blobs, 1,000 of them new": Shape(200, 10_000, 1000),
}
LINES = (
    ("the first save, nothing remembered: every manifest is read", "save"),
    ("list, in a new process", "list"),
    ("`ipyrescue ls`, from its start to its end", "ls"),
    ("the next number, for which a cell waits", "number"),
    ("save one blob, in a new process", "save"),
    ("save one blob, in the same process", "save again"),
    ("retention and prune after a save", "tidy"),
    ("look up all blobs of a snapshot, and as many unknown ones", "deduplicate"),
)


def main() -> None:
    """Measure, print, and write what was printed to the document if asked to."""
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="ipyrescue-scale-", dir=options.folder) as folder:
        os.environ["IPYRESCUE_KEY_FILE"] = f"{folder}/key"
        texts = [
            _measured(Path(folder) / str(number), title, _divided(shape, options.divide))
            for number, (title, shape) in enumerate(SHAPES.items())
        ]
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, load average {load}."
    if options.write:
        write_section(Path(options.write) / "BENCHMARKS.md", "bench-scale", "\n\n".join([_HEAD, machine, *texts]))


_HEAD = """## A store of thousands of snapshots

Each line is a process of its own on a store with synthetic manifests; packs are as long as they would be, and empty.
CPU seconds are of all processors; on a busy machine seconds are longer."""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--divide", type=int, default=1, help="so many times fewer snapshots, for a trial")
    parser.add_argument("--folder", help="where the stores stand while they are measured (5 GB)")
    parser.add_argument("--write", metavar="FOLDER", help="write the tables to BENCHMARKS.md in FOLDER")
    return parser.parse_args()


def _divided(shape: Shape, by: int) -> Shape:
    return Shape(**{**vars(shape), "snapshots": max(20, shape.snapshots // by)})


def _measured(root: Path, title: str, shape: Shape) -> str:
    stored_bytes = fill(root, signing.load_key(create=True), shape)
    rows = [f"### {title}: {stored_bytes / 1e9:,.0f} GB\n", "| | seconds | CPU seconds | peak memory (MB) |"]
    rows += ["| --- | --: | --: | --: |", *(_row(line, step, root) for line, step in LINES)]
    print("\n".join(rows), flush=True)
    return "\n".join(rows)


def _row(line: str, step: str, root: Path) -> str:
    command = [sys.executable, "-m", "benchmarks.scale.measure", step, os.fspath(root)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout
    took = json.loads(output)
    return f"| {line} | {took['seconds']:.2f} | {took['cpu_seconds']:.2f} | {took['peak_bytes'] / 1e6:.0f} |"


if __name__ == "__main__":
    main()
