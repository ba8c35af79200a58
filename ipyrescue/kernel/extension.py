"""%load_ext and %unload_ext: what IPython calls. Loading arms detection; it checkpoints nothing by itself."""

from __future__ import annotations

import os
import time
import types
from collections.abc import Iterator
from typing import Any

from traitlets import Unicode
from traitlets.config import Configurable

from ipyrescue import __version__
from ipyrescue.errors import RescueError
from ipyrescue.finding import candidates
from ipyrescue.incarnations.deaths import Death, dismiss, previous_death, still_alive
from ipyrescue.incarnations.obituary import describe_alive, describe_death
from ipyrescue.kernel.magics import RescueMagics
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import KNOBS, Configuration, format_size, resolve
from ipyrescue.store.upkeep import awaiting_restore
from ipyrescue.wording import count

_ATTRIBUTE = "_ipyrescue"


class _Settings(Configurable):
    """Settings of ipyrescue in IPython's own configuration: `%config IPyRescue` lists them.

    An empty value means the default; an IPYRESCUE_* environment variable or an argument of a magic wins.
    """

    def configured(self) -> dict[str, str]:
        """The values that were set here."""
        return {name: getattr(self, name) for name in self.trait_names(config=True) if getattr(self, name)}


def _configurable(shell: Any) -> Any:
    """Make the `IPyRescue` of a shell: one text trait for each knob of `ipyrescue.settings`."""
    traits = {knob.name: Unicode("", help=knob.help).tag(config=True) for knob in KNOBS}
    kind: Any = types.new_class("IPyRescue", (_Settings,), exec_body=lambda body: body.update(traits))
    return kind(parent=shell)


def load(shell: Any) -> None:
    """Register the magics, begin the life record, and say in one line what is protected or what died."""
    if recorder_of(shell) is not None:
        return
    configurable = _configurable(shell)
    shell.configurables.append(configurable)

    def configuration() -> Configuration:
        return resolve(os.environ, configurable.configured())

    recorder = Recorder(shell, configuration)
    setattr(shell, _ATTRIBUTE, recorder)
    shell.register_magics(RescueMagics(shell, recorder))
    recorder.start()
    print(greeting(recorder))  # noqa: T201 - the answer to %load_ext


def unload(shell: Any) -> None:
    """Take back all that `load` did."""
    recorder = recorder_of(shell)
    if recorder is None:
        return
    recorder.stop()
    for table in shell.magics_manager.magics.values():
        for name in RescueMagics.NAMES:
            table.pop(name, None)
    shell.magics_manager.registry.pop(RescueMagics.__name__, None)
    shell.configurables[:] = [c for c in shell.configurables if not isinstance(c, (_Settings, RescueMagics))]
    delattr(shell, _ATTRIBUTE)


def recorder_of(shell: Any) -> Recorder | None:
    """The Recorder of a shell, if the extension is loaded there."""
    found: Recorder | None = getattr(shell, _ATTRIBUTE, None)
    return found


def greeting(recorder: Recorder) -> str:
    """One line when nothing happened; after a death, what died, what is saved and what to type."""
    try:
        return "\n".join(_greeting(recorder, recorder.notebook.snapshots()))
    except RescueError as error:
        return f"ipyrescue: snapshots are out of reach. {error}"


def _greeting(recorder: Recorder, snapshots: list[Snapshot]) -> Iterator[str]:
    notebook, where = recorder.notebook, recorder.notebook.identity
    death = previous_death(where.store_root, where.notebook, notebook.incarnation)
    alive = still_alive(where.store_root, where.notebook, notebook.incarnation)
    if death is not None:
        yield _tell_of(death, recorder, snapshots)
    elif alive is not None:
        yield describe_alive(alive)
    else:
        yield _loaded(recorder, snapshots)
    yield from _out_of_reach(recorder)


def _tell_of(death: Death, recorder: Recorder, snapshots: list[Snapshot]) -> str:
    """Tell of a death and of the snapshot that a plain restore takes; a death that left nothing is told once."""
    notebook, where = recorder.notebook, recorder.notebook.identity
    unrestored = awaiting_restore(where.store_root, notebook.incarnation)
    newest = next(iter(candidates(snapshots, unrestored, where.notebook)), None)
    mine = [s for s in snapshots if s.incarnation == death.life.incarnation]
    if not mine and notebook.key_path.exists() and not notebook.unreadable():
        dismiss(where.store_root, death.life)
    interrupted = mine[0] if mine and not mine[0].consistent else None
    return describe_death(death, newest, interrupted, time.time())


def _out_of_reach(recorder: Recorder) -> Iterator[str]:
    lost = recorder.notebook.lost_key()
    unreadable = recorder.notebook.unreadable()
    if lost is not None:
        yield lost
    elif unreadable:
        yield f"{count(len(unreadable), 'snapshot')} here cannot be read: {unreadable[0].error}"


def _loaded(recorder: Recorder, snapshots: list[Snapshot]) -> str:
    where = recorder.notebook.identity
    store = os.path.relpath(where.store_root, where.path.parent) if where.path else str(where.store_root)
    there = f"{count(len(snapshots), 'snapshot')} there, " if snapshots else ""
    free = format_size(recorder.notebook.free_bytes())
    return (
        f"ipyrescue {__version__}: {where.title}, snapshots in {store} ({there}{free} free). "
        "Nothing is saved yet. To protect it: %checkpoint_vars every=5m   Help: %checkpoint_vars?"
    )
