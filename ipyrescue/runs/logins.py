"""What systemd does to the processes of a user who logs out: files of a machine into one word. Judges nothing else.

Per logind.conf(5) and systemd-run(1): processes of a session's scope end with the session where it says
`KillUserProcesses=yes`, and lingering does not spare those; processes of the user's own manager end with the last
session, unless the user lingers.
"""

from __future__ import annotations

import configparser
import getpass
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

Fate = Literal["session", "manager"]
"""Ends with its session; ends with the user's manager."""

_FOLDERS = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
"""The later one holds; where no folder says more, the text that ships, with its defaults as comments."""
_DEFAULT = re.compile(r"^\s*#\s*KillUserProcesses\s*=\s*(\w+)", re.MULTILINE)
_TRUE = ("1", "yes", "y", "true", "t", "on")


def fate_at_logout(machine: Path, user: str | None = None) -> Fate | None:
    """How this process, and what it starts, ends when *user* logs out; None: it does not, or there is no systemd."""
    if not (machine / "run/systemd/system").is_dir():
        return None
    group, user = _text(machine / "proc/self/cgroup"), user or _login()
    if re.search(r"/user@\d+\.service\b", group):
        return None if (machine / "var/lib/systemd/linger" / user).exists() else "manager"
    if re.search(r"/session-[^/]+\.scope\b", group):
        return "session" if _kills(machine, user) else None
    return None


def _login() -> str:
    with suppress(KeyError, OSError, ImportError):
        return Path(getpass.getuser()).name
    return "root"


def _kills(machine: Path, user: str) -> bool:
    settings = _settings(machine)
    if user in settings.get("killexcludeusers", "root").split():
        return False
    only = settings.get("killonlyusers", "").split()
    said = settings.get("killuserprocesses") or _shipped_default(machine)
    return said.lower() in _TRUE and (not only or user in only)


def _settings(machine: Path) -> dict[str, str]:
    """The section `[Login]` of logind.conf and of its drop-ins, which hold over it in the order of their names."""
    main = [machine / folder / "logind.conf" for folder in _FOLDERS]
    dropped = {
        path.name: path
        for folder in _FOLDERS
        if (machine / folder / "logind.conf.d").is_dir()
        for path in (machine / folder / "logind.conf.d").glob("*.conf")
    }
    found: dict[str, str] = {}
    for path in (*[path for path in main if path.is_file()][-1:], *(dropped[name] for name in sorted(dropped))):
        found.update(_section(path))
    return found


def _section(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    with suppress(configparser.Error):
        parser.read_string(_text(path))
    if not parser.has_section("Login"):
        return {}
    return {name: value or "" for name, value in parser.items("Login")}


def _shipped_default(machine: Path) -> str:
    """What a distribution built logind with, as the comments of the file that it ships say."""
    texts = (_text(machine / folder / "logind.conf") for folder in _FOLDERS)
    return next((found[1] for found in map(_DEFAULT.search, texts) if found), "no")


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text("utf-8", "replace")
    return ""
