"""`ipyrescue trust`: another key's snapshot becomes one of yours, after a person has seen whose it is."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ipyrescue.cli.entries import age, open_store, signer, summary
from ipyrescue.cli.entries import choose as chosen
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.output import printable, say, write, write_json
from ipyrescue.cli.verb import JsonOption, StoreOption, finish
from ipyrescue.errors import UntrustedError
from ipyrescue.settings import format_size
from ipyrescue.store.catalog import Foreign
from ipyrescue.wording import count


def trust(
    snapshot: Annotated[str, typer.Argument(metavar="ID", help="The beginning of its id; ipyrescue ls shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a snapshot that another key signed as your own: every byte is checked, then it is signed anew.

    A restore of it then runs code that is in it, so trust only what you or somebody you know made. Without trust,
    %restore_vars from=ID --safe brings its tensors, arrays and plain values.
    """
    opened = open_store(store, need_key=True)
    foreign = opened.untrusted(snapshot)
    for line in _described(foreign):
        say(line)
    if not (yes or _agreed()):
        say("Nothing was signed.")
        finish(Exit.FAILED)
        return
    ours = opened.trust(foreign)
    if as_json:
        signed = {"snapshot": summary(chosen(opened, ours.id)), "was": foreign.snapshot.id}
        write_json({"store": str(opened.root), **signed, "signed_by": opened.key.fingerprint})
    else:
        write(printable(f"Signed {foreign.snapshot.id[:8]} of {ours.notebook} with your key: it is {ours.id[:8]} now."))


def _described(foreign: Foreign) -> list[str]:
    s = foreign.snapshot
    return [
        f"Snapshot {s.id[:8]} of {s.notebook}: {count(len(s.globals), 'variable')}, {format_size(s.size_bytes)}, "
        f"made {s.created} ({age(s)})",
        f"Signed, it says, by: {signer(foreign)}",
        "That is what it says of itself: whoever can write here can say so too. If you have that key, let it be "
        "checked instead: ipyrescue key import FILE",
        "Restoring it runs code that is in it.",
    ]


def _agreed() -> bool:
    """Whether a person says yes. Raises UntrustedError where nobody is there to ask."""
    if not sys.stdin.isatty():
        raise UntrustedError("Nothing was signed: nobody is here to be asked. If you trust its maker, add --yes.")
    print("Trust it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
