"""A store on a read-only mount restores, and what cannot be written is said."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kernels import Kernel


@pytest.mark.system
def test_a_store_on_a_read_only_mount_restores(make_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    """The reader creates, locks and writes nothing; a new snapshot is refused with a sentence."""
    first = make_kernel()
    first.run("%load_ext ipyrescue\nx = 7\n%checkpoint_vars")
    first.kill()
    store = tmp_path / ".ipyrescue"
    subprocess.run(["mount", "--bind", store, store], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        second = make_kernel()
        told = second.run("%load_ext ipyrescue").stdout
        restored = second.run("%restore_vars").text
        refused = second.try_run("%checkpoint_vars")
        assert second.value("x") == 7
        second.kill()
    finally:
        subprocess.run(["umount", store], check=True)

    assert "died" in told
    assert "Restored" in restored
    assert "offered again" in restored
    assert "Read-only" in refused.text
