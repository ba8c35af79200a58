"""Jupyter sessions that survive the death of their kernel.

    %load_ext ipyrescue
    %checkpoint_vars model opt every=5m       # and after a crash, in the new kernel:
    %restore_vars

Names resolve when they are first used: a server or a terminal that imports ipyrescue never loads what unpickles.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipyrescue.errors import (
        CheckpointError,
        CorruptError,
        RescueError,
        RestoreError,
        RunError,
        SnapshotNotFoundError,
        StoreBusyError,
        StoreError,
        StoreFormatError,
        UntrustedError,
    )
    from ipyrescue.kernel.guard import guard
    from ipyrescue.kernel.resuming import resume
    from ipyrescue.kernel.session import checkpoint, frames, restore, snapshots
    from ipyrescue.manifest import Skipped, Snapshot
    from ipyrescue.restoring import Restored
    from ipyrescue.training.batches import batches
    from ipyrescue.training.loop import loop

    __version__: str

__all__ = [
    "CheckpointError",
    "CorruptError",
    "RescueError",
    "RestoreError",
    "Restored",
    "RunError",
    "Skipped",
    "Snapshot",
    "SnapshotNotFoundError",
    "StoreBusyError",
    "StoreError",
    "StoreFormatError",
    "UntrustedError",
    "__version__",
    "batches",
    "checkpoint",
    "frames",
    "guard",
    "loop",
    "restore",
    "resume",
    "snapshots",
]

_HOME = {
    "Restored": "ipyrescue.restoring",
    "Skipped": "ipyrescue.manifest",
    "Snapshot": "ipyrescue.manifest",
    "batches": "ipyrescue.training.batches",
    "checkpoint": "ipyrescue.kernel.session",
    "frames": "ipyrescue.kernel.session",
    "loop": "ipyrescue.training.loop",
    "guard": "ipyrescue.kernel.guard",
    "restore": "ipyrescue.kernel.session",
    "resume": "ipyrescue.kernel.resuming",
    "snapshots": "ipyrescue.kernel.session",
}
"""Where a public name lives; the errors all live in `ipyrescue.errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ipyrescue' has no attribute {name!r}")
    if name == "__version__":
        return _version()
    return getattr(import_module(_HOME.get(name, "ipyrescue.errors")), name)


def _version() -> str:
    metadata = import_module("importlib.metadata")
    try:
        return str(metadata.version("ipyrescue"))
    except metadata.PackageNotFoundError:  # a source tree on the path, not installed
        return "unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: Any) -> None:
    """Answer `%load_ext ipyrescue`: register the magics, and say so if the last kernel died."""
    import_module("ipyrescue.kernel.extension").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Answer `%unload_ext ipyrescue`: leave nothing behind."""
    import_module("ipyrescue.kernel.extension").unload(shell)


def _jupyter_server_extension_points() -> Any:
    """Answer `jupyter server extension disable ipyrescue`, which is what people type."""
    return import_module("ipyrescue.server")._jupyter_server_extension_points()
