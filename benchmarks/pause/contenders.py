"""The ways to save a training's state that are compared, each tuned as far as its own documentation goes.

`save` returns when the training may go on; what it returns tells when the snapshot is durable. `load_libraries` and
`begin` are never measured: in a session they were done long before.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.contenders import save_file

if TYPE_CHECKING:
    import torch

    from benchmarks.pause.training import Training


class Pending(Protocol):
    """A snapshot that is on its way to the disk."""

    def done(self) -> bool:
        """Whether it is durable, or has failed."""

    def result(self) -> Any:
        """Wait until it is durable; raise what went wrong."""


class _Done:
    def done(self) -> bool:
        return True

    def result(self) -> None:
        pass


class Contender:
    """Saves nothing: how a training goes that nobody disturbs. The others are made from it."""

    saves = True
    """Whether there is anything to measure but steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load_libraries(self) -> None:
        """Import what is needed."""

    def begin(self, training: Training) -> None:
        """Set up what is kept from snapshot to snapshot."""
        self.training = training

    def save(self) -> Pending:
        """Take a snapshot of the training."""
        return _Done()

    def tidy(self) -> None:
        """Remove all snapshots but the newest."""

    def make_ready(self, scale: float) -> None:
        """Before `restore` in a fresh process, not measured."""

    def restore(self) -> Any:
        """Bring the newest snapshot back."""

    def tensors(self, restored: Any) -> Mapping[str, torch.Tensor]:
        """The tensors of what `restore` returned, by dotted names."""
        from benchmarks.pause.training import tensors_of

        return dict(tensors_of(restored))

    def end(self) -> None:
        """Give back what `begin` took."""


class Unprotected(Contender):
    """No snapshots: its "time lost" says how much of the others' is noise."""

    saves = False


class PortableIpyrescue(Contender):
    """What the kernel does without fork: `checkpointing.capture` in the pause, `write` in a thread beside it."""

    def load_libraries(self) -> None:
        from ipyrescue import checkpointing, restoring  # noqa: F401
        from ipyrescue.store import signing

        os.environ["IPYRESCUE_KEY_FILE"] = str(self.folder / "key")
        signing.load_key(create=True)

    def begin(self, training: Training) -> None:
        from ipyrescue.capture.fence import Fence
        from ipyrescue.capture.staging import StagingArea
        from ipyrescue.capture.writer import Writer
        from ipyrescue.manifest import Settings
        from ipyrescue.selection import Occasion, Origin

        super().begin(training)
        self._names = {"model": training.model, "optimizer": training.optimizer}
        self._store = self._open()
        self._area, self._writer, self._fence = StagingArea(), Writer(), Fence()
        self._said = {
            "origin": Origin("benchmark.ipynb", "b" * 16, "here"),
            "occasion": Occasion(trigger="interval"),
            "settings": Settings(),
        }

    def save(self) -> Pending:
        from ipyrescue.checkpointing import capture, write

        fence = self._fence if self._fence.available else None
        draft = capture(self._names, self._store, self._area, fence=fence, **self._said)
        ticket: Pending = self._writer.submit(lambda: write(draft, self._store))
        return ticket

    def tidy(self) -> None:
        from ipyrescue.store.prune import prune

        for old in self._store.snapshots()[1:]:
            self._store.forget(old.id)
        prune(self._store)

    def restore(self) -> Any:
        from ipyrescue.restoring import Scope, find, restore

        store, namespace = self._open(), {}
        found = find(store, None, notebook="benchmark.ipynb", incarnation="c" * 16)
        restored = restore(namespace, store, found, Scope())
        if restored.skipped:
            raise AssertionError(f"not restored: {restored.skipped}")
        return namespace

    def tensors(self, restored: Any) -> Mapping[str, torch.Tensor]:
        from benchmarks.pause.training import tensors_of

        moments = {str(number): tensors for number, tensors in restored["optimizer"].state_dict()["state"].items()}
        state = {"model": restored["model"].state_dict(), "optimizer": {"state": moments}}
        return dict(tensors_of(state))

    def end(self) -> None:
        self._writer.close()
        self._area.release()

    def _open(self) -> Any:
        from ipyrescue.store import Store, signing

        return Store.open(self.folder / "store", signing.load_key(create=True), create=True)


