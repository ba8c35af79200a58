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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.store.conftest import snapshot_of
from torture import kills
from torture.faults import is_sentence
from torture.judging import KEY, Contents, create, goes_on, problems
from torture.outcome import Outcome, scratch

VICTIM = Path(__file__).parents[1] / "crash" / "victim.py"
CALLS = "openat,mkdir,write,writev,pwrite64,fsync,fchmod,close,link,linkat,rename,unlink,flock,fcntl"
CODES = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES", "ESTALE", "EINTR")
LAYOUTS = {
    "three blobs": (6000, 9000, 3),
    "nothing new": (6000,),
    "an empty one": (6000, 0, 5),
    "many": (6000, *[700] * 40),
    "large": (6000, *[1 << 20] * 9, 5),
}
"""The sizes of a snapshot's blobs; the first one some stores have already."""
_WORKERS = 2


@dataclass(frozen=True)
class _Scene:
    """A store of some past, a copy of which gets one more snapshot of some layout."""

    name: str
    origin: Path
    kept: Contents
    command: Callable[[Path], list[str]]


def run_kills(cases: int) -> Outcome:
    """SIGKILL at each call, *cases* of them, spread over all layouts and pasts."""
    return _sweep(cases, [("signal=KILL", "")], LAYOUTS, kills.PASTS)


def run_errors(cases: int) -> Outcome:
    """Each error at each call, once and from then on; *cases* of them, spread over all pasts."""
    every = [(f"error={code}", sticky) for code in CODES for sticky in ("", "+")]
    # Python asks again after EINTR, as it must; for good that never ends, and no system does that.
    injections = [what for what in every if what != ("error=EINTR", "+")]
    return _sweep(cases, injections, ["three blobs"], kills.PASTS)


def command(root: Path, key: Path, pattern: Path, layout: str = "three blobs") -> list[str]:
    """What makes one more snapshot like that in the file *pattern* in the store at *root*."""
    victim = [sys.executable, "-X", "frozen_modules=on", str(VICTIM), str(root), str(key), str(pattern)]
    return [*victim, *map(str, LAYOUTS[layout])]


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


def _sweep(
    cases: int,
    injections: list[tuple[str, str]],
    layouts: Iterable[str],
    pasts: Mapping[str, Callable[[Path], Contents]],
) -> Outcome:
    if shutil.which("strace") is None:
        return Outcome(failures=["there is no strace: apt-get install strace"])
    outcome = Outcome()
    with scratch() as folder, ThreadPoolExecutor(_WORKERS) as pool:
        scenes = _scenes(folder, layouts, pasts)
        found = pool.map(lambda scene: [(scene, call) for call in _calls(folder, scene)], scenes)
        every = list(itertools.product(itertools.chain(*found), injections))
        chosen = every[:: max(1, len(every) // cases)]
        inject = [(*scene_call, what, folder / f"live-{number}") for number, (scene_call, what) in enumerate(chosen)]
        for (scene, call, what, root), said in pool.map(lambda case: (case, _victim(*case)), inject):
            if not (root / "format.json").exists():
                create(root)
            wrong = [*_told(said, what), *problems(root, scene.kept, said=said.stdout.split()), *goes_on(root)]
            outcome.count(f"{scene.name}: {what[0]}{what[1]} at {call[0]} {call[1]}", wrong)
            shutil.rmtree(root)
    outcome.note = f"{len(every):,} would be all"
    return outcome


def _scenes(folder: Path, layouts: Iterable[str], pasts: Mapping[str, Callable[[Path], Contents]]) -> Iterator[_Scene]:
    """Each layout in a store of each past."""
    key, pattern = folder / "key", folder / "pattern"
    key.write_bytes(KEY.secret)
    key.chmod(0o600)
    pattern.write_bytes(snapshot_of().to_bytes())
    for past, prepare in pasts.items():
        origin = folder / past
        kept = prepare(origin)
        for layout in layouts:
            make = partial(command, key=key, pattern=pattern, layout=layout)
            yield _Scene(f"{layout} in a store with {past}", origin, kept, make)


def _calls(folder: Path, scene: _Scene) -> list[tuple[str, int]]:
    """The calls of an undisturbed run."""
    root, log = folder / f"undisturbed {scene.name}", folder / f"log {scene.name}"
    _copy(scene.origin, root)
    strace = ["strace", "-f", "-o", str(log), "-e", f"trace={CALLS}"]
    subprocess.run([*strace, *scene.command(root)], check=True, env=_of_this_checkout(), stdout=subprocess.DEVNULL)
    # The threads that write and hash make theirs in an order that is not always the same: close enough to hit them all.
    return store_calls(log, root)


def _victim(
    scene: _Scene, call: tuple[str, int], what: tuple[str, str], root: Path
) -> subprocess.CompletedProcess[str]:
    _copy(scene.origin, root)
    inject = f"inject={call[0]}:{what[0]}:when={call[1]}{what[1]}"
    strace = ["strace", "-f", "-o", os.devnull, "-e", f"trace={call[0]}", "-e", inject]
    return subprocess.run([*strace, *scene.command(root)], capture_output=True, text=True, env=_of_this_checkout())


def _copy(origin: Path, root: Path) -> None:
    """A store like the one at *origin*; none where there is none."""
    if origin.exists():
        shutil.copytree(origin, root)


def _of_this_checkout() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def _told(said: subprocess.CompletedProcess[str], what: tuple[str, str]) -> list[str]:
    """An error that was not got over ends in an exception of ours, with a sentence, or does not come from the store.

    Once every call fails the interpreter itself may not find the words any more.
    """
    if said.returncode == 0 or not what[0].startswith("error") or what[1]:
        return []
    last = said.stderr.strip().splitlines()[-1:] or ["nothing"]
    ours = last[0].startswith("ipyrescue.errors.") and is_sentence(last[0])
    return [] if ours or "ipyrescue/store" not in said.stderr else [f"it said {last[0]!r}"]


assert set(CODES) <= set(errno.errorcode.values())
