"""`ipyrescue run`: run a notebook or a script to its end, here or detached, through the deaths of its kernel."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyrescue.cli import runs
from ipyrescue.cli.exits import Exit
from ipyrescue.cli.logs import shown_meanwhile
from ipyrescue.cli.output import console, say, write, write_json
from ipyrescue.cli.progress import told
from ipyrescue.cli.runs import Shown
from ipyrescue.cli.unread import tell
from ipyrescue.cli.verb import JsonOption, StoreOption, Verb
from ipyrescue.places import examining
from ipyrescue.runs import registry, serving, spawn
from ipyrescue.runs.record import OnFailure, Options, Record
from ipyrescue.settings import parse_duration

POLICIES = ("resume", "restart", "stop")
_BETWEEN = "\0"  # the one character that no argument of a command holds


class RunVerb(Verb):
    """`-p NAME VALUE` takes two words, which typer has no type for: they come as one."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Join the words, up to `--`; raise BadParameter where a script's `--` is missing, and what click raises."""
        own = args[: args.index("--")] if "--" in args else args
        known = {spelling for parameter in self.params for spelling in parameter.opts}
        strange = next((word for word in own if word.startswith("--") and word.partition("=")[0] not in known), None)
        if strange is not None and "--help" not in own and any(word.endswith(".py") for word in own):
            raise typer.BadParameter(f"what a script takes stands behind --: ipyrescue run train.py -- {strange}", ctx)
        return super().parse_args(ctx, _joined(args))


def run(
    file: Annotated[
        Path | None, typer.Argument(metavar="NOTEBOOK|SCRIPT", help="What to run: train.ipynb or train.py.")
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]", help="What the script takes, behind --.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return at once: the run goes on without terminal, editor, server.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to call the run; by default as the file.")
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="5m", help="How often to make a snapshot inside of cells.")
    ] = "5m",
    retries: Annotated[
        int, typer.Option("--retries", min=0, max=1000, help="How many deaths of the kernel to survive.")
    ] = 3,
    on_failure: Annotated[
        str,
        typer.Option(
            "--on-failure", metavar="|".join(POLICIES), help="After a death: go on, begin anew, or leave it at that."
        ),
    ] = "resume",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The notebook with the outputs; train.run.ipynb if not said."
        ),
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Write the outputs into the notebook itself.")] = False,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME VALUE", help="Set a parameter of the notebook, as papermill does."
        ),
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option("--env-file", metavar="FILE", help="Variables of the environment, KEY=VALUE lines.")
    ] = None,
    timeout_cell: Annotated[
        str | None, typer.Option("--timeout-cell", metavar="2h", help="A cell that takes longer fails.")
    ] = None,
    kernel: Annotated[
        str | None, typer.Option("--kernel", metavar="NAME", help="Another kernel than the notebook names.")
    ] = None,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="NAME", help="Run nothing: wait for that run, and end as it does.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a notebook or a script to its end; when its kernel dies, restore what it had, and go on.

    Each cell that is done is saved, in the notebook of outputs and as a snapshot of all variables. After a death the
    cells that are done are skipped, and the one that died runs again. Ctrl-C saves, then stops.

    \b
    ipyrescue run train.ipynb -d -p lr 3e-4     a notebook, detached
    ipyrescue run train.py -d -- --epochs 10    a script; what it takes stands behind --
    ipyrescue run --wait train                  for scripts: ends when the run does, with its exit code

    \b
    --json prints {"run": {...}} when the run has ended, with --detach when it has begun; a run has
      name, kind, state, reason, exit_code, source, output, folder, store,
      created, started, ended, up_seconds, cell, cells, cells_done, progress,
      saved_at, attempt, deaths [{"at", "cell", "text", "exit_code"}],
      pid, host, kernel_pid, connection_file, rss_bytes, cuda_bytes

    Exit code 0 when all is done, 1 when a cell raised, 6 when the kernel died and no retry was left, 75 when the run
    was stopped and can be resumed, 130 after Ctrl-C. With --detach: 0 when it runs.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    if wait is not None:
        _refuse_a_file_beside_wait(file)
        follow(registry.find(wait, store), as_json=as_json)
        return
    if file is None:
        raise typer.BadParameter("say what to run: ipyrescue run train.ipynb", param_hint="NOTEBOOK|SCRIPT")
    options = Options(
        every_seconds=_duration("--every", every),
        retries=retries,
        on_failure=_policy(on_failure),
        output=os.path.abspath(output) if output is not None else None,
        parameters=tuple(_pair(text) for text in parameters or ()),
        env_file=os.path.abspath(env_file) if env_file is not None else None,
        timeout_cell_seconds=_duration("--timeout-cell", timeout_cell) if timeout_cell is not None else None,
        kernel=kernel,
        arguments=tuple(arguments or ()),
    )
    if in_place and output is not None:
        raise typer.BadParameter("say one of the two: --output or --in-place", param_hint="--in-place")
    record = spawn.begin(file, options, name=name, store=store, in_place=in_place)
    go(record, spawn.folder_of(record), detach=detach, as_json=as_json)


