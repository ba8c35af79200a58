"""A child of this process that is killed in the midst of a system call of its choice."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

CALLS = ("open", "write", "writev", "fsync", "fchmod", "close", "link", "unlink")


def forked(body: Callable[[], object]) -> int:
    """Run *body* in a forked child and return its number."""
    child = os.fork()
    if child:
        return child
    try:
        body()
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as a second pytest
        traceback.print_exc()
        os._exit(3)
    os._exit(0)


def in_child(body: Callable[[], object]) -> int:
    """Run *body* in a forked child; return the signal that ended it, 0 for none."""
    status = os.waitpid(forked(body), 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killing(call: str, nth: int, *, half: bool) -> None:
    """Make the *nth* use of an os function the last thing this process does; *half*: it gets half of it done."""
    real, left = getattr(os, call), [nth]

    def hooked(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if half and call == "write":
                real(args[0], args[1][: len(args[1]) // 8192 * 4096 or 1])
            elif half and call == "writev":
                real(args[0], [args[1][0][: len(args[1][0]) // 8192 * 4096 or 1]])
            elif half:
                real(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(os, call, hooked)
