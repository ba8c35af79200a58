"""The ways to save a session that are compared. Each saves all of it and brings all of it back.

`load_libraries` is never measured: in a session these have been imported long before.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import states


@dataclass(frozen=True)
class Saved:
    """One save: seconds until it was durable, seconds until the cell may go on, those of them spent copying memory."""

    seconds: float
    pause_seconds: float
    staging_seconds: float
    written_bytes: int


class Ipyrescue:
    """The whole namespace by `ipyrescue.checkpointing` and `ipyrescue.restoring`, as the magics call them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._area: Any = None
        self._origin: Any = None
        self._settings: Any = None
        self._store: Any = None

    def load_libraries(self) -> None:
        """Import what `%load_ext ipyrescue` imports; make the area that a kernel keeps from snapshot to snapshot."""
        from ipyrescue.manifest import Settings
        from ipyrescue.selection import Origin

        os.environ["IPYRESCUE_KEY_FILE"] = str(self._folder / "key")
        self._origin = Origin("benchmark.ipynb", "b" * 16, "here")
        self._settings = Settings()
        self._area = _timed_area()

    def save(self, namespace: dict[str, Any]) -> Saved:
        """Capture in the pause, then write; the bytes written are what the store's folder grew by."""
        from ipyrescue.checkpointing import capture, write
        from ipyrescue.selection import Occasion

        store = self._open()
        before = _folder_bytes(self._folder)
        self._area.seconds = 0.0
        start = time.perf_counter()
        draft = capture(
            namespace, store, self._area, origin=self._origin, occasion=Occasion(), settings=self._settings
        )  # fmt: skip
        paused = time.perf_counter()
        write(draft, store)
        durable = time.perf_counter()
        return Saved(durable - start, paused - start, self._area.seconds, _folder_bytes(self._folder) - before)

    def restore(self, namespace: dict[str, Any]) -> None:
        """Find, read, check and bind everything."""
        from ipyrescue.restoring import Scope, find, restore

        store = self._open()
        found = find(store, None, notebook=self._origin.notebook, incarnation="c" * 16)
        restored = restore(namespace, store, found, Scope())
        if restored.skipped:
            raise AssertionError(f"not restored: {restored.skipped}")

    def finish(self, namespace: dict[str, Any]) -> None:
        """Everything is there already."""

    def _open(self) -> Any:
        from ipyrescue.store import Store, signing

        if self._store is None:
            self._store = Store.open(self._folder / "store", signing.load_key(create=True), create=True)
        return self._store


def _timed_area() -> Any:
    from ipyrescue.capture.staging import StagingArea

    class TimedArea(StagingArea):
        """A staging area that knows how long its copying took."""

        seconds = 0.0

        def hold_all(self, spans: Iterable[tuple[int, int]], owners: Iterable[Any] = ()) -> list[memoryview]:
            start = time.perf_counter()
            try:
                return super().hold_all(spans, owners)  # `hold` comes through here as well
            finally:
                self.seconds += time.perf_counter() - start

    return TimedArea()


class TorchSave:
    """`torch.save` of the model's and optimizer's state dicts and all other variables; fsync, then rename."""

    durable = True

    def __init__(self, folder: Path) -> None:
        self._file = folder / "state.pt"
        self._loaded: Any = None

    def load_libraries(self) -> None:
        """Torch is there already."""

    def save(self, namespace: dict[str, Any]) -> Saved:
        """Write all of it; the cell waits until the end."""
        import torch

        rest = {name: namespace[name] for name in states.data_names(namespace)}
        state = {"model": namespace["net"].state_dict(), "opt": namespace["opt"].state_dict(), "rest": rest}
        return save_file(self._file, lambda path: torch.save(state, path), durable=self.durable)

    def restore(self, namespace: dict[str, Any]) -> None:
        """`torch.load` alone; putting it into a live model comes on top and is `finish`."""
        import torch

        self._loaded = torch.load(self._file, weights_only=False)

    def finish(self, namespace: dict[str, Any]) -> None:
        """Define the classes again, make a model and an optimizer, and copy the state dicts into them."""
        states.build_untrained(namespace)
        namespace["net"].load_state_dict(self._loaded["model"])
        namespace["opt"].load_state_dict(self._loaded["opt"])
        namespace.update(self._loaded["rest"])


class TorchSaveUnsafe(TorchSave):
    """The same without fsync: what most notebooks do, and what a power cut leaves empty."""

    durable = False


class Dill:
    """`dill.dump_module` of the live session; fsync, then rename."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "session.dill"

    def load_libraries(self) -> None:
        """Import dill, and let it find what it looks for.

        dill 0.4 cannot pickle any optimizer of torch 2.13 (`torch.optim.adam` is the module's name, but no attribute of
        `torch.optim` any more), so without these two lines it would save nothing at all.
        """
        import dill
        import torch

        for name in ("adam", "optimizer"):
            setattr(torch.optim, name, sys.modules[f"torch.optim.{name}"])
        dill.session._main_module = sys.modules["__main__"]

    def save(self, namespace: dict[str, Any]) -> Saved:
        """Write all of it; the cell waits until the end."""
        import dill

        return save_file(self._file, lambda path: dill.dump_module(str(path)), durable=True)

    def restore(self, namespace: dict[str, Any]) -> None:
        """Load the session into `__main__`."""
        import dill

        dill.load_module(str(self._file))

    def finish(self, namespace: dict[str, Any]) -> None:
        """Everything is there already."""


CONTENDERS: dict[str, type[Ipyrescue] | type[TorchSave] | type[Dill]] = {
    "ipyrescue": Ipyrescue,
    "torch.save + fsync": TorchSave,
    "torch.save": TorchSaveUnsafe,
    "dill": Dill,
}


def save_file(final: Path, write: Callable[[Path], object], *, durable: bool) -> Saved:
    temporary = final.with_suffix(".tmp")
    start = time.perf_counter()
    write(temporary)
    if durable:
        _sync(temporary)
    os.replace(temporary, final)
    if durable:
        _sync(final.parent)
    seconds = time.perf_counter() - start
    return Saved(seconds, seconds, 0.0, final.stat().st_size)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _folder_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
