"""Lives and deaths that no kernel has lived."""

import os
import socket

from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.evidence import Evidence
from ipyrescue.store import layout, lives
from ipyrescue.store.lives import Cause, Life, Memory, process_facts
from tests.kernel.samples import NOW, iso

KILLED = Cause("killed", "was killed", "SIGKILL, as by kill -9")
FULL = Memory(31_700_000_000, 31_800_000_000, limit_bytes=32_000_000_000)
HALF_FULL = Memory(16_000_000_000, 16_000_000_000, limit_bytes=32_000_000_000)
NO_SUCH_PID = 1 << 30


def a_life(**fields):
    """A kernel that has run cell [9] of train.ipynb for 3 h 12 min, on a machine that is far away."""
    known = {
        "incarnation": "b" * 16,
        "notebook": "deep/train.ipynb",
        "kind": "notebook",
        "pid": 4711,
        "start_ticks": 1,
        "boot_id": "x",
        "pid_namespace": "y",
        "host": "lab",
        "started": iso(20_000),
        "cell": 9,
        "cell_started": iso(11_540),
        "cell_source": "for epoch in range(100):",
        "cell_running": True,
    }
    return Life(**(known | fields))


def evidence(life=None, **fields):
    return Evidence(life or a_life(), **fields)


def a_death(**fields):
    return Death(a_life(**fields), NOW - 20)


def here(**fields):
    """The facts of a process that ran where the tests run, and is gone."""
    facts = process_facts(os.getpid())._asdict() | {"pid": NO_SUCH_PID, "start_ticks": 1}
    return {**facts, "host": socket.gethostname(), **fields}


def bury(root, life, *, at=NOW):
    """Put a life on record whose last sign was *at*; return it."""
    layout.kernels(root).mkdir(parents=True, exist_ok=True)
    lives.write(root, life)
    os.utime(layout.life_path(root, life.incarnation), (at, at))
    return life


def trace(root, life, what, text, *, at=NOW):
    """Put a trace beside the record, as written *at*."""
    path = layout.trace_path(root, life.incarnation, what)
    path.write_text(text)
    os.utime(path, (at, at))
