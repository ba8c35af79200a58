"""Put the store to death and print what came of it: `PYTHONPATH=tests python -m torture [--scale quick|default|full]`.

`--only WORDS` runs the experiments whose name has these words; `--write` puts the table into docs/reliability.md.
What has been done is told on stderr, with every failure. Exits with 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
from multiprocessing import get_context

from torture import table
from torture.experiments import EXPERIMENTS, SCALES, run

_WORKERS = 2


def main() -> int:
    """Run them, two at a time, each in a process of its own."""
    asked = _arguments()
    chosen = [number for number, experiment in enumerate(EXPERIMENTS) if asked.only in experiment.name]
    with get_context("spawn").Pool(_WORKERS, maxtasksperchild=1) as pool:
        found = pool.starmap(run, [(number, asked.scale) for number in chosen], chunksize=1)
    results = dict(zip(chosen, found, strict=True))
    if len(chosen) < len(EXPERIMENTS):
        print(table.HEAD)
        for number, result in results.items():
            print("\n".join([table.row(EXPERIMENTS[number], *result), *table.notes(EXPERIMENTS[number], result[0])]))
    else:
        text = table.page(asked.scale, list(results.values()))
        print(text)
        if asked.write:
            table.write(text)
    return 1 if any(outcome.failures for outcome, _ in results.values()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=SCALES, default="default")
    parser.add_argument("--only", default="", metavar="WORDS", help="the experiments whose name has these words")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
