"""Fixtures for all tests. Kernels and commands that a test starts inherit the environment set here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from namespaces import Life


@pytest.fixture(scope="session", autouse=True)
def a_home_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep configuration, history, kernel files and the signing key of whoever runs the tests out of them."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("IPYRESCUE_", "JUPYTER_", "JPY_", "XDG_"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("IPYTHONDIR", str(home / "ipython"))
        patch.setenv("JUPYTER_CONFIG_DIR", str(home / "config"))
        patch.setenv("JUPYTER_DATA_DIR", str(home / "data"))  # the key lies in here
        patch.setenv("JUPYTER_RUNTIME_DIR", str(home / "runtime"))
        yield home


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    """Where a test's store belongs; nothing is there yet."""
    return tmp_path / ".ipyrescue"


@pytest.fixture
def life(store_root: Path) -> Life:
    """A kernel life without a kernel: names of its own over a store that nobody has used yet."""
    from namespaces import Life, open_store

    return Life(open_store(store_root))
