"""Errors of the system at each call that a snapshot makes, once and from then on, one os function at a time."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipyrescue.errors import StoreError
from ipyrescue.store import Store
from tests.store.conftest import save_to
from torture.judging import KEY, create, goes_on, problems
from torture.outcome import Outcome, scratch

CALLS = (
    "open", "write", "writev", "fsync", "fchmod", "close", "link", "unlink", "listdir", "lstat", "fstat", "preadv",
    "mkdir", "flock",
)  # fmt: skip
CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ESTALE)
"""Not EINTR, which Python itself deals with: the system calls under it are interrupted by `syscalls`."""


def run(cases: int) -> Outcome:
    """Every call, once and from then on, in a used and in a new store, with every error: some 2400 cases.

    Where less than that is asked for the errors take turns (400), and below that the store is a used one (200).
    """
    outcome = Outcome()
    with scratch() as folder:
        origin = folder / "origin"
        old = [b"old" * 5000, b"shared" * 1000]
        kept = {save_to(create(origin), *old).id: old}
        todo = list(itertools.product(CALLS, (False, True), (False, True) if cases >= 400 else (False,)))
        for number, (call, sticky, new) in enumerate(todo):
            codes = CODES if cases >= 2400 else (CODES[number % len(CODES)],)
            for code in codes:
                if (call, code) == ("flock", errno.EACCES):
                    continue  # so some systems say that another one holds it
                _sweep(outcome, folder, None if new else origin, {} if new else kept, call, code, sticky)
    return outcome


def _sweep(outcome: Outcome, folder: Path, origin: Path | None, kept: Any, call: str, code: int, sticky: bool) -> None:
    """Fail at the first, second, ... use of *call* until a snapshot uses it no more often than that."""
    root = folder / "live"
    for nth in itertools.count(1):
        shutil.rmtree(root, ignore_errors=True)
        if origin is not None:
            shutil.copytree(origin, root)
        with _failing(call, nth, code, sticky=sticky) as fault:
            said, message = attempt(root)
        if not fault.struck:
            return
        case = f"{errno.errorcode[code]} by {call} {nth}{' and on' if sticky else ''} in a {_past(origin)} store"
        outcome.count(case, [*_judged(root, kept, said, message, fault), *afterwards(root, kept)])


def _past(origin: Path | None) -> str:
    return "new" if origin is None else "used"


def attempt(root: Path) -> tuple[list[str], str]:
    """Make a snapshot, and its store where there is none: the ids said to be saved, and what was said else."""
    try:
        return [save_to(Store.open(root, KEY, create=True), b"new" * 9000, b"shared" * 1000).id], ""
    except StoreError as error:
        return [], str(error)
    except Exception as error:  # noqa: BLE001 - which other exception there is, is the question
        return [], f"no sentence: {error!r}"


def unclear(said: list[str], message: str) -> list[str]:
    """What is wrong with what `attempt` said: nothing saved, and no sentence why."""
    return [] if said or is_sentence(message) else [f"the message is {message!r}"]


def is_sentence(message: str) -> bool:
    """Whether it ends as ours do: with a full stop, or with what to type."""
    return not message.startswith("no sentence") and re.search(r"\.$|: ipyrescue [^.]*$", message) is not None


def _judged(root: Path, kept: Any, said: list[str], message: str, fault: _Fault) -> list[str]:
    """What is wrong just after the error."""
    found = ["an fsync error was tried again on the same file"] * fault.repeated + unclear(said, message)
    if not root.exists() or not (root / "format.json").exists():
        return found
    if fault.call not in ("unlink", "open", "mkdir") and (root / "tmp").exists() and os.listdir(root / "tmp"):
        found.append(f"tmp/ keeps {os.listdir(root / 'tmp')}")
    return found + problems(root, kept, said=said)


def afterwards(root: Path, kept: Any) -> list[str]:
    """The error is gone: the next snapshot works, and the earlier ones are still there."""
    try:
        return [*goes_on(root), *problems(root, kept)]
    except (StoreError, OSError) as error:
        return [f"it does not go on: {error}"]


class _Fault:
    """What came of it: whether the call was used so often, and whether an fsync was tried again after its error."""

    def __init__(self, call: str) -> None:
        self.call, self.struck, self.repeated = call, False, False
        self._unsynced: set[int] = set()

    def note_sync(self, inode: int, *, failed: bool) -> None:
        """An fsync of this file, which is never to come a second time after an error."""
        self.repeated = self.repeated or inode in self._unsynced
        if failed:
            self._unsynced.add(inode)


@contextmanager
def _failing(call: str, nth: int, code: int, *, sticky: bool) -> Iterator[_Fault]:
    """Let the *nth* use of an os function fail with *code*, and all later ones where *sticky*."""
    fault, used = _Fault(call), itertools.count(1)
    owner = fcntl if call == "flock" else os
    real = getattr(owner, call)

    def hooked(*args: Any, **kwargs: Any) -> Any:
        number = next(used)
        fails = number == nth or (sticky and number > nth)
        if call == "fsync":
            fault.note_sync(os.fstat(args[0]).st_ino, failed=fails)
        if not fails:
            return real(*args, **kwargs)
        fault.struck = True
        if call == "close":
            real(*args)  # Linux closes whatever it answers
        raise OSError(code, os.strerror(code))

    setattr(owner, call, hooked)
    try:
        yield fault
    finally:
        setattr(owner, call, real)
