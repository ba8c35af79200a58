"""A whole process, stopped or given an error by strace at each of its system calls. Needs strace.

`victim.py` makes one more snapshot in a store; what it says and what the store is like afterwards must fit.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.store.conftest import save_to
from torture.judging import KEY, create, goes_on, problems
from torture.outcome import Outcome, scratch

VICTIM = Path(__file__).parents[1] / "crash" / "victim.py"
CALLS = "openat,mkdir,write,writev,pwrite64,fsync,fchmod,close,link,linkat,rename,unlink,flock,fcntl"
CODES = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES", "ESTALE", "EINTR")
_WORKERS = 2
_OLD = [b"old" * 5000, b"shared" * 1000]


def run_kills(cases: int) -> Outcome:
    """SIGKILL at each of the first *cases* calls."""
    return _sweep(cases, [("signal=KILL", "")])


def run_errors(cases: int) -> Outcome:
    """Each error at each call, once and from then on; *cases* of them, spread over all."""
    every = [(f"error={code}", sticky) for code in CODES for sticky in ("", "+")]
    # Python asks again after EINTR, as it must; for good that never ends, and no system does that.
    return _sweep(cases, [what for what in every if what != ("error=EINTR", "+")])


def command(root: Path, key: Path) -> list[str]:
    """What makes one more snapshot in the store at *root*."""
    return [sys.executable, "-X", "frozen_modules=on", str(VICTIM), str(root), str(key)]


def store_calls(log: Path, root: Path) -> list[tuple[str, int]]:
    """Each call that the victim made once it had touched the store, as (name, which of its name)."""
    seen: Counter[tuple[str, str]] = Counter()  # strace counts for each thread
    started, found = False, []
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d*) *(\w+)\(", line)
        if match is None:
            continue
        thread, name = match[1], match[2]
        seen[thread, name] += 1
        started = started or str(root) in line
        if started:
            found.append((name, seen[thread, name]))
    return found


def _sweep(cases: int, injections: list[tuple[str, str]]) -> Outcome:
    if shutil.which("strace") is None:
        return Outcome(failures=["there is no strace: apt-get install strace"])
    outcome = Outcome()
    with scratch() as folder, ThreadPoolExecutor(_WORKERS) as pool:
        origin, key = folder / "origin", folder / "key"
        key.write_bytes(KEY.secret)
        key.chmod(0o600)
        kept = {save_to(create(origin), *_OLD).id: _OLD}
        every = list(itertools.product(_calls(folder, origin, key), injections))
        chosen = every[:: max(1, len(every) // cases)]
        inject = [(call, what, folder / f"live-{number}") for number, (call, what) in enumerate(chosen)]
        for (call, what, root), said in pool.map(lambda case: (case, _victim(origin, key, *case)), inject):
            wrong = [*_told(said, what), *problems(root, kept, said=said.stdout.split()), *goes_on(root)]
            outcome.count(f"{what[0]}{what[1]} at {call[0]} {call[1]}", wrong)
            shutil.rmtree(root)
    outcome.note = f"{len(every)} would be all"
    return outcome


def _calls(folder: Path, origin: Path, key: Path) -> Iterator[tuple[str, int]]:
    """The calls of an undisturbed run."""
    root, log = folder / "undisturbed", folder / "log"
    shutil.copytree(origin, root)
    subprocess.run(
        ["strace", "-f", "-o", log, "-e", f"trace={CALLS}", *command(root, key)], check=True, env=_of_this_checkout()
    )
    # The threads that write and hash make theirs in an order that is not always the same: close enough to hit them all.
    return iter(store_calls(log, root))


def _victim(
    origin: Path, key: Path, call: tuple[str, int], what: tuple[str, str], root: Path
) -> subprocess.CompletedProcess[str]:
    shutil.copytree(origin, root)
    inject = f"inject={call[0]}:{what[0]}:when={call[1]}{what[1]}"
    strace = ["strace", "-f", "-o", os.devnull, "-e", f"trace={call[0]}", "-e", inject]
    return subprocess.run([*strace, *command(root, key)], capture_output=True, text=True, env=_of_this_checkout())


def _of_this_checkout() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def _told(said: subprocess.CompletedProcess[str], what: tuple[str, str]) -> list[str]:
    """An error that was not got over ends in an exception of ours, with a sentence, or does not come from the store.

    Once every call fails the interpreter itself may not find the words any more.
    """
    if said.returncode == 0 or not what[0].startswith("error") or what[1]:
        return []
    last = said.stderr.strip().splitlines()[-1:] or ["nothing"]
    ours = last[0].startswith("ipyrescue.errors.") and last[0].endswith(".")
    return [] if ours or "ipyrescue/store" not in said.stderr else [f"it said {last[0]!r}"]


assert set(CODES) <= set(errno.errorcode.values())
