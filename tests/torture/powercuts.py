"""Every state that a power cut may leave, from the recorded calls of a snapshot, a forget and a prune that repacks.

What POSIX allows is more than what a file system does: bytes that were not fsynced are there, missing, zeros or cut
short; a name that was made or removed is durable once its folder was fsynced, before that in any combination with the
others. The method is ALICE's and CrashMonkey's; no power is cut.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipyrescue.store import Store, holes, prune
from tests.store.conftest import load_from, save_to
from torture.judging import KEY, create, problems
from torture.outcome import Outcome, scratch

Loss = Callable[[bytes, bytes], bytes]
"""What is left of a file, from the bytes that were fsynced and all that were written."""


def losses(cuts: int) -> dict[str, Loss]:
    """All is there, nothing of it, zeros, and what was cut short at *cuts* places."""
    found: dict[str, Loss] = {
        "whole": lambda synced, full: full,
        "missing": lambda synced, full: synced,
        "zeros": lambda synced, full: synced + bytes(len(full) - len(synced)),
    }
    for number in range(1, cuts + 1):
        share = number / (cuts + 1)
        found[f"cut at {share:.3f}"] = lambda synced, full, share=share: full[
            : max(len(synced), int(len(full) * share))
        ]
    return found


@dataclass(frozen=True)
class Call:
    """One recorded call that changes what is on the disk; paths relative to the store.

    *data* is what was written, or the zeros that a hole is made of, and *offset* where the hole begins.
    """

    name: str
    path: str
    other: str = ""
    data: bytes = b""
    offset: int = 0


@dataclass
class _File:
    data: bytes = b""
    synced: bytes = b""


@dataclass
class Disk:
    """What the calls made of an empty disk: names that are durable, and those that may or may not be."""

    names: dict[str, _File | None] = field(default_factory=dict)
    loose: list[tuple[Call, _File | None]] = field(default_factory=list)
    durable: list[tuple[Call, _File | None]] = field(default_factory=list)
    holed: dict[str, _File] = field(default_factory=dict)

    def play(self, call: Call) -> None:
        """Let *call* happen."""
        if call.name == "write":
            self._file(call.path).data += call.data
        elif call.name == "punch":
            self._punch(call)
        elif call.name == "fsync":
            self._sync(call.path)
        else:
            self._change(call)

    def _punch(self, call: Call) -> None:
        found, end = self._file(call.path), call.offset + len(call.data)
        found.data = found.data[: call.offset] + call.data + found.data[end:]
        self.holed[call.path] = found

    def _file(self, path: str) -> _File:
        found = self.names[path]
        assert found is not None
        return found

    def _sync(self, path: str) -> None:
        found = self.names.get(path)
        if found is not None:
            found.synced = found.data
            return
        settled = [item for item in self.loose if (os.path.dirname(_changed(item[0])) or ".") == path]
        self.loose = [item for item in self.loose if item not in settled]
        self.durable += settled

    def _change(self, call: Call) -> None:
        if call.name in ("link", "rename"):
            made = self.names[call.other] = self.names[call.path]
        elif call.name == "unlink":
            made = self.names.get(call.path)
        else:
            made = self.names[call.path] = None if call.name == "mkdir" else _File()
        # Whatever stands in tmp/ means nothing.
        if not _changed(call).startswith("tmp/"):
            self.loose.append((call, made))

    def subsets(self) -> list[tuple[int, ...]]:
        """Each combination of the names that may have become durable, or not."""
        numbers = range(len(self.loose))
        return [chosen for size in range(len(self.loose) + 1) for chosen in itertools.combinations(numbers, size)]

    def lay_out(self, root: Path, loss: Loss, chosen: Collection[int]) -> None:
        """Make that state real at *root*, which holds what was there before."""
        survived = [item for number, item in enumerate(self.loose) if number in chosen]
        for call, made in [*self.durable, *survived]:
            target = root / _changed(call)
            if call.name == "mkdir":
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif call.name == "unlink":
                target.unlink(missing_ok=True)
            elif made is not None and target.parent.is_dir():
                target.unlink(missing_ok=True)
                target.write_bytes(loss(made.synced, made.data))
        for path, made in self.holed.items():
            (root / path).chmod(0o600)
            (root / path).write_bytes(loss(made.synced, made.data))


def _changed(call: Call) -> str:
    """The name that a call makes or removes. The old name of a rename is in tmp/, where it means nothing."""
    return call.other if call.name in ("link", "rename") else call.path


def run(cases: int) -> Outcome:
    """All states, with more places to cut files short; the controls have no fsyncs of files, then none of folders."""
    outcome, told, cuts = Outcome(), [], max(1, cases // 50)
    with scratch() as folder:
        scene = _Scene(folder)
        outcome.cases, outcome.failures = scene.check(scene.calls, cuts)
        for what, is_folder in (("files", False), ("folders", True)):
            without = [c for c in scene.calls if c.name != "fsync" or scene.is_folder(c.path) != is_folder]
            states, broken = scene.check(without, cuts)
            told.append(f"without fsync of {what}: {len(broken)} of {states} broken")
            if not broken:
                outcome.failures.append(f"the control: nothing breaks without fsync of {what}")
        outcome.note = f"after each of {len(scene.calls)} calls"
    outcome.control = "; ".join(told)
    return outcome


class _Scene:
    """A store with three snapshots, and the calls by which it gets a fourth and loses the first."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._base = folder, folder / "base"
        store = create(self._base)
        # The second uses some of the first one's pack; the rest becomes a hole when the first one is forgotten.
        contents = [b"first" * 900, b"used" * 9], [b"second" * 900, b"shared" * 900, b"used" * 9], [b"third" * 9]
        saved = [save_to(store, *blobs) for blobs in contents]
        self._doomed = saved[0].id
        self._kept = {snapshot.id: list(blobs) for snapshot, blobs in zip(saved[1:], contents[1:], strict=True)}
        live = folder / "live"
        shutil.copytree(self._base, live)
        with recorded(live) as self.calls:
            store = Store.open(live, KEY)
            self._new = save_to(store, b"shared" * 900, b"fourth" * 5000, b"tail")
            self._contents = load_from(store, self._new)
            self._saved_after = len(self.calls)
            store.forget(self._doomed)
            pruned = prune.prune(store, max_dead=0.1)
            assert pruned is not None
            assert pruned.repacked

    def is_folder(self, path: str) -> bool:
        """Whether what is fsynced under this name is a folder."""
        return (self._base / path).is_dir()

    def check(self, calls: list[Call], cuts: int) -> tuple[int, list[str]]:
        """How many states there were, and what was wrong in them."""
        states, found, root = 0, [], self._folder / "state"
        marks = set(map(id, self.calls[: self._saved_after]))
        for length in range(len(calls) + 1):
            disk = self._disk(calls[:length])
            saved = not any(id(call) in marks for call in calls[length:])
            kept = {**self._kept, **({self._new.id: self._contents} if saved else {})}
            for (loss, left), chosen in itertools.product(losses(cuts).items(), disk.subsets()):
                shutil.copytree(self._base, root)
                disk.lay_out(root, left, chosen)
                case = f"cut after {length} calls, bytes {loss}, names {chosen}"
                found += [f"{case}: {wrong}" for wrong in problems(root, kept)[:1]]
                shutil.rmtree(root)
                states += 1
        return states, found

    def _disk(self, calls: list[Call]) -> Disk:
        disk = Disk()
        for path in self._base.rglob("*"):
            content = None if path.is_dir() else _File(path.read_bytes(), path.read_bytes())
            disk.names[str(path.relative_to(self._base))] = content
        for call in calls:
            disk.play(call)
        return disk


