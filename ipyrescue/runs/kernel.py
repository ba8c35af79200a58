"""The kernel of a run, as its runner has it: started under the notebook's name, asked for snapshots, and buried.

Turns requests into answers in JSON (the other side is `ipyrescue.kernel.supervised`) and a process that ended into an
exit status. Knows no cells, no plan and no files of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from ipyrescue.errors import RescueError, RunError
from ipyrescue.incarnations import witness
from ipyrescue.runs import inherited

START_SECONDS = 120.0
"""How long a kernel may take to start and to answer: imports from a cold network disk take their time."""
END_SECONDS = 10.0
"""How long it may take to end when it was asked to; it saves a last time for up to 8 of them."""

_LOOK_SECONDS = 0.25
_READ_BYTES = 1 << 16
_SUPERVISED = '__import__("ipyrescue.kernel.supervised", fromlist=["begin"])'


class KernelDiedError(RescueError):
    """The kernel's process is gone."""


class Kernel:
    """One kernel process, from `start` to `end`. *printed* is given what its process prints past Jupyter's messages."""

    def __init__(self, name: str, printed: Callable[[Any, bytes], None]) -> None:
        self.manager: Any = AsyncKernelManager(kernel_name=name)
        self.manager.context.rcvhwm = 0  # zmq drops messages beyond a thousand that were not read yet
        self.client: Any = None
        self.process: witness.Process | None = None
        self._printed = printed
        self._pipes: dict[int, str] = {}

    @property
    def pid(self) -> int | None:
        """The number of its process, where it has one here."""
        return getattr(self._popen, "pid", None)

    @property
    def exit_code(self) -> int | None:
        """How its process ended, negative for a signal; None while it runs, or where nobody can tell."""
        return getattr(self._popen, "returncode", None)

    @property
    def _popen(self) -> Any:
        return getattr(self.manager.provisioner, "process", None)

    async def start(self, folder: Path, environ: Mapping[str, str]) -> None:
        """Start it in *folder* and wait until it answers. Raises RunError; KernelDiedError if it does not live."""
        refuse_what_is_not_python(self.manager)
        stdout, stderr = self._pipe("stdout"), self._pipe("stderr")
        try:
            await self.manager.start_kernel(cwd=str(folder), env=dict(environ), stdout=stdout, stderr=stderr)
        except OSError as error:
            raise RunError(f"The kernel {self.manager.kernel_name} could not be started: {error}") from error
        finally:
            os.close(stdout)
            os.close(stderr)
        self.process = witness.Process.seen_now(self.manager.kernel_id, self.pid)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.allow_stdin = False
        try:
            await self.client.wait_for_ready(timeout=START_SECONDS)
        except RuntimeError as error:
            raise KernelDiedError(f"The kernel did not come to life: {error}") from error

    async def ask(self, call: str) -> dict[str, Any]:
        """The answer to a *call* of `ipyrescue.kernel.supervised`. Raises RunError, KernelDiedError."""
        wanted = self.client.execute("", silent=True, store_history=False, user_expressions={"it": _SUPERVISED + call})
        while True:
            with contextlib.suppress(Empty):
                reply = await self.client.shell_channel.get_msg(timeout=_LOOK_SECONDS)
                if reply["parent_header"].get("msg_id") == wanted:
                    return answer_of(reply["content"], self.manager)
                continue
            if not await self.is_alive():
                raise KernelDiedError("The kernel died.")

    async def is_alive(self) -> bool:
        """Whether its process runs."""
        return bool(self.manager.has_kernel and await self.manager.is_alive())

    async def interrupt(self) -> None:
        """Do what the button does."""
        with contextlib.suppress(RuntimeError):
            await self.manager.interrupt_kernel()

    def kill(self) -> None:
        """End it at once; whoever waits for it finds it dead."""
        with contextlib.suppress(OSError):
            if self.pid is not None and self.exit_code is None:
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    async def terminate(self, patience_seconds: float) -> None:
        """End it by SIGTERM, in whatever cell it is; by force where it has not ended after that long."""
        with contextlib.suppress(OSError, RuntimeError):
            await self.manager.signal_kernel(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + patience_seconds
        while await self.is_alive():
            await asyncio.sleep(_LOOK_SECONDS / 5)
            if asyncio.get_running_loop().time() > deadline:
                self.kill()

    async def end(self) -> None:
        """Ask it to shut down, if it lives, and leave no sockets, files and pipes of it."""
        if await self.is_alive():
            with contextlib.suppress(RuntimeError):
                self.manager.shutdown_wait_time = END_SECONDS
                await self.manager.shutdown_kernel()
        await self._clean_up()

    async def _clean_up(self) -> None:
        if self.client is not None:
            self.client.stop_channels()
        with contextlib.suppress(RuntimeError, OSError):
            await self.manager.cleanup_resources()
        for pipe, stream in self._pipes.items():
            self._read(pipe, stream)
            asyncio.get_running_loop().remove_reader(pipe)
            os.close(pipe)
        self._pipes.clear()

    def _pipe(self, stream: str) -> int:
        """The end for the kernel; what comes out of ours is handed on."""
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self._pipes[ours] = stream
        asyncio.get_running_loop().add_reader(ours, self._read, ours, stream)
        return theirs

    def _read(self, pipe: int, stream: str) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(pipe, _READ_BYTES):
                self._printed(stream, data)
            asyncio.get_running_loop().remove_reader(pipe)  # nobody writes to it any more


def environment(environ: Mapping[str, str], added: Mapping[str, str], notebook: str, store: str) -> dict[str, str]:
    """What a kernel of *notebook* is started with: nothing of a Jupyter around the runner, and its own name."""
    kept = {name: value for name, value in inherited.environment(environ).items() if not name.startswith("JPY_")}
    return {**kept, **added, "JPY_SESSION_NAME": notebook, "IPYRESCUE_STORE": store}


def refuse_what_is_not_python(manager: Any) -> None:
    """Raise RunError where a kernel does not exist, or speaks another language."""
    try:
        spec = manager.kernel_spec
    except NoSuchKernel as error:
        raise RunError(
            f"There is no kernel called {manager.kernel_name} here. List them: jupyter kernelspec list   "
            "Choose one: --kernel NAME"
        ) from error
    if spec.language.lower() != "python":
        raise RunError(f"The kernel {manager.kernel_name} speaks {spec.language}; ipyrescue runs Python notebooks.")


def answer_of(content: Mapping[str, Any], manager: Any) -> dict[str, Any]:
    """What a reply says in JSON. Raises RunError where ipyrescue is missing in the kernel, or says nothing."""
    said = content.get("user_expressions", {}).get("it", content)
    if said.get("status") == "ok":
        with contextlib.suppress(ValueError, KeyError, TypeError):
            answer = json.loads(said["data"]["text/plain"])
            if type(answer) is dict:
                return answer
    if said.get("ename") in ("ModuleNotFoundError", "ImportError"):
        python = (manager.kernel_spec.argv or ["python"])[0]
        raise RunError(
            f"The Python of the kernel {manager.kernel_name} has no ipyrescue of this version, so nothing could be "
            f"saved. Install it there: {python} -m pip install --upgrade ipyrescue"
        )
    raise RunError(f"The kernel gave no answer that makes sense: {said.get('ename')}: {said.get('evalue')}")
