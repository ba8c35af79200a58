"""Keys that change while a kernel lives: `ipyrescue key new` and `key import`, typed in a terminal beside it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ipyrescue.store import Store, signing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kernels import Kernel


def typed(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ipyrescue", "key", *arguments], check=True, timeout=120, stdout=-3)


@pytest.mark.slow
def test_a_living_kernel_takes_a_new_key_and_one_of_another_machine(
    make_kernel: Callable[..., Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(tmp_path / "keys" / "key"))
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 7\n%checkpoint_vars label=old x --only")
    first = signing.load_key()

    typed("new")
    kernel.run("x = 8\n%checkpoint_vars label=new x --only")

    now = signing.load_key()
    store = Store.open(tmp_path / ".ipyrescue", now)
    signed = [store.catalog.body(name)[0].fingerprint for name in store.catalog.names()]
    assert signed == [first.fingerprint, now.fingerprint]
    old = store.snapshots()[1].id
    kernel.run("del x\n%restore_vars from=old")
    assert kernel.value("x") == 7

    (tmp_path / "keys" / "keys" / first.fingerprint).unlink()
    assert "another key" in kernel.try_run(f"%restore_vars from={old}").text
    (tmp_path / "theirs").write_bytes(first.secret)
    typed("import", str(tmp_path / "theirs"))
    kernel.run("x = 0\n%restore_vars from=old")
    assert kernel.value("x") == 7


@pytest.mark.slow
def test_a_key_that_nobody_lets_us_look_at_is_not_called_missing(
    make_kernel: Callable[..., Kernel], tmp_path: Path
) -> None:
    """As in a folder that one may not enter, which root may: a name that is too long for any file."""
    make_kernel().run("%load_ext ipyrescue\nx = 7\n%checkpoint_vars")
    kernel = make_kernel(IPYRESCUE_KEY_FILE=str(tmp_path / ("k" * 300)))

    greeting = kernel.run("%load_ext ipyrescue").text

    assert "cannot be read (File name too long), so it is not used" in greeting
    assert "is not here" not in greeting
    kernel.run("y = 1")
    assert kernel.value("y") == 1
    assert "cannot be read" in kernel.try_run("%checkpoint_vars").text
