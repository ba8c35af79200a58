"""What is left of a kernel that died: its record, its traces on disk and the state of the machine into `Evidence`.

Reads only. Every source may be missing, and most are on most machines: what is not known stays None or empty.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ipyrescue.cgroups import MACHINE, control_groups
from ipyrescue.errors import StoreError
from ipyrescue.incarnations.deaths import Death
from ipyrescue.store import atomic, layout, lives
from ipyrescue.store.lives import Life

TRACE_LIMIT_BYTES = 256 << 10
_LAST_WORDS_SECONDS = 2.0
_FAREWELL_SECONDS = 10.0
"""A kernel that saves before it dies of a signal has 8 seconds, and may touch its record while it does."""

SIGNALS = ("SIGTERM", "SIGHUP")
"""The signals whose arrival a kernel's own handler notes before it dies of them."""


@dataclass(frozen=True)
class Evidence:
    """What can be known of a death.

    *fault* is the text that faulthandler wrote at a fatal error; *signals* are those that arrived, with the stack at
    that moment; *oom_kills* are counted since the last sign of life, in the kernel's control group, and None where
    that is not this process's.
    """

    life: Life
    fault: str = ""
    signals: tuple[tuple[str, str], ...] = ()
    oom_kills: int | None = None
    machine_oom_kills: int | None = None
    parent_gone: bool = False
    rebooted: bool = False


def gather(root: Path, death: Death) -> Evidence:
    """Look at all that the kernel and the machine have left."""
    life = death.life
    here = lives.process_facts(os.getpid())
    in_sight = lives.in_sight(life, here)
    memory = life.memory if in_sight else None
    same_group = memory is not None and memory.oom_group == oom_group()
    return Evidence(
        life=life,
        fault=_last_words(root, death, "fault"),
        signals=tuple((name, trace) for name in SIGNALS if (trace := _last_words(root, death, name))),
        oom_kills=_since(memory.oom_kills, oom_kills()) if memory and same_group else None,
        machine_oom_kills=_since(memory.machine_oom_kills, machine_oom_kills()) if memory else None,
        parent_gone=in_sight and _is_gone(life),
        rebooted=lives.is_of_another_boot(life, here),
    )


def oom_kills(machine: Path = MACHINE) -> int | None:
    """How many processes of this process's control group the kernel's OOM killer has ended. None: not known.

    From `memory.events` (cgroup v2) or `memory.oom_control` (v1); see cgroups(7). *machine* is where /proc and /sys
    stand.
    """
    return next((count for _, count in _oom_counters(machine)), None)


def oom_group(machine: Path = MACHINE) -> str | None:
    """The control group that `oom_kills` is about: counts of two groups say nothing of each other."""
    return next((str(folder) for folder, _ in _oom_counters(machine)), None)


def machine_oom_kills(machine: Path = MACHINE) -> int | None:
    """How many processes of the whole machine the OOM killer has ended since it was booted (proc(5), vmstat)."""
    return _counter(machine / "proc/vmstat", "oom_kill")


def _oom_counters(machine: Path) -> Iterator[tuple[Path, int]]:
    for folder in control_groups(machine):
        for name in ("memory.events", "memory.oom_control"):
            count = _counter(folder / name, "oom_kill")
            if count is not None:
                yield folder, count


def _counter(path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text("ascii").splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
    return None


def _since(before: int | None, now: int | None) -> int | None:
    return now - before if before is not None and now is not None and now >= before else None


def _last_words(root: Path, death: Death, what: str) -> str:
    """A trace that the kernel left as it died. One that it outlived, by its heartbeat, is a forked child's."""
    try:
        path = layout.trace_path(root, death.life.incarnation, what)
        patience_seconds = _FAREWELL_SECONDS if what in SIGNALS else _LAST_WORDS_SECONDS
        outlived = death.last_seen - path.lstat().st_mtime > patience_seconds
        return "" if outlived else atomic.read_file(path, TRACE_LIMIT_BYTES).decode("utf-8", "replace")
    except (OSError, StoreError):
        return ""


def _is_gone(life: Life) -> bool:
    if life.parent_pid is None or life.parent_start_ticks is None:
        return False
    return lives.process_facts(life.parent_pid).start_ticks != life.parent_start_ticks