class ForkingIpyrescue(PortableIpyrescue):
    """What the kernel does on Linux: `checkpointing.freeze` and a fork in the pause, all the rest in the child."""

    def begin(self, training: Training) -> None:
        from ipyrescue.capture.forking import ForkingWriter

        super().begin(training)
        self._forking = ForkingWriter()

    def save(self) -> Pending:
        from ipyrescue.checkpointing import freeze

        staged = freeze(self._names, self._store, self._area, **self._said)
        return self._forking.submit(partial(self._in_child, staged), absent=staged.spans)

    def _in_child(self, staged: Any) -> bytes:
        from ipyrescue.capture.forking import forked_at
        from ipyrescue.checkpointing import thaw, write

        fence = self._fence if self._fence.available else None
        return write(thaw(staged, fence, lacks_memory=True, forked_at=forked_at()), self._store).id.encode()

    def end(self) -> None:
        self._forking.close()
        super().end()


class _OneFile(Contender):
    """One file, fsync, rename; the training waits until the end."""

    def save(self) -> Pending:
        save_file(self._file, self._write, durable=True)
        return _Done()

    @property
    def _file(self) -> Path:
        return self.folder / "state"

    def _write(self, path: Path) -> None:
        raise NotImplementedError


class TorchSave(_OneFile):
    """`torch.save` of the state dicts."""

    def _write(self, path: Path) -> None:
        import torch

        torch.save(self.training.state(), path)

    def restore(self) -> Any:
        import torch

        return torch.load(self._file)


class Safetensors(_OneFile):
    """`safetensors.torch.save_file` of the tensors."""

    def load_libraries(self) -> None:
        import safetensors.torch  # noqa: F401

    def _write(self, path: Path) -> None:
        from safetensors.torch import save_file as save_tensors

        save_tensors(self.training.tensors(), path)

    def restore(self) -> Any:
        from safetensors.torch import load_file

        return load_file(self._file)


class DcpThread(Contender):
    """`torch.distributed.checkpoint.async_save` with a stager that is kept, so that its buffers are warm."""

    shared_memory = False

    def load_libraries(self) -> None:
        import torch.distributed.checkpoint  # noqa: F401

        join_group_of_one()

    def begin(self, training: Training) -> None:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
        from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

        super().begin(training)
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False,
                use_shared_memory=self.shared_memory,
                use_async_staging=False,
                use_non_blocking_copy=False,
            )
        )
        self._kind = AsyncCheckpointerType.PROCESS if self.shared_memory else AsyncCheckpointerType.THREAD
        self._taken = 0

    def save(self) -> Pending:
        import torch.distributed.checkpoint as dcp

        self._taken += 1
        pending: Pending = dcp.async_save(
            self.training.state(),
            checkpoint_id=self.folder / f"{self._taken:04}",
            async_checkpointer_type=self._kind,
            async_stager=self._stager,
        )
        return pending

    def tidy(self) -> None:
        for old in sorted(self.folder.iterdir())[:-1]:
            shutil.rmtree(old)

    def make_ready(self, scale: float) -> None:
        """DCP loads into tensors that are there; making them is not charged to it."""
        from benchmarks.pause.training import Training

        self._live = Training(scale)

    def restore(self) -> Any:
        import torch.distributed.checkpoint as dcp

        state = self._live.state()
        dcp.load(state, checkpoint_id=max(self.folder.iterdir()))
        return state

    def end(self) -> None:
        import torch.distributed as dist

        self._stager.close()
        dist.destroy_process_group()


class DcpProcess(DcpThread):
    """The same with a process that writes, which reads the kept stager's shared memory."""

    shared_memory = True


CONTENDERS: dict[str, type[Contender]] = {
    "unprotected": Unprotected,
    "ipyrescue (fork)": ForkingIpyrescue,
    "ipyrescue (portable)": PortableIpyrescue,
    "torch.save + fsync": TorchSave,
    "safetensors + fsync": Safetensors,
    "DCP async (thread)": DcpThread,
    "DCP async (process)": DcpProcess,
}
OURS = tuple(name for name in CONTENDERS if name.startswith("ipyrescue"))
"""The first of them is the default way."""

DCP = ("DCP async (thread)", "DCP async (process)")


def join_group_of_one() -> None:
    """DCP wants a process group: gloo, one member, over the loopback."""
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")  # where the daemon of DcpProcess meets itself
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def _loopback() -> str:
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
