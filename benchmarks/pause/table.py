"""Samples of one size to two Markdown tables: medians by contender, and the targets with what was reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.pause.samples import middle, of_saves
from benchmarks.table import aligned

Medians = Mapping[str, Mapping[str, float | None]]
"""By quantity, then by contender; the physical limits stand under `LIMITS`."""

LIMITS = "limits"
ABSENT = "-"


@dataclass(frozen=True)
class Row:
    """One line of the first table: a quantity, what it is called, in which unit it is shown."""

    quantity: str
    title: str
    unit: str


def rows(every_seconds: float, long_seconds: float) -> tuple[Row, ...]:
    """The lines of the first table; the titles say after how many seconds the loops take the next snapshot."""
    return (
        Row("blocked", "blocked by a snapshot", "ms"),
        Row("first", "blocked by the first one, memory still cold", "ms"),
        Row("extra", "the next 5 steps take longer by", "ms"),
        Row("price", "both, in a running training", "ms"),
        Row("lost", "training time lost per snapshot", "ms"),
        Row("durable", "durable after", "ms"),
        Row("durable-beside", "durable after, the training going on", "ms"),
        Row("cpu", "CPU time, processes included", "ms"),
        Row("memory", "peak memory over the state", "MB"),
        Row("rate", "steps/s, no snapshot near", "/s"),
        Row("speed", f"speed with a snapshot every {every_seconds:g} s", "%"),
        Row("long-speed", f"speed with one every {long_seconds:g} s, measured", "%"),
        Row("long-estimate", "speed with one every 60 s, by the time lost", "%"),
        Row("restore", "restore in a fresh process", "ms"),
        Row("unverified", "restore, nothing hashed", "ms"),
        Row("right", "restored bytes are those of the moment", ""),
    )


@dataclass(frozen=True)
class Target:
    """A ratio that ours has to reach: at most (or at least) *limit*."""

    words: str
    limit: float
    ratio: Callable[[Medians, str], float | None]
    at_least: bool = False

    def reached(self, ratio: float) -> bool:
        """Whether a measured *ratio* is good enough."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit


def _over(quantity: str, rival: str) -> Callable[[Medians, str], float | None]:
    return lambda table, ours: _ratio(table[quantity].get(ours), table[quantity].get(rival))


def _over_limits(quantity: str, *limits: str, less: float = 0.0) -> Callable[[Medians, str], float | None]:
    def ratio(table: Medians, ours: str) -> float | None:
        number, physical = table[quantity].get(ours), [table[limit].get(LIMITS) for limit in limits]
        if number is None or None in physical:
            return None
        return _ratio(number - less, sum(limit for limit in physical if limit is not None))

    return ratio


def _restore_over_load_and_hash(table: Medians, ours: str) -> float | None:
    load, hashing = table["restore"].get("torch.save + fsync"), table["hash"].get(LIMITS)
    return None if load is None or hashing is None else _ratio(table["restore"].get(ours), load + hashing)


def _value(quantity: str) -> Callable[[Medians, str], float | None]:
    return lambda table, ours: table[quantity].get(ours)


def _ratio(number: float | None, other: float | None) -> float | None:
    """None where there is nothing to divide by, as when a rival's loss drowned in noise."""
    return None if number is None or other is None or other <= 0 else number / other


def targets(rivals: Sequence[str]) -> tuple[Target, ...]:
    """What issue 5 wants to be reached, against each of the *rivals* where it names one."""
    return (
        Target(
            "(blocked and 5 steps' extra, less 25 ms) / warm memcpy", 1.2, _over_limits("price", "memcpy", less=0.025)
        ),
        *(Target(f"blocked and 5 steps' extra / {rival}", 0.8, _over("price", rival)) for rival in rivals),
        *(Target(f"durable / {rival}", 1 / 3, _over("durable", rival)) for rival in rivals),
        Target("durable / (memcpy + raw write)", 1.3, _over_limits("durable", "memcpy", "write")),
        *(Target(f"CPU time / {rival}", 0.5, _over("cpu", rival)) for rival in rivals),
        *(Target(f"training time lost / {rival}", 0.5, _over("lost", rival)) for rival in rivals),
        Target("speed with one every 60 s, by the time lost", 0.99, _value("long-estimate"), at_least=True),
        Target("speed with one every 60 s, measured", 0.99, _value("long-speed"), at_least=True),
        Target("verified restore / (torch.load + blake3)", 1.0, _restore_over_load_and_hash),
    )


