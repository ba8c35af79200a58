"""A command tied to the process that started it: `python tether.py PARENT COMMAND...` becomes the command.

When the parent is gone, however it ended, the command gets a SIGTERM, upon which a guard saves and the process ends
(prctl(2), PR_SET_PDEATHSIG, which stays over an exec). Between fork and exec nothing of ours may run in a process with
threads, so this stands before the command. Run as a plain file: it imports nothing of ipyrescue.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do it. Raises OSError where the command cannot be executed."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
