"""%load_ext and %unload_ext: what IPython calls. Loading arms detection; it checkpoints nothing by itself."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any

from traitlets import Unicode
from traitlets.config import Configurable

from ipyrescue.errors import RescueError
from ipyrescue.kernel import report
from ipyrescue.kernel.life import describe_death, previous_death
from ipyrescue.kernel.magics import RescueMagics
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.manifest import Snapshot
from ipyrescue.settings import KNOBS, Configuration, resolve

_ATTRIBUTE = "_ipyrescue"


class IPyRescue(Configurable):
    """Settings of ipyrescue in IPython's own configuration: `%config IPyRescue` lists them.

    An empty value means the default; an IPYRESCUE_* environment variable or an argument of a magic wins.
    """

    def configured(self) -> dict[str, str]:
        """The values that were set here."""
        return {name: getattr(self, name) for name in self.trait_names(config=True) if getattr(self, name)}


for _knob in KNOBS:
    setattr(IPyRescue, _knob.name, Unicode("", help=_knob.help).tag(config=True))
IPyRescue.setup_class(IPyRescue.__dict__.copy())  # type: ignore[attr-defined]


def load(shell: Any) -> None:
    """Register the magics, begin the life record, and say in one line what is protected or what died."""
    if recorder_of(shell) is not None:
        return
    configurable = IPyRescue(parent=shell)
    shell.configurables.append(configurable)

    def configuration() -> Configuration:
        return resolve(os.environ, configurable.configured())

    recorder = Recorder(shell, configuration)
    setattr(shell, _ATTRIBUTE, recorder)
    shell.register_magics(RescueMagics(shell, recorder))
    recorder.start()
    print(greeting(recorder))


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
    shell.configurables[:] = [c for c in shell.configurables if not isinstance(c, IPyRescue)]
    delattr(shell, _ATTRIBUTE)


def recorder_of(shell: Any) -> Recorder | None:
    """The Recorder of a shell, if the extension is loaded there."""
    found: Recorder | None = getattr(shell, _ATTRIBUTE, None)
    return found


def greeting(recorder: Recorder) -> str:
    """One line when nothing happened; after a death, what died, what is saved and what to type."""
    where = recorder.identity
    death = previous_death(where.store_root, where.notebook, recorder.incarnation)
    try:
        snapshots = recorder.store().snapshots(where.notebook)
    except RescueError:
        snapshots = []
    if death is None:
        return report.loaded_line(where, recorder.free_bytes(), snapshots)
    mine = [s for s in snapshots if s.incarnation == death.life.incarnation]
    return describe_death(death, _newest(mine, snapshots), _newer_interrupted(mine), datetime.now(timezone.utc))


def _newest(mine: list[Snapshot], all_of_notebook: list[Snapshot]) -> Snapshot | None:
    consistent = [s for s in (*mine, *all_of_notebook) if s.consistent]
    return consistent[0] if consistent else None


def _newer_interrupted(mine: list[Snapshot]) -> Snapshot | None:
    return mine[0] if mine and not mine[0].consistent else None
