"""What can go wrong, grouped by what the catcher does about it.

    RescueError
    ├── StoreError                 the bytes on disk: missing, damaged, full, busy
    │   ├── SnapshotNotFoundError  (also LookupError)
    │   ├── CorruptError           bytes that are not what was written
    │   ├── UntrustedError         the signature is not ours; nothing was unpickled
    │   ├── StoreFormatError       written by a newer ipyrescue
    │   └── StoreBusyError         (also TimeoutError)
    ├── CheckpointError            the snapshot was not made; the old ones are intact
    ├── RestoreError               nothing was bound; the namespace is as before
    └── RunError                   a run could not start, be found or be stopped
        └── RunNotFoundError       (also LookupError)

A variable that refuses to be saved is no error but data: see `ipyrescue.manifest.Skipped`.
Every message says what happened, to which thing, and what to type next.
"""

from __future__ import annotations


class RescueError(Exception):
    """Base of every error that ipyrescue raises on purpose."""


class StoreError(RescueError):
    """The bytes on disk are missing, damaged, full or out of reach. What was there before is intact."""


class SnapshotNotFoundError(StoreError, LookupError):
    """No snapshot matches what was asked for."""


class CorruptError(StoreError):
    """Bytes on disk are not those that were written. Nothing of them was unpickled."""


class UntrustedError(StoreError):
    """A manifest's signature is not ours. Nothing of the snapshot was unpickled."""


class StoreFormatError(StoreError):
    """The store was written by a newer ipyrescue than this one."""


class StoreBusyError(StoreError, TimeoutError):
    """Another process holds the store's lock. Nothing was written."""


class CheckpointError(RescueError):
    """The snapshot was not made. The older ones are intact."""


class RestoreError(RescueError):
    """Nothing was bound. The namespace is as it was."""


class RunError(RescueError):
    """A run could not start, be found or be stopped. What it has saved is intact."""


class RunNotFoundError(RunError, LookupError):
    """No run has this name."""
