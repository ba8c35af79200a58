"""Put the store to death and print what came of it: `PYTHONPATH=tests python -m torture [--scale quick|default|full]`.

`--only WORDS` runs the experiments whose name has these words; `--without root` leaves out those that need root, which
the table then says; `--write` puts the table into docs/reliability.md. Begins with nothing where an experiment lacks
what it needs. What has been done is told on stderr, with every failure. Exits with 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from multiprocessing import get_context

from torture import table
from torture.experiments import EXPERIMENTS, SCALES, Experiment, run
from torture.outcome import Outcome

_WORKERS = 2


def main() -> int:
    """Run them, two at a time, each in a process of its own."""
    asked = _arguments()
    chosen = [number for number, experiment in enumerate(EXPERIMENTS) if asked.only in experiment.name]
    running = [number for number in chosen if not _left_out(EXPERIMENTS[number], asked.without)]
    lacking = [EXPERIMENTS[number] for number in running if EXPERIMENTS[number].missing()]
    if lacking:
        print("\n".join(map(_lack, lacking)), file=sys.stderr)
        return 1
    with get_context("spawn").Pool(_WORKERS, maxtasksperchild=1) as pool:
        found = pool.starmap(run, [(number, asked.scale) for number in running], chunksize=1)
    done = dict(zip(running, found, strict=True))
    results = {number: done.get(number, _not_run(EXPERIMENTS[number])) for number in chosen}
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


def _left_out(experiment: Experiment, without: Sequence[str]) -> bool:
    return bool(experiment.needs) and experiment.needs in without


def _lack(experiment: Experiment) -> str:
    return (
        f"{experiment.name}: {experiment.missing()}. Or leave it out: make torture ARGS='--without {experiment.needs}'"
    )


def _not_run(experiment: Experiment) -> tuple[Outcome, float]:
    return Outcome(note=f"not run: needs {experiment.needs}"), 0.0


def _arguments() -> argparse.Namespace:
    everything = sorted({experiment.needs for experiment in EXPERIMENTS if experiment.needs})
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.split("\n")[0])
    parser.add_argument("--scale", choices=SCALES, default="default")
    parser.add_argument("--only", default="", metavar="WORDS", help="the experiments whose name has these words")
    parser.add_argument("--without", action="append", default=[], choices=everything, help="may be given several times")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
