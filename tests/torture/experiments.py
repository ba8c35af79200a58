"""All experiments: what each puts to the test, how many cases at which scale, and what restic and SQLite promise."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fuse import mounting

from torture import (
    attacks,
    crowd,
    disks,
    faults,
    fulldisks,
    fuzzing,
    kills,
    machine,
    mutants,
    powercuts,
    realcuts,
    rot,
    soak,
    strange,
    syscalls,
)
from torture.outcome import Outcome

SCALES = ("quick", "default", "full")
_FAILURES_SHOWN = 20
_NO_PROMISE = "no such promise"


@dataclass(frozen=True)
class Experiment:
    """*cases* are what `run` is asked for at each scale; it may make more or fewer of it.

    *missing* says what has to be done before this machine can run it, or nothing; `--without` *needs* leaves it out.
    """

    name: str
    promise: str
    run: Callable[[int], Outcome]
    cases: Mapping[str, int]
    restic: str
    sqlite: str
    missing: Callable[[], str] = str
    needs: str = ""


def _at(quick: int, default: int, full: int) -> Mapping[str, int]:
    return dict(zip(SCALES, (quick, default, full), strict=True))


EXPERIMENTS = (
    Experiment(
        "SIGKILL in every call",
        "Every earlier snapshot is there bit for bit, the new one complete or invisible, the next one works",
        kills.run,
        _at(250, 2_000, 100_000),
        "`backup` and `prune` may be interrupted at any point; what was uploaded is used again",
        "a transaction is atomic if the process crashes; tested by child processes that crash in a write",
    ),
    Experiment(
        "SIGKILL at every system call (strace)",
        "The same for a whole process, from outside",
        syscalls.run_kills,
        _at(30, 2_000, 2_000),
        "the same, not tested call by call",
        "the same, in a file system of its own that is stopped after n operations",
    ),
    Experiment(
        "Power cuts, every state that POSIX allows",
        "What was said to be saved is there; what is visible is complete",
        powercuts.run,
        _at(50, 1_000, 20_000),
        "fsync of the file, rename, fsync of the folder where the backend is a local one; no test of it was found",
        "a transaction is atomic where fsync works; tested with unsynced writes reordered and damaged",
    ),
    Experiment(
        "Power cuts on real ext4 and xfs",
        "The same, once the file system has mended itself",
        realcuts.run,
        _at(20, 100, 2_000),
        "as above",
        "as above; tests by real power failures are called impractical, so all are simulated",
        disks.missing,
        "root",
    ),
    Experiment(
        "A disk that is really full",
        "One sentence, no temporary file, nothing lost; once there is room the next snapshot works",
        fulldisks.run,
        _at(50, 300, 300),
        "a full disk is told at once; `prune` needs some room to work",
        "a statement that finds the disk full is undone (SQLITE_FULL)",
        disks.missing,
        "root",
    ),
    Experiment(
        "Errors of the system at every call",
        "One sentence, no temporary file, nothing lost, the next snapshot works, no fsync tried again",
        faults.run,
        _at(400, 2_400, 2_400),
        "what fails is tried again for 15 minutes with a new file; a full disk and missing rights are told at once",
        "I/O errors at the n-th operation, once and from then on, for every n",
    ),
    Experiment(
        "Errors of the system at every call (strace)",
        "The same for a whole process; also EINTR",
        syscalls.run_errors,
        _at(40, 1_000, 10_000),
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
        mounting.missing,
        "fuse",
    ),
    Experiment(
        "Rot: bytes flipped, files cut, swapped, missing, replayed",
        "All of it is found before anything is unpickled, the damaged one named, the older one restored",
        rot.run,
        _at(1_500, 10**6, 10**6),
        "each blob has a SHA-256 and a MAC: damage is found when it is read, all of it by `check --read-data`",
        "damage of the structure is found (SQLITE_CORRUPT); of contents only with the checksum extension",
    ),
    Experiment(
        "Fuzzed manifests behind the MAC",
        "CorruptError or StoreFormatError and nothing else, within 64 MiB and 5 s of processor time",
        fuzzing.run,
        _at(20_000, 10**6, 10**7),
        "no such promise; one fuzz test, of a blob saved and read again",
        "hostile database files do no harm; fuzzed all the time, some 500 million cases a day",
    ),
    Experiment(
        "Fuzzed manifests, guided by coverage",
        "The same",
        fuzzing.run_guided,
        _at(10_000, 200_000, 10**7),
        _NO_PROMISE,
        "as above",
        fuzzing.missing,
        "atheris",
    ),
    Experiment(
        "Fuzzed streams without unpickling, guided by coverage",
        "CorruptError, NotPlainError or plain values, and nothing else; the process lives",
        fuzzing.run_guided_streams,
        _at(10_000, 200_000, 10**7),
        _NO_PROMISE,
        "as above",
        fuzzing.missing,
        "atheris",
    ),
    Experiment(
        "A crowd: two to four writers, a reader, a pruner",
        "Nothing that is visible is unrestorable, and the pruner gets its turn",
        crowd.run,
        _at(50, 1_000, 10_000),
        "any number of backups at once; `prune` has the repository alone, and no backup completes meanwhile",
        "one writer at a time; readers beside it in WAL mode",
    ),
    Experiment(
        "A random life: checkpoint, kill, rot, forget, pin, prune, clock, read-only",
        "A model that knows what must be there is always right",
        machine.run,
        _at(40, 250, 20_000),
        _NO_PROMISE,
        "a soak test of hundreds of millions of tests before a release",
    ),
    Experiment(
        "Attacks: links, pipes, devices, other owners, keys and names, hostile texts, claims without end, races",
        "Nothing that was changed is unpickled, nothing outside is touched, nothing hangs, no terminal obeys",
        attacks.run,
        _at(100, 2_000, 100_000),
        "a repository is encrypted and authenticated; who may write into it may delete it",
        "hostile database files do no harm",
    ),
    Experiment(
        "Soak: a snapshot, its upkeep and a SIGKILL, again and again",
        "Descriptors, memory, temporary files and disk stay flat; the newest saved is always there",
        soak.run,
        _at(60, 3_000, 10_000),
        _NO_PROMISE,
        "memory and descriptors are watched for leaks in every test",
    ),
    Experiment(
        "Mutants of the store",
        "A mistake in the store does not go unnoticed by its tests",
        mutants.run,
        _at(2, 100, 100),
        _NO_PROMISE,
        "every branch covered (100% MC/DC), and each branch changed by mutation tests",
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
