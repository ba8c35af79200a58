"""Runs in a Jupyter server: sees kernels die, and tells front ends what died and what is saved. Never unpickles."""

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Answer Jupyter's question for the extension that `jpserver_extensions` enables as `ipyrescue.server`."""
    from ipyrescue.server.extension import RescueApp

    return [{"module": "ipyrescue.server.extension", "app": RescueApp}]
