"""Samples of all rounds to one table: medians, the ratio to `torch.save` with fsync, targets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

OURS = "ipyrescue"
REFERENCE = "torch.save + fsync"

Round = dict[str, Any]
Medians = Mapping[str, Mapping[str, float | None]]
"""By row, then by contender."""


@dataclass(frozen=True)
class Row:
    """One line: what it is called, which number of a round it shows, in which unit."""

    key: str
    title: str
    unit: str
    value: Callable[[Round], float | None]


@dataclass(frozen=True)
class Target:
    """What ours has to reach in one row: at most *limit* of all medians."""

    row: str
    words: str
    limit: Callable[[Medians], float | None]


def _saved(sample: str, field: str) -> Callable[[Round], float | None]:
    return lambda one: one["saved"]["samples"][sample][field]


def _waits_beside_staging(one: Round) -> float | None:
    saved = one["saved"]["samples"]["small"]
    return saved["pause_seconds"] - saved["staging_seconds"] if saved["staging_seconds"] else None


def _usable(one: Round) -> float:
    seconds: float = one["restored"]["restore_seconds"] + one["restored"]["finish_seconds"]
    return seconds


ROWS = (
    Row("full", "full snapshot, durable after", "s", _saved("full", "seconds")),
    Row("full-waits", "  the cell waits", "s", _saved("full", "pause_seconds")),
    Row("full-written", "  written", "MB", _saved("full", "written_bytes")),
    Row("peak", "  peak RSS over the state", "MB", lambda one: one["saved"]["peak_bytes"]),
    Row("step", "again after a training step, durable after", "s", _saved("step", "seconds")),
    Row("step-waits", "  the cell waits", "s", _saved("step", "pause_seconds")),
    Row("step-written", "  written", "MB", _saved("step", "written_bytes")),
    Row("small", "one small variable changed, durable after", "s", _saved("small", "seconds")),
    Row("small-waits", "  the cell waits", "s", _saved("small", "pause_seconds")),
    Row("small-rest", "  the cell waits, without copying memory", "s", _waits_beside_staging),
    Row("small-written", "  written", "MB", _saved("small", "written_bytes")),
    Row("cell", "one DataFrame cell changed, durable after", "s", _saved("cell", "seconds")),
    Row("cell-waits", "  the cell waits", "s", _saved("cell", "pause_seconds")),
    Row("cell-written", "  written", "MB", _saved("cell", "written_bytes")),
    Row("restore", "restore in a fresh process", "s", lambda one: one["restored"]["restore_seconds"]),
    Row("restore-usable", "  model and optimizer usable after", "s", _usable),
    Row("restore-peak", "  peak RSS", "MB", lambda one: one["restored"]["restore_peak_bytes"]),
    Row(
        "blake3",
        "for scale: blake3 of the restored bytes, all cores",
        "s",
        lambda one: one["restored"]["blake3_seconds"],
    ),
    Row("state", "for scale: RSS of the state", "MB", lambda one: one["saved"]["state_bytes"]),
    Row("frame", "for scale: the DataFrame in memory", "MB", lambda one: one["saved"]["frame_bytes"]),
)


def _of(row: str, contender: str) -> Callable[[Medians], float | None]:
    return lambda table: table[row].get(contender)


def _load_and_hash(table: Medians) -> float | None:
    load, hashing = table["restore"].get(REFERENCE), table["blake3"].get(OURS)
    return None if load is None or hashing is None else load + hashing


TARGETS = (
    Target("full", f"at most {REFERENCE}", _of("full", REFERENCE)),
    Target("peak", "at most one more copy of the state", _of("state", OURS)),
    Target("small-written", "below 1 MB", lambda table: 1e6),
    Target("small-rest", "below 50 ms", lambda table: 0.05),
    Target("cell-written", "at most the frame", _of("frame", OURS)),
    Target("restore", "at most torch.load + blake3", _load_and_hash),
)


def medians(measured: Mapping[str, Sequence[Round]]) -> Medians:
    """The median of all rounds, by row and contender; None where a contender has no such number."""
    return {row.key: {name: _median(row, rounds) for name, rounds in measured.items()} for row in ROWS}


def _median(row: Row, rounds: Sequence[Round]) -> float | None:
    numbers = [number for number in map(row.value, rounds) if number is not None]
    return median(numbers) if numbers else None


def render(scale: float, measured: Mapping[str, Sequence[Round]]) -> str:
    """The table as Markdown whose columns are also aligned in a terminal."""
    table = medians(measured)
    rounds = max(map(len, measured.values()))
    head = ["", *measured, f"{OURS} / {REFERENCE}", "target"]
    lines = [_line(row, table, list(measured)) for row in ROWS]
    title = f"{scale:g} GB of model and Adam, a DataFrame, a list of dicts, 50 small variables; medians of {rounds}"
    return f"{title}\n\n" + aligned([head, *lines])


def _line(row: Row, table: Medians, names: list[str]) -> list[str]:
    numbers = table[row.key]
    ours, theirs = numbers.get(OURS), numbers.get(REFERENCE)
    ratio = f"{ours / theirs:.2f}" if ours is not None and theirs else ""
    title = f"{row.title} ({row.unit})"
    return [title, *(_number(numbers[name], row.unit) for name in names), ratio, _verdict(row, table)]


def _number(number: float | None, unit: str) -> str:
    if number is None:
        return ""
    return f"{number / 1e6:,.1f}" if unit == "MB" else f"{number:.3f}"


def _verdict(row: Row, table: Medians) -> str:
    target = next((t for t in TARGETS if t.row == row.key), None)
    ours = table[row.key].get(OURS)
    limit = target.limit(table) if target else None
    if target is None or ours is None or limit is None:
        return ""
    return f"{'met' if ours <= limit else 'NOT MET'}: {target.words}"


def aligned(lines: list[list[str]], *, words: Collection[int] = (0, -1)) -> str:
    """A Markdown table of which the first line is the head; the columns *words* are aligned left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = {number % len(widths) for number in words}
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append(f"| {' | '.join(cells)} |")
    rule = ["-" * width if number in left else "-" * (width - 1) + ":" for number, width in enumerate(widths)]
    text.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(text)
