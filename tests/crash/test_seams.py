"""SIGKILL at the seams of a snapshot in a real kernel: the one before is intact, the new one complete or invisible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import kernels

KILL_AT = {
    "before put": "checkpointing.put = die",
    "between put and commit": "checkpointing.commit = die",
    "after commit": "notebook.tidy = die",
}
DIE = """
import os, signal
from ipyrescue import checkpointing
from ipyrescue.kernel import notebook
kernel = os.getpid()
def die(*args, **kwargs):
    os.kill(kernel, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("seam", KILL_AT)
@pytest.mark.parametrize("writer", [None, "thread", "process"])
def test_a_kernel_killed_at_a_seam_loses_at_most_the_new_snapshot(tmp_path: Path, seam: str, writer: Any) -> None:
    """By command it dies on its main thread, by schedule in the writer's, or with its child; the store cannot tell."""
    scheduled = writer is not None
    with kernels(tmp_path) as make:
        first = make(IPYRESCUE_WRITER=writer or "auto")
        first.run("%load_ext ipyrescue")
        first.run("x = 'old'\n%checkpoint_vars" + (" x every=0.01s" if scheduled else ""))
        first.run("get_ipython()._ipyrescue.drain()", store_history=False)
        end = "import time; time.sleep(0.05)  # more than every=" if scheduled else "%checkpoint_vars"
        first.begin(f"{DIE}{KILL_AT[seam]}\nx = 'new'\n{end}")
        first.manager.provisioner.process.wait(timeout=60)  # type: ignore[union-attr]
        first.close()

        second = make()
        told = second.run("%load_ext ipyrescue").stdout
        second.run("%restore_vars")

        assert "died" in told
        assert second.value("x") == ("new" if seam == "after commit" else "old")
        second.run("%checkpoint_vars --off\ny = 1\n%checkpoint_vars")
        assert not list((tmp_path / ".ipyrescue" / "tmp").iterdir())


def packs(folder: Path) -> Iterator[Path]:
    return (folder / ".ipyrescue" / "packs").glob("*.pack")


def test_a_store_stays_bounded_under_a_fast_schedule(tmp_path: Path) -> None:
    """Fifty snapshots of changing state leave as many packs as retention keeps, not fifty."""
    with kernels(tmp_path) as make:
        kernel = make()
        kernel.run("%load_ext ipyrescue\nimport numpy as np")
        kernel.run("x = np.zeros(50_000)\n%checkpoint_vars x every=0.001s keep=3")
        for number in range(25):
            kernel.run(f"x = np.full(50_000, {number}.0)")
            kernel.run("%checkpoint_vars --status")

        assert len(list(packs(tmp_path))) <= 8
        assert len(list((tmp_path / ".ipyrescue" / "snapshots").iterdir())) <= 8


@pytest.mark.slow
def test_two_kernels_write_into_one_store(tmp_path: Path) -> None:
    """Snapshots of both are complete, and each restores its own."""
    with kernels(tmp_path) as make:
        one, two = make("one.ipynb"), make("two.ipynb")
        for kernel in (one, two):
            kernel.run("%load_ext ipyrescue\nimport numpy as np\nshared = np.arange(100_000)")
            kernel.run("%checkpoint_vars every=0.001s keep=3")
        for number in range(10):
            one.begin(f"x = {number}; mine = shared + {number}")
            two.begin(f"x = {-number}; mine = shared - {number}")
        for kernel, sign in ((one, 1), (two, -1)):
            kernel.run("%checkpoint_vars")
            kernel.kill()
            again = make("one.ipynb" if sign > 0 else "two.ipynb")
            again.run("%load_ext ipyrescue\n%restore_vars")

            assert again.value("(x, int(mine[5]))") == (9 * sign, 5 + 9 * sign)
