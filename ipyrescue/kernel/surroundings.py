"""What only a kernel knows of its session: which magics are on. From IPython's state into texts of a fingerprint.

Imports neither matplotlib nor an extension: what was not loaded is not on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ipyrescue.environment import AUTORELOAD, BACKEND

OFF = "off"

_MAGIC_NAMES = {
    "module://matplotlib_inline.backend_inline": "inline",
    "module://ipympl.backend_nbagg": "widget",
    "ipympl": "widget",
    "nbagg": "notebook",
    "macosx": "osx",
    "qtagg": "qt",
    "qt5agg": "qt5",
    "tkagg": "tk",
    "gtk3agg": "gtk3",
    "gtk4agg": "gtk4",
    "wxagg": "wx",
}
"""What matplotlib calls a backend, in small letters, to what %matplotlib calls it. Others have one name."""


def facts(shell: Any) -> dict[str, str]:
    """The mode of autoreload, or that it is off, and the matplotlib backend where one is in use."""
    found = {AUTORELOAD: _autoreload(shell), BACKEND: _backend(sys.modules.get("matplotlib"))}
    return {key: value for key, value in found.items() if value}


def worth_keeping(found: Mapping[str, str]) -> dict[str, str]:
    """What a snapshot notes: not that something is off, which is how every session begins."""
    return {key: value for key, value in found.items() if value != OFF}


def _autoreload(shell: Any) -> str:
    """The argument of %autoreload that makes it what it is."""
    registry = getattr(getattr(shell, "magics_manager", None), "registry", {})  # a script has no magics
    magics = registry.get("AutoreloadMagics")
    reloader = getattr(magics, "_reloader", None)
    if not getattr(reloader, "enabled", False):
        return OFF
    if not getattr(reloader, "check_all", True):
        return "1"
    return "3" if getattr(reloader, "autoload_obj", False) else "2"


def _backend(matplotlib: Any) -> str | None:
    """The backend that is chosen; asking matplotlib for it would choose one."""
    settings = getattr(matplotlib, "rcParams", None)
    name = dict.get(settings, "backend") if isinstance(settings, dict) else None
    return _MAGIC_NAMES.get(name.lower(), name) if isinstance(name, str) else None
