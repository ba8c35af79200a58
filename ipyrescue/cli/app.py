"""The verbs of `ipyrescue`, one file each, and what is true of all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from ipyrescue.cli.attach import attach
from ipyrescue.cli.diff import diff
from ipyrescue.cli.doctor import doctor
from ipyrescue.cli.exits import MEANINGS
from ipyrescue.cli.export import export
from ipyrescue.cli.forget import forget
from ipyrescue.cli.install import install
from ipyrescue.cli.key import app as key
from ipyrescue.cli.logs import logs
from ipyrescue.cli.ls import ls
from ipyrescue.cli.now import now
from ipyrescue.cli.output import write
from ipyrescue.cli.pin import pin, unpin
from ipyrescue.cli.prune import prune
from ipyrescue.cli.ps import ps
from ipyrescue.cli.resume import resume
from ipyrescue.cli.rm import rm
from ipyrescue.cli.run import RunVerb, run
from ipyrescue.cli.show import show
from ipyrescue.cli.stats import stats
from ipyrescue.cli.stop import stop
from ipyrescue.cli.trust import trust
from ipyrescue.cli.verb import Verb
from ipyrescue.cli.verify import VerifyVerb, verify
from ipyrescue.cli.why import why

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    help="Run notebooks that no closing client can stop; look after the snapshots that ipyrescue made. "
    "Data goes to stdout, all else to stderr.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_KINDS = {run: RunVerb, verify: VerifyVerb}
for _verb in (
    *(ls, show, diff, verify, pin, unpin, forget, prune, stats, export, trust, now, why),
    *(run, ps, logs, attach, stop, resume, rm),
    *(doctor, install),
):
    app.command(_verb.__name__, cls=_KINDS.get(_verb, Verb))(_verb)
app.add_typer(key)


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
