"""Namespaces as cells see them, without a kernel: code runs in a fresh `__main__`, snapshots go to a real store."""

from __future__ import annotations

import linecache
import secrets
import sys
import types
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipyrescue import checkpointing, restoring, stack
from ipyrescue.capture.fence import Fence
from ipyrescue.capture.staging import StagingArea
from ipyrescue.manifest import Settings, Snapshot
from ipyrescue.restoring import Restored, Scope
from ipyrescue.selection import Occasion, Origin
from ipyrescue.store import Store, signing


@dataclass
class Life:
    """One kernel life: a `__main__` of its own, and the verbs over one store."""

    store: Store
    notebook: str = "train.ipynb"
    incarnation: str = field(default_factory=lambda: secrets.token_hex(8))
    module: types.ModuleType = field(default_factory=lambda: types.ModuleType("__main__"))
    area: StagingArea = field(default_factory=StagingArea)
    fence: Fence | None = None
    cells: int = 0

    @property
    def names(self) -> dict[str, Any]:
        return self.module.__dict__

    def run(self, source: str) -> dict[str, Any]:
        """Run *source* as a cell: with a file name of its own that `linecache` knows."""
        self.cells += 1
        filename = f"<cell {self.incarnation} {self.cells}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        with self.as_main():
            exec(compile(source, filename, "exec"), self.names)
        return self.names

    def checkpoint(self, occasion: Occasion | None = None, **settings: Any) -> Snapshot:
        origin = Origin(self.notebook, self.incarnation, "test-host")
        with self.as_main():
            return checkpointing.checkpoint(
                self.names,
                self.store,
                self.area,
                origin=origin,
                occasion=occasion or Occasion(),
                settings=Settings(**settings),
                fence=self.fence,
            )

    def restore(
        self, *names: str, source: str | None = None, into: MutableMapping[str, Any] | None = None, **scope: Any
    ) -> Restored:
        found = restoring.find(self.store, source, notebook=self.notebook, incarnation=self.incarnation)
        with self.as_main():
            return restoring.restore(self.names, self.store, found, Scope(names, **scope), into=into)

    def checkpoint_inside(self, source: str, progress: Mapping[str, Any] | None = None, **settings: Any) -> Snapshot:
        """Run *source*, and make the snapshot where it calls `here()`, with the locals of the functions that run."""
        made: list[Snapshot] = []

        def here() -> None:
            frames = stack.running(sys._getframe(1), lambda code: code.co_filename.startswith("<cell"), lambda code: 1)
            del self.names["here"]
            made.append(self.checkpoint(Occasion(frames=frames, progress=progress or {}), **settings))

        self.names["here"] = here
        self.run(source)
        return made[0]

    @contextmanager
    def as_main(self) -> Iterator[None]:
        before = sys.modules["__main__"]
        sys.modules["__main__"] = self.module
        try:
            yield
        finally:
            sys.modules["__main__"] = before


def open_store(root: Path) -> Store:
    return Store.open(root, signing.load_key(create=True), create=True)


def reborn(life: Life) -> Life:
    """A new kernel life over the same store, opened anew as another process would."""
    return Life(open_store(life.store.root), life.notebook)


def round_trip(life: Life) -> dict[str, Any]:
    """Checkpoint everything, restore it in a new life, return that life's names."""
    snapshot = life.checkpoint()
    assert not snapshot.skipped, snapshot.skipped
    after = reborn(life)
    restored = after.restore()
    assert not restored.skipped, restored.skipped
    return after.names
