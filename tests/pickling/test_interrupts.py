"""Ctrl-C ends a checkpoint; an object that only raises what Ctrl-C raises costs itself."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from namespaces import Life


def test_an_object_that_raises_keyboard_interrupt_costs_itself(life: Life) -> None:
    life.run("""
class Rude:
    def __reduce__(self): raise KeyboardInterrupt
rude, kept = Rude(), [1]
""")

    snapshot = life.checkpoint()

    assert [s.name for s in snapshot.skipped] == ["rude"]
    assert "kept" in snapshot.names


def test_a_press_of_ctrl_c_ends_the_checkpoint(life: Life) -> None:
    """And leaves the handler that was there."""
    life.run("""
import os, signal
class Slow:
    def __reduce__(self): os.kill(os.getpid(), signal.SIGINT); return int, ()
slow = Slow()
""")
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        life.checkpoint()

    assert signal.getsignal(signal.SIGINT) is before
