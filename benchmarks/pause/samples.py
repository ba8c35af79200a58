"""What the processes measured, as numbers by quantity: from raw seconds and steps to what a table shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import mean, median
from typing import Any

Raw = Mapping[str, Any]
"""What one process printed."""

_NEXT_STEPS = 5
_STEPS_AFTER = 3
"""Steps beyond the one in which a snapshot became durable that are still counted as disturbed."""


def of_saves(rounds: Sequence[Raw], every_seconds: float, long_seconds: float) -> dict[str, list[float]]:
    """All samples of one contender's saves, by quantity; a quantity that it does not have is not there."""
    samples: dict[str, list[float]] = {}
    for raw in rounds:
        for quantity, number in (*_quiet(raw), *_beside(raw, every_seconds), *_long(raw, long_seconds)):
            samples.setdefault(quantity, []).append(number)
    return samples


def _quiet(raw: Raw) -> Iterator[tuple[str, float]]:
    if "quiet" in raw:
        yield "first", raw["first"]["blocked_seconds"]
        yield "memory", raw["memory_bytes"]
    for snapshot in raw.get("quiet", ()):
        yield "blocked", snapshot["blocked_seconds"]
        yield "durable", snapshot["durable_seconds"]
        yield "cpu", snapshot["cpu_seconds"]


def _beside(raw: Raw, every_seconds: float) -> Iterator[tuple[str, float]]:
    saves = "quiet" in raw
    protected, plain = _blocks(raw, every_seconds)
    usual = usual_step_seconds(plain)
    for block in plain:
        yield "rate", rate(block)
    for block in protected:
        yield "lost", lost_seconds(block, usual)
        yield "speed", rate(block) * usual
        if saves:
            extra = sum(block["steps"][:_NEXT_STEPS]) - _NEXT_STEPS * usual
            yield "extra", extra
            yield "price", block["blocked_seconds"] + extra
            yield "durable-beside", block["durable_seconds"]


def _long(raw: Raw, long_seconds: float) -> Iterator[tuple[str, float]]:
    protected, plain = _blocks(raw, long_seconds)
    for block in protected:
        yield "long-speed", rate(block) * usual_step_seconds(plain)


def _blocks(raw: Raw, every_seconds: float) -> tuple[list[Raw], list[Raw]]:
    blocks = [block for block in raw["blocks"] if block["every_seconds"] == every_seconds]
    return [b for b in blocks if b["protected"]], [b for b in blocks if not b["protected"]]


def usual_step_seconds(plain: Sequence[Raw]) -> float:
    """The mean step of blocks without a snapshot: lost time is a sum, so the slow ones belong to it."""
    return mean(step for block in plain for step in block["steps"])


def rate(block: Raw) -> float:
    """Steps a second, the snapshot at the beginning of the block included."""
    steps: float = len(block["steps"]) / block["seconds"]
    return steps


def lost_seconds(block: Raw, usual: float) -> float:
    """How much longer the snapshot and the steps that it disturbed took than as many usual steps.

    Disturbed are the steps until it was durable and a few more. The steps after that are not counted: nothing happens
    in them, and their noise would drown what is to be seen.
    """
    disturbed = _disturbed_steps(block)
    lost: float = block["blocked_seconds"] + sum(block["steps"][:disturbed]) - disturbed * usual
    return lost


def _disturbed_steps(block: Raw) -> int:
    clock = accumulate(block["steps"], initial=block["blocked_seconds"])
    begun = sum(began < block["durable_seconds"] for began in clock)
    return min(max(begun, _NEXT_STEPS) + _STEPS_AFTER, len(block["steps"]))


def middle(samples: Sequence[float] | None) -> float | None:
    """The median; None where there are no samples."""
    return median(samples) if samples else None
