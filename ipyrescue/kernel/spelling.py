"""Sentences that say which magic to type into sentences that say which function to call. Pure.

Errors and warnings end with what to type next, and most of them come from below, where nobody knows whether there is
an IPython to type it into. In a script there is none.
"""

from __future__ import annotations

import re

_SPELLINGS = (
    (r"%restore_vars from=(\w+) device=cpu", r'ipyrescue.restore("\1", device="cpu")'),
    (r"%(restore_vars from=\w+ --trust)", r"in IPython, %\1"),
    (r"(?<!in IPython, )%restore_vars from=(\w+)", r'ipyrescue.restore("\1")'),
    (r"%restore_vars NAME from=(\w+)", r'ipyrescue.restore("\1", names=["NAME"])'),
    (r"%restore_vars --list", "ipyrescue.snapshots()"),
    (r"%restore_vars --forget-undo, ", ""),
    (r"%restore_vars(?! from=)", "ipyrescue.restore()"),
    (r"%snapshots --all", "ipyrescue.snapshots(all_notebooks=True)"),
    (r"%snapshots\b(?! unpin)", "ipyrescue.snapshots()"),
    (r"%checkpoint_vars every=(\w+)", r'ipyrescue.guard(every="\1")'),
    (r"%checkpoint_vars -x NAME", 'ipyrescue.guard(exclude=["NAME"])'),
    (r" or, if it was named before, type %checkpoint_vars --off NAME", ""),
    (r"%checkpoint_vars --status", "ipyrescue ls"),
    (r"%checkpoint_vars", "ipyrescue.checkpoint()"),
    (r"with -x NAME", 'with ipyrescue.guard(exclude=["NAME"])'),
    (r"--allow (\w+)", r'allow=["\1"]'),
    (r"--keep-classes", "keep_classes=True"),
    (r"--force", "force=True"),
)
"""In their order: a pattern, and what it becomes where there are no magics. Trust is given in IPython only."""


def in_python(text: str) -> str:
    """Spell what *text* says to type as Python."""
    for magic, function in _SPELLINGS:
        text = re.sub(magic, function, text)
    return text