def go(record: Record, folder: Path, *, detach: bool, as_json: bool) -> None:
    """Run what was begun: in a process of its own, or here to its end. Raises typer.Exit with the run's code."""
    _warn(record)
    if detach:
        _detach(folder, as_json=as_json)
        return
    prints = record.kind == "script" and not as_json
    with shown_meanwhile(folder) if prints else contextlib.nullcontext(), told(folder, turning=not prints) as progress:
        progress.known_deaths(record)
        code = serving.serve(folder, progress, foreground=True)
    _end(runs.look(folder), code, as_json=as_json)


def follow(folder: Path, *, as_json: bool) -> None:
    """Wait until a run has ended, whoever runs it. Raises typer.Exit with its code."""
    with _turning(f"Waiting for {folder.name}") as turn:
        shown = runs.wait(folder, lambda shown: turn(runs.ending(shown)))
    code = shown.record.exit_code
    _end(
        shown, Exit.RUN_DIED if shown.record.state == "dead" else Exit.FAILED if code is None else code, as_json=as_json
    )


def _warn(record: Record) -> None:
    """Say what of this place would lose the work: a container, a disk, a logout."""
    for sentence in examining.at_start(Path(record.source), Path(record.store)):
        for line in sentence.splitlines():
            tell(line)


def _detach(folder: Path, *, as_json: bool) -> None:
    name = folder.name
    try:
        with _turning(f"Starting {name}"):
            spawn.detach(folder)
    except KeyboardInterrupt:
        say(f"The run {name} goes on without this terminal. End it: ipyrescue stop {name}")
        raise
    shown = runs.look(folder)
    if not shown.lives and shown.record.state != "finished":
        _end(shown, shown.record.exit_code or Exit.FAILED, as_json=as_json)
        return
    if as_json:
        write_json({"run": runs.document(shown)})
        return
    write(name)
    if sys.stderr.isatty():
        say(f"Runs on its own. Watch it: ipyrescue logs -f {name}   End it: ipyrescue stop {name}   All: ipyrescue ps")


def _end(shown: Shown, code: int, *, as_json: bool) -> None:
    if as_json:
        write_json({"run": runs.document(shown)})
    else:
        tell(runs.ending(shown))
    if code != Exit.OK:
        raise typer.Exit(code)


@contextlib.contextmanager
def _turning(text: str) -> Iterator[Any]:
    """Say on stderr what is waited for: a line that turns where a person looks, else a plain one."""
    if not sys.stderr.isatty():
        say(f"{text}.")
        yield lambda text: None
        return
    with console(sys.stderr).status(f"{text} ...") as status:
        yield status.update


def _joined(args: Sequence[str]) -> list[str]:
    """Each `-p NAME VALUE` as an option with one value."""
    joined: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*joined, word, *rest]
        joined.append(word)
        if word in ("-p", "--parameter") and len(rest) >= 2:
            joined.append(f"{rest.pop(0)}{_BETWEEN}{rest.pop(0)}")
    return joined


def _pair(text: str) -> tuple[str, str]:
    name, between, value = text.partition(_BETWEEN)
    if not between:
        raise typer.BadParameter("write a name and a value: -p lr 3e-4", param_hint="-p")
    return name, value


def _duration(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _policy(text: str) -> OnFailure:
    for policy in ("resume", "restart", "stop"):
        if text == policy:
            return policy
    raise typer.BadParameter(f"`{text}` is none of {', '.join(POLICIES)}.", param_hint="--on-failure")


def _refuse_a_file_beside_wait(file: Path | None) -> None:
    if file is not None:
        raise typer.BadParameter("--wait NAME waits for a run that is there; it runs no file", param_hint="--wait")
