"""The public functions: the verbs of the package, with the namespace and the store of this session filled in.

The session is the kernel's where IPython runs; else that of the script or the prompt (`ipyrescue.kernel.script`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from ipyrescue.errors import RescueError, RestoreError
from ipyrescue.kernel.frames import Frames
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.kernel.script import Script, is_definition
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.restoring import Restored, Scope
from ipyrescue.selection import Occasion
from ipyrescue.settings import resolve
from ipyrescue.training import progress


def checkpoint(names: Sequence[str] = (), *, label: str | None = None) -> Snapshot:
    """Make a snapshot of this session's namespace, a script's being `__main__`; it is durable when this returns.

    *names* (globs allowed) must be in it: `CheckpointError` if one cannot be saved. The rest of the namespace
    is saved as far as it can be; see the snapshot's `skipped`. Raises `StoreError` when the disk refuses.
    """
    with worded() as here:
        return here.checkpoint(Occasion(cut="line", label=label), here.settled(Settings(tagged=tuple(names))))


def restore(
    source: str | None = None,
    *,
    names: Sequence[str] = (),
    keep_existing: bool = False,
    device: Literal["cpu"] | None = None,
    prefix: str = "",
    force: bool = False,
    keep_classes: bool = False,
    safe: bool = False,
    into: Any = None,
) -> Restored:
    """Bind a snapshot's variables into this session's namespace, or *into* a mapping.

    *source* is an id prefix, a label or `latest~N`; without it, the newest consistent snapshot of the kernel that
    died, else of this notebook. *names* may be globs. With *device* `cpu` all tensors come back there, else each where
    it was. With *prefix* `old_`, `model` is bound as `old_model`; then, and with *into*, functions find the globals
    that came back with them, then those of the namespace, and random streams stay. *force* separates names that share
    objects; with *keep_classes* instances belong to the class that the namespace has. A restore of everything leaves a
    script the functions and classes that it has defined already: its text is the truth.

    *safe* unpickles nothing, so that the snapshot may be anybody's: tensors and arrays come on the CPU, and None, bool,
    int, float, str, bytes, list, tuple and dict of such; of a module or an optimizer a dict of its tensors by dotted
    name. *into* may then be a live module, which takes the tensors of one variable, strictly.

    Raises `SnapshotNotFoundError`, `UntrustedError`, `CorruptError` or `RestoreError`; everything is then as it was.
    """
    if device not in (None, "cpu"):
        raise RestoreError(f"Nothing was restored: device={device!r} is no choice. Say device='cpu', or leave it out.")
    if prefix and not prefix.isidentifier():
        raise RestoreError(f"Nothing was restored: prefix={prefix!r} begins no name. Say prefix='old_'.")
    with worded() as here:
        if safe:
            if force or keep_classes:
                raise RestoreError("Nothing was restored: with safe=True there is nothing to force, and no class.")
            return here.restore_safely(source, Scope(tuple(names), keep_existing, prefix=prefix), into=into)
        beside = bool(names or prefix) or into is not None
        scope = Scope(tuple(names), keep_existing, device, prefix, force, keep_classes)
        if here.notebook.is_script and not beside:
            return restore_script(here, source, scope)
        return here.restore(source, scope, into=into)


def snapshots(*, all_notebooks: bool = False) -> list[Snapshot]:
    """The snapshots of this notebook or script, newest first; all that the store holds with *all_notebooks*."""
    with worded() as here:
        return here.notebook.snapshots(every_notebook=all_notebooks)


def frames() -> Frames:
    """The functions of cells that ran when what this kernel restored last was saved, outermost first.

    Each has a `function`, the `cell` that defined it, the `line` where it stood, and its `locals`, a dict. What they
    shared with variables they share still: `ipyrescue.frames()[0].locals["model"] is model`. Only a full restore brings
    them, and none of them is bound to a name.
    """
    progress.frames_are_taken()
    return recorder().notebook.frames


# --- whose session it is ----------------------------------------------------------------------------------------


_of_script: tuple[int, Recorder] | None = None
"""The recorder of a process without IPython, and the process: a forked child is a session of its own."""


def recorder() -> Recorder:
    """The one that works for this session, made when it is first asked for. Raises `RescueError`."""
    shell = _shell()
    return _recorder_of_script() if shell is None else _recorder_of_kernel(shell)


def _shell() -> Any:
    """The IPython that runs here, if one does; a script need not load it for the answer."""
    module = sys.modules.get("IPython.core.getipython")
    return module.get_ipython() if module is not None else None


def _recorder_of_kernel(shell: Any) -> Recorder:
    from ipyrescue.kernel import extension

    if extension.recorder_of(shell) is None:
        shell.extension_manager.load_extension("ipyrescue")
    found = extension.recorder_of(shell)
    assert found is not None
    return found


def _recorder_of_script() -> Recorder:
    global _of_script
    if _of_script is None or _of_script[0] != os.getpid():
        script = Script()
        made = Recorder(script, lambda: resolve(os.environ, {}))
        made.life.broken_off = script.broken_off
        made.start(unasked=True)
        _of_script = os.getpid(), made
    return _of_script[1]


def is_worker() -> bool:
    """Whether this process works for another one that `multiprocessing` knows: it runs the script, and is not it."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


@contextlib.contextmanager
def worded() -> Iterator[Recorder]:
    """The recorder of this session; errors say what to type here, where there may be no magics."""
    here = recorder()
    try:
        yield here
    except RescueError as error:
        error.args = tuple(here.notebook.worded(said) if isinstance(said, str) else said for said in error.args)
        raise


def restore_script(here: Recorder, source: str | None, scope: Scope) -> Restored:
    """Restore everything into a script, but for the functions and classes that it has defined already."""
    namespace = vars(sys.modules["__main__"])
    defined = {name: value for name, value in namespace.items() if is_definition(value)}
    restored = here.restore(source, replace(scope, keep_classes=True))
    kept = {name: value for name, value in defined.items() if name in restored.names}
    namespace.update(kept)
    warnings = tuple(map(here.notebook.worded, restored.warnings))
    return replace(restored, kept=(*restored.kept, *kept), warnings=warnings)
