"""All experiments: what each puts to the test, how many cases at which scale, and what restic and SQLite promise."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torture import crowd, faults, fuzzing, kills, machine, mutants, powercuts, rot, soak, strange, syscalls
from torture.outcome import Outcome

SCALES = ("quick", "default", "full")
_FAILURES_SHOWN = 20
_NO_PROMISE = "no such promise"


@dataclass(frozen=True)
class Experiment:
    """*cases* are what `run` is asked for at each scale; it may make more or fewer of it."""

    name: str
    promise: str
    run: Callable[[int], Outcome]
    cases: Mapping[str, int]
    restic: str
    sqlite: str


def _at(quick: int, default: int, full: int) -> Mapping[str, int]:
    return dict(zip(SCALES, (quick, default, full), strict=True))


EXPERIMENTS = (
    Experiment(
        "SIGKILL in every call",
        "Every earlier snapshot is there bit for bit, the new one complete or invisible, the next one works",
        kills.run,
        _at(250, 2_000, 100_000),
        "an interrupted backup leaves no snapshot; what it uploaded is used again",
        "a transaction is atomic if the process crashes; tested by crashing it at each operation",
    ),
    Experiment(
        "SIGKILL at every system call (strace)",
        "The same for a whole process, from outside",
        syscalls.run_kills,
        _at(30, 1_000, 1_000),
        "the same, not tested call by call",
        "the same, in a file system that simulates crashes",
    ),
    Experiment(
        "Power cuts, every state that POSIX allows",
        "What was said to be saved is there; what is visible is complete",
        powercuts.run,
        _at(50, 1_000, 20_000),
        "fsync of file and folder where the backend is a local one",
        "a transaction is durable where fsync works; tested with reordered and lost writes",
    ),
    Experiment(
        "Errors of the system at every call",
        "One sentence, no temporary file, nothing lost, the next snapshot works, no fsync tried again",
        faults.run,
        _at(400, 2_400, 2_400),
        "errors are told; others than a full disk are tried again",
        "I/O errors at the n-th call, once and from then on, for every n",
    ),
    Experiment(
        "Errors of the system at every call (strace)",
        "The same for a whole process; also EINTR",
        syscalls.run_errors,
        _at(40, 700, 5_000),
        "as above",
        "as above",
    ),
    Experiment(
        "File systems that lie or lack (FUSE)",
        "A store lives on them, or none is made, or one snapshot fails with a sentence; nothing is freed without locks",
        strange.run,
        _at(44, 440, 4_400),
        "no such promise; a local repository needs neither links nor locks of the system",
        "locks that do not work and fsync that does nothing are named as ways to corrupt a database",
    ),
    Experiment(
        "Rot: bytes flipped, files cut, swapped, missing, replayed",
        "All of it is found before anything is unpickled, the damaged one named, the older one restored",
        rot.run,
        _at(1_500, 20_000, 10**6),
        "every blob has a SHA-256 and a MAC; `check --read-data` finds damage",
        "a file that is damaged is found by `integrity_check` in part; checksums only with an extension",
    ),
    Experiment(
        "Fuzzed manifests behind the MAC",
        "CorruptError or StoreFormatError and nothing else, within 64 MiB and 5 s of processor time",
        fuzzing.run,
        _at(20_000, 200_000, 10**6),
        _NO_PROMISE,
        "hostile database files do no harm; fuzzed all the time, 500 million cases a day",
    ),
    Experiment(
        "Fuzzed manifests, guided by coverage",
        "The same",
        fuzzing.run_guided,
        _at(20_000, 200_000, 10**7),
        _NO_PROMISE,
        "as above",
    ),
    Experiment(
        "A crowd: two and four writers, a reader, a pruner",
        "Nothing that is visible is unrestorable, and the pruner gets its turn",
        crowd.run,
        _at(800, 2_000, 8_000),
        "any number of backups at once; prune has the repository alone",
        "one writer at a time, readers beside it",
    ),
    Experiment(
        "A random life: checkpoint, kill, rot, forget, pin, prune, clock, read-only",
        "A model that knows what must be there is always right",
        machine.run,
        _at(40, 250, 20_000),
        _NO_PROMISE,
        _NO_PROMISE,
    ),
    Experiment(
        "Soak: a snapshot, its upkeep and a SIGKILL, again and again",
        "Descriptors, memory, temporary files and disk stay flat; the newest saved is always there",
        soak.run,
        _at(60, 1_000, 10_000),
        _NO_PROMISE,
        "no leaks of memory or descriptors in any test",
    ),
    Experiment(
        "Mutants of the store",
        "A mistake in the store does not go unnoticed by its tests",
        mutants.run,
        _at(2, 100, 100),
        _NO_PROMISE,
        "every branch covered both ways (MC/DC), and mutation tests",
    ),
)


def run(number: int, scale: str) -> tuple[Outcome, float]:
    """What came of one experiment, and how many seconds it took; both are told on stderr as soon as it is done."""
    experiment, started = EXPERIMENTS[number], time.monotonic()
    try:
        outcome = experiment.run(experiment.cases[scale])
    except Exception:  # noqa: BLE001 - the other experiments go on, and this one has failed
        outcome = Outcome(failures=[traceback.format_exc()])
    seconds = time.monotonic() - started
    failed = [f"    {failure}" for failure in outcome.failures[:_FAILURES_SHOWN]]
    told = f"{experiment.name}: {outcome.cases} cases, {len(outcome.failures)} failures, {seconds:.0f} s"
    print("\n".join([told, *failed]), file=sys.stderr, flush=True)
    return outcome, seconds