_RECORDED = ("open", "write", "writev", "fsync", "link", "rename", "unlink", "mkdir")


@contextmanager
def recorded(root: Path) -> Iterator[list[Call]]:
    """Collect what is done below *root* by way of `os` and of holes."""
    calls: list[Call] = []
    real = {name: getattr(os, name) for name in _RECORDED}
    punch = holes._punch
    names: dict[int, str] = {}

    def below(path: Any) -> str:
        return os.path.relpath(path, root)

    def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        new = flags & os.O_CREAT and not os.path.lexists(path)
        fd: int = real["open"](path, flags, *more, **named)
        names[fd] = below(path)
        if new:
            calls.append(Call("create", names[fd]))
        return fd

    def written(fd: int, data: Any) -> int:
        size: int = real["write"](fd, data)
        calls.append(Call("write", names[fd], data=bytes(data[:size])))
        return size

    def written_from(fd: int, views: Any) -> int:
        size: int = real["writev"](fd, views)
        calls.append(Call("write", names[fd], data=b"".join(map(bytes, views))[:size]))
        return size

    def synced(fd: int) -> None:
        real["fsync"](fd)
        calls.append(Call("fsync", names[fd]))

    def changing(name: str) -> Callable[..., None]:
        def call(*paths: Any, **named: Any) -> None:
            real[name](*paths, **named)
            both = name in ("link", "rename")
            calls.append(Call(name, below(paths[0]), below(paths[1]) if both else ""))

        return call

    def punched(fd: int, start: int, end: int) -> bool:
        calls.append(Call("punch", names[fd], data=bytes(end - start), offset=start))
        return punch(fd, start, end)

    doubles = {"open": opened, "write": written, "writev": written_from, "fsync": synced}
    doubles |= {name: changing(name) for name in ("link", "rename", "unlink", "mkdir")}
    for name, double in doubles.items():
        setattr(os, name, double)
    holes._punch = punched
    try:
        yield calls
    finally:
        holes._punch = punch
        for name, function in real.items():
            setattr(os, name, function)
