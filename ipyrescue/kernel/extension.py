"""%load_ext and %unload_ext: what IPython calls. Loading arms detection; it checkpoints nothing by itself."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from typing import Any

from IPython.core.error import UsageError
from traitlets import CUnicode
from traitlets.config import Configurable

from ipyrescue import __version__
from ipyrescue.errors import RescueError
from ipyrescue.finding import Scope
from ipyrescue.kernel.magics import RescueMagics
from ipyrescue.kernel.offering import Offering
from ipyrescue.kernel.recorder import Recorder
from ipyrescue.kernel.report import armed_line
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.settings import KNOBS, Configuration, format_size, resolve
from ipyrescue.wording import count

_ATTRIBUTE = "_ipyrescue"
_OFFERING = "_ipyrescue_offering"


class _Settings(Configurable):
    """Settings of ipyrescue in IPython's own configuration: `%config IPyRescue` lists them.

    An empty value means the default; an IPYRESCUE_* environment variable or an argument of a magic wins.
    """

    def configured(self) -> dict[str, str]:
        """The values that were set here."""
        return {name: getattr(self, name) for name in self.trait_names(config=True) if getattr(self, name)}


def _configurable(shell: Any) -> Any:
    """Make the `IPyRescue` of a shell: a text trait for each knob of `ipyrescue.settings`, which takes `20` as well."""
    traits = {knob.name: CUnicode("", help=knob.help).tag(config=True) for knob in KNOBS}
    kind: Any = types.new_class("IPyRescue", (_Settings,), exec_body=lambda body: body.update(traits))
    return kind(parent=shell)


def load(shell: Any) -> None:
    """Register the magics, begin the life record, and say in one line what is protected or what died."""
    loaded = recorder_of(shell)
    if loaded is not None:
        print(greeting(loaded, getattr(shell, _OFFERING), _running_cell(shell)))  # noqa: T201 - as below
        return
    asked = _is_asked(shell)
    try:
        recorder = _attach(shell, unasked=not asked)
    except RescueError as error:
        told = f"ipyrescue was not loaded: {error}"
        if asked:
            raise UsageError(told) from error
        _tell_with_the_first_cell(shell, told)
        return
    offering = getattr(shell, _OFFERING)
    recorder.before_cells(offering.before_cell)
    if asked:
        print(greeting(recorder, offering, _running_cell(shell)))  # noqa: T201 - the answer to %load_ext
    elif _has_a_reader(shell):
        offering.before_cell("")


def supervise(shell: Any) -> Recorder:
    """Be loaded without a word, for whoever runs the cells and decides what is restored. Raises `RescueError`."""
    recorder = recorder_of(shell) or _attach(shell, unasked=False)
    recorder.supervised = True
    getattr(shell, _OFFERING).waits = False
    return recorder


def _attach(shell: Any, *, unasked: bool) -> Recorder:
    """All of us, or nothing: half of us would promise a protection that no hook gives. Raises `RescueError`."""
    configurable = _configurable(shell)
    shell.configurables.append(configurable)

    def configuration() -> Configuration:
        return resolve(os.environ, configurable.configured())

    recorder = Recorder(shell, configuration)
    magics = RescueMagics(shell, recorder)
    offering = Offering(recorder.notebook, lambda source, device: magics.restore(source, Scope(device=device)))
    setattr(shell, _ATTRIBUTE, recorder)
    setattr(shell, _OFFERING, offering)
    try:
        shell.register_magics(magics)
        recorder.start(unasked=unasked)
        _start_by_itself(recorder)
    except BaseException:
        unload(shell)
        raise
    return recorder


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
    delattr(shell, _OFFERING)


def recorder_of(shell: Any) -> Recorder | None:
    """The Recorder of a shell, if the extension is loaded there."""
    found: Recorder | None = getattr(shell, _ATTRIBUTE, None)
    return found


def greeting(recorder: Recorder, offering: Offering, source: str) -> str:
    """One line when nothing happened; after a death, what died, what is saved and what to type.

    *source* is the cell that loads us: when it restores by itself, nothing is offered.
    """
    try:
        told = offering.at_load(source) or [_loaded(recorder, recorder.notebook.snapshots())]
        return "\n".join([*told, *_out_of_reach(recorder)])
    except RescueError as error:
        return f"ipyrescue: snapshots are out of reach. {error}"


def _is_asked(shell: Any) -> bool:
    """Whether a cell of the user loads us, and not a profile or a cell that a front end runs for itself.

    What is printed while a kernel starts, nobody sees; a terminal shows it.
    """
    if getattr(shell, "kernel", None) is None:
        return len(shell.history_manager.input_hist_parsed) > 1
    content = _request(shell)
    return bool(content.get("store_history")) and not content.get("silent")


def _has_a_reader(shell: Any) -> bool:
    """Whether somebody reads what is printed just now: a terminal, but not one that only runs a script or `-c`."""
    terminal = getattr(shell, "kernel", None) is None
    return terminal and bool(getattr(shell.parent, "interact", True))


def _tell_with_the_first_cell(shell: Any, text: str) -> None:
    """Print *text* before the output of the user's next cell: what a profile says while a kernel starts is lost."""
    if getattr(shell, "kernel", None) is None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - a terminal shows it
        return

    def tell(info: Any) -> None:
        if info.store_history and not info.silent:
            shell.events.unregister("pre_run_cell", tell)
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - in a cell, on the main thread

    shell.events.register("pre_run_cell", tell)


def _running_cell(shell: Any) -> str:
    return str(_request(shell).get("code", "")) if getattr(shell, "kernel", None) is not None else ""


def _request(shell: Any) -> dict[str, Any]:
    """The content of the message that the kernel answers just now; empty while it starts."""
    parent = shell.kernel.get_parent()
    content = parent.get("content") if isinstance(parent, dict) else None
    return content if isinstance(content, dict) else {}


def _start_by_itself(recorder: Recorder) -> None:
    """Arm where the configuration says so. Without it nothing is saved until %checkpoint_vars."""
    every_seconds = recorder.notebook.configuration.autostart_seconds
    if every_seconds is not None:
        recorder.arm(Settings(every_seconds=every_seconds))


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
    told = f"ipyrescue {__version__}: {where.title}, snapshots in {store} ({there}{free} free). "
    if recorder.armed is not None:
        return told + armed_line(recorder.armed.settings)
    return told + "Nothing is saved yet. To protect it: %checkpoint_vars every=5m   Help: %checkpoint_vars?"