def medians(measured: Mapping[str, Any]) -> Medians:
    """The median of all rounds, by quantity and contender."""
    every, long = measured["every_seconds"], measured["long_seconds"]
    table: dict[str, dict[str, float | None]] = {row.quantity: {} for row in rows(every, long)}
    for name, rounds in measured["contenders"].items():
        samples = of_saves(rounds["saved"], every, long)
        samples["restore"] = [one["seconds"] for one in rounds["restored"]]
        samples["unverified"] = [one["seconds"] for one in rounds["unverified"]]
        for quantity, column in table.items():
            column[name] = middle(samples.get(quantity))
        lost = table["lost"][name]
        table["long-estimate"][name] = None if lost is None else 1.0 - max(lost, 0.0) / 60.0
        table["right"][name] = None if not rounds["restored"] else float(not differing(rounds))
    for limit in ("memcpy", "write", "hash"):
        numbers = [number for one in measured["limits"] for number in one[limit]]
        table[limit] = {LIMITS: middle(numbers)}
    return table


def differing(rounds: Mapping[str, Any]) -> set[str]:
    """The tensors that did not come back as they were at the snapshot."""
    wrong: set[str] = set()
    for saved, restored in zip(rounds["saved"], rounds["restored"], strict=False):
        for name in saved["digests"] | restored["digests"]:
            if saved["digests"].get(name) != restored["digests"].get(name):
                wrong.add(name)
    return wrong


def render(measured: Mapping[str, Any], ours: Sequence[str], rivals: Sequence[str]) -> str:
    """Both tables of one size."""
    table, names = medians(measured), list(measured["contenders"])
    shown = rows(measured["every_seconds"], measured["long_seconds"])
    lines = [
        [f"{row.title} ({row.unit})" if row.unit else row.title, *(_cell(table, row, name) for name in names)]
        for row in shown
    ]
    rounds = max(len(r["saved"]) for r in measured["contenders"].values())
    processes = "one process each" if rounds == 1 else f"medians of {rounds} processes each"
    return "\n\n".join(
        (
            f"### {measured['scale']:g} GB of model and fused Adam; {processes}",
            aligned([["", *names], *lines], words=[0]),
            _limits_in_words(table, measured),
            aligned([["ratio", "target", *ours], *_target_lines(table, targets(rivals), ours)]),
        )
    )


def _cell(table: Medians, row: Row, name: str) -> str:
    number = table[row.quantity].get(name)
    if number is None:
        return ABSENT
    if row.quantity == "right":
        return "yes" if number else "NO"
    return shown_number(number, row.unit)


def shown_number(number: float, unit: str) -> str:
    """Seconds as milliseconds, bytes as megabytes, shares as percent."""
    if unit == "ms":
        return f"{number * 1e3:,.0f}"
    if unit == "MB":
        return f"{number / 1e6:,.0f}"
    return f"{number * 100:.1f}" if unit == "%" else f"{number:.2f}"


def _limits_in_words(table: Medians, measured: Mapping[str, Any]) -> str:
    milliseconds = {name: shown_number(table[name][LIMITS] or 0.0, "ms") for name in ("memcpy", "write", "hash")}
    how = "O_DIRECT" if all(one["direct"] for one in measured["limits"]) else "page cache, no O_DIRECT here"
    size = shown_number(measured["limits"][0]["size_bytes"], "MB")
    return (
        f"Physical limits for these {size} MB: warm memcpy by torch's threads {milliseconds['memcpy']} ms, raw write "
        f"({how}) and fsync {milliseconds['write']} ms, blake3 by all cores {milliseconds['hash']} ms."
    )


def _target_lines(table: Medians, wanted: Sequence[Target], ours: Sequence[str]) -> list[list[str]]:
    return [
        [target.words, f"{'>=' if target.at_least else '<='} {target.limit:.2f}"]
        + [_verdict(target, target.ratio(table, name)) for name in ours]
        for target in wanted
    ]


def _verdict(target: Target, ratio: float | None) -> str:
    if ratio is None:
        return ABSENT
    digits = 4 if target.at_least else 2
    return f"{ratio:.{digits}f} {'reached' if target.reached(ratio) else 'NOT reached'}"
