"""Which notebook a kernel serves, and which kernel a notebook has: the server's session table, and what it once said.

The server drops the row of a kernel that is gone, often before the news of its end arrive; what was seen is remembered
until the kernel's end has been dealt with.
"""

from __future__ import annotations

from typing import Any


class Sessions:
    """The notebooks of a server's kernels. *session_manager* and *kernel_manager* are the server's own."""

    def __init__(self, session_manager: Any, kernel_manager: Any) -> None:
        self._session_manager = session_manager
        self._kernel_manager = kernel_manager
        self._paths: dict[str, str] = {}

    def path_of(self, kernel_id: str) -> str | None:
        """The contents path of the notebook that a kernel serves or served; None for a console's or a bare kernel."""
        self.look()
        return self._paths.get(kernel_id)

    def kernel_of(self, path: str) -> str | None:
        """The kernel that runs for a notebook now."""
        self.look()
        running = [kernel for kernel, of in self._paths.items() if of == path and kernel in self._kernel_manager]
        return running[-1] if running else None

    def notebooks(self) -> list[str]:
        """The contents paths of all notebooks that have a kernel now."""
        self.look()
        return sorted({path for kernel, path in self._paths.items() if kernel in self._kernel_manager})

    def look(self) -> None:
        """Read the table; `list_sessions` would also drop rows, and must be awaited.

        A session manager that somebody has put in the place of Jupyter's may have none; then nothing is known.
        """
        cursor = getattr(self._session_manager, "cursor", None)
        if cursor is not None:
            rows = cursor.execute("SELECT kernel_id, path FROM session WHERE type = 'notebook'").fetchall()
            self._paths.update({row["kernel_id"]: row["path"] for row in rows if row["path"]})

    def forget(self, kernel_id: str) -> None:
        """A kernel's end has been dealt with."""
        self._paths.pop(kernel_id, None)
