"""What the notebook's folder was checked out from: asks git, which may be missing, slow, or hang.

Knows commits, never remotes, in whose addresses credentials stand. Each question costs a process: it is for the writer
beside the cell and for restores, not for the pause.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from ipyrescue.environment import CHANGES, COMMIT, MISSING

_PATIENCE_SECONDS = 2.0
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")
_CHANGED = ("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)*.ipynb")
"""Tracked files that were edited. A notebook always is: its own outputs are saved into it."""


class Repository:
    """The git repository around one folder; who was slow once is not asked again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_slow = False

    def facts(self) -> dict[str, str]:
        """The commit and whether files were edited since; empty where there is no repository, or no answer."""
        if not any((parent / ".git").exists() for parent in (self.folder, *self.folder.parents)):
            return {}
        commit = self._ask("rev-parse", "--verify", "HEAD")
        changed = self._ask(*_CHANGED) if commit else None
        if not commit or changed is None:
            return {COMMIT: commit} if commit else {}
        return {COMMIT: commit, CHANGES: "uncommitted" if changed else MISSING}

    def _ask(self, *question: str) -> str | None:
        """The answer of git; None for an error, and from then on where it takes too long."""
        if self._is_slow:
            return None
        try:
            git = subprocess.Popen(
                (*_GIT, *question), cwd=self.folder, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:
            return None
        try:
            answer, _ = git.communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._is_slow = True
            _end(git)
            return None
        return answer.decode(errors="replace").strip() if git.returncode == 0 else None


def _end(git: subprocess.Popen[bytes]) -> None:
    """Kill git without waiting for long: on a file system that hangs, it cannot even die."""
    git.kill()
    with suppress(subprocess.TimeoutExpired):
        git.communicate(timeout=_PATIENCE_SECONDS)
