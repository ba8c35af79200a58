"""A real Jupyter server in this process, with the extension and a root folder of notebooks, and real kernels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403 - its fixtures and hooks, for the tests of this folder only
from servers import Server


@pytest.fixture
def jp_server_config() -> dict[str, Any]:
    """The extension, no access without a token, and a restarter in a hurry."""
    return {
        "ServerApp": {
            "jpserver_extensions": {"ipyrescue.server": True},
            "allow_unauthenticated_access": False,
        },
        "KernelRestarter": {
            "time_to_dead": 0.3,
            "stable_start_time": 0.0,
            "restart_limit": 2,
            "random_ports_until_alive": False,
        },
    }


@pytest.fixture
def server(jp_serverapp: Any, jp_fetch: Any, jp_root_dir: Path, jp_asyncio_loop: Any) -> Iterator[Server]:
    """The server, with a notebook `train.ipynb` in its root."""
    made = Server(jp_serverapp, jp_fetch, jp_root_dir)
    made.write_notebook("train.ipynb")
    yield made
    jp_asyncio_loop.run_until_complete(made.close())
