"""The public functions: the verbs of the package, with this kernel's namespace and store filled in."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Literal

from ipyrescue.errors import RescueError, RestoreError
from ipyrescue.kernel import extension
from ipyrescue.kernel.frames import Frames
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.restoring import Restored, Scope
from ipyrescue.selection import Occasion


def checkpoint(names: Sequence[str] = (), *, label: str | None = None) -> Snapshot:
    """Make a snapshot of this kernel's namespace; it is durable when this returns.

    *names* (globs allowed) must be in it: `CheckpointError` if one cannot be saved. The rest of the namespace
    is saved as far as it can be; see the snapshot's `skipped`. Raises `StoreError` when the disk refuses.
    """
    recorder = _recorder()
    return recorder.checkpoint(Occasion(cut="line", label=label), recorder.settled(Settings(tagged=tuple(names))))


def restore(
    source: str | None = None,
    *,
    names: Sequence[str] = (),
    keep_existing: bool = False,
    device: Literal["cpu"] | None = None,
    prefix: str = "",
    force: bool = False,
    keep_classes: bool = False,
    into: MutableMapping[str, Any] | None = None,
) -> Restored:
    """Bind a snapshot's variables into this kernel's namespace, or *into* a mapping.

    *source* is an id prefix, a label or `latest~N`; without it, the newest consistent snapshot of the kernel that
    died, else of this notebook. *names* may be globs. With *device* `cpu` all tensors come back there, else each where
    it was. With *prefix* `old_`, `model` is bound as `old_model`; then, and with *into*, functions find the globals
    that came back with them, then those of the namespace, and random streams stay. *force* separates names that share
    objects; with *keep_classes* instances belong to the class that the namespace has. Raises `SnapshotNotFoundError`,
    `UntrustedError`, `CorruptError` or `RestoreError`; everything is then as it was.
    """
    if device not in (None, "cpu"):
        raise RestoreError(f"Nothing was restored: device={device!r} is no choice. Say device='cpu', or leave it out.")
    if prefix and not prefix.isidentifier():
        raise RestoreError(f"Nothing was restored: prefix={prefix!r} begins no name. Say prefix='old_'.")
    scope = Scope(tuple(names), keep_existing, device, prefix, force, keep_classes)
    return _recorder().restore(source, scope, into=into)


def snapshots(*, all_notebooks: bool = False) -> list[Snapshot]:
    """The snapshots of this notebook, newest first; of every notebook in the store with *all_notebooks*."""
    return _recorder().notebook.snapshots(every_notebook=all_notebooks)


def frames() -> Frames:
    """The functions of cells that ran when what this kernel restored last was saved, outermost first.

    Each has a `function`, the `cell` that defined it, the `line` where it stood, and its `locals`, a dict. What they
    shared with variables they share still: `ipyrescue.frames()[0].locals["model"] is model`. Only a full restore brings
    them, and none of them is bound to a name.
    """
    return _recorder().notebook.frames


def _recorder() -> Recorder:
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell is None:
        raise RescueError("No IPython is running here. In a notebook or in `ipython`, type: %load_ext ipyrescue")
    if extension.recorder_of(shell) is None:
        shell.extension_manager.load_extension("ipyrescue")
    recorder = extension.recorder_of(shell)
    assert recorder is not None
    return recorder
