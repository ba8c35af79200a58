"""The verbs of `ipyrescue`, one file each, and what is true of all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from ipyrescue.cli.diff import diff
from ipyrescue.cli.exits import MEANINGS
from ipyrescue.cli.export import export
from ipyrescue.cli.forget import forget
from ipyrescue.cli.install import install
from ipyrescue.cli.ls import ls
from ipyrescue.cli.now import now
from ipyrescue.cli.output import write
from ipyrescue.cli.pin import pin
from ipyrescue.cli.prune import prune
from ipyrescue.cli.show import show
from ipyrescue.cli.stats import stats
from ipyrescue.cli.verb import Verb
from ipyrescue.cli.verify import VerifyVerb, verify
from ipyrescue.cli.why import why

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    help="Look after the snapshots that ipyrescue made in notebooks. Data goes to stdout, all else to stderr.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in (ls, show, diff, verify, pin, forget, prune, stats, export, now, why, install):
    app.command(_verb.__name__, cls=VerifyVerb if _verb is verify else Verb)(_verb)


def _print_version(asked: bool) -> None:
    if asked:
        from ipyrescue import __version__

        write(f"ipyrescue {__version__}")
        raise typer.Exit


@app.callback()
def _of_all_verbs(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
