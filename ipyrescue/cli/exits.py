"""Errors to exit codes. The table is part of the interface: codes are added, never changed."""

from __future__ import annotations

from enum import IntEnum

from ipyrescue.errors import (
    CorruptError,
    RescueError,
    RunNotFoundError,
    SnapshotNotFoundError,
    StoreError,
    UntrustedError,
)


class Exit(IntEnum):
    """How a command ended, for the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DAMAGED = 3
    NOT_FOUND = 4
    UNTRUSTED = 5
    RUN_DIED = 6
    STOPPED = 75
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done, and nothing is wrong",
    Exit.FAILED: "failed or refused; the message says why and what to type next; a cell of a run raised",
    Exit.USAGE: "the command line is wrong",
    Exit.DAMAGED: "something in the store is damaged, or only a part was done",
    Exit.NOT_FOUND: "no such snapshot or run, or no store there",
    Exit.UNTRUSTED: "signed with a key that is not yours",
    Exit.RUN_DIED: "the kernel or the script of a run died, and no retry was left",
    Exit.STOPPED: "a run was stopped after a snapshot (stop, SIGTERM, SIGUSR1); ipyrescue resume goes on",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}
"""Printed by `ipyrescue --help`."""


class NoStoreError(StoreError):
    """There is no store where the command was told to look."""


def exit_code(error: RescueError) -> Exit:
    """The code for an error that ends a command."""
    if isinstance(error, (SnapshotNotFoundError, NoStoreError, RunNotFoundError)):
        return Exit.NOT_FOUND
    if isinstance(error, CorruptError):
        return Exit.DAMAGED
    if isinstance(error, UntrustedError):
        return Exit.UNTRUSTED
    return Exit.FAILED
