"""What a run is refused for before it begins: sentences that say what to type instead. Writes nothing."""

from __future__ import annotations

import keyword
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ipyrescue import credentials
from ipyrescue.errors import RunError
from ipyrescue.runs import environment_file
from ipyrescue.runs import record as records
from ipyrescue.runs.record import ENDED, Kind, Options, Record
from ipyrescue.store.records import LONGEST_TEXT


def kind_of(source: Path) -> Kind:
    """What *source* is, by its name. Raises RunError for a file that is not there, or is neither."""
    if not source.is_file():
        raise RunError(f"There is no file {source}. Say which notebook or script to run: ipyrescue run train.ipynb")
    if source.suffix == ".ipynb":
        return "notebook"
    if source.suffix == ".py":
        return "script"
    raise RunError(f"{source} is neither a notebook (.ipynb) nor a Python script (.py), so it cannot be run.")


def refuse_odd_options(kind: Kind, options: Options) -> None:
    """Raise RunError for options that would only fail later, or do nothing, or write a credential into the record."""
    if kind == "script":
        _refuse_what_scripts_lack(options)
    elif options.arguments:
        raise RunError(f"A notebook takes no arguments ({options.arguments[0]}). Its parameters: -p NAME VALUE")
    for name, text in options.parameters:
        _refuse_odd_parameter(name, text)
    if any(len(text) > LONGEST_TEXT or "\0" in text for text in _texts(options)):
        raise RunError(
            f"An argument or a parameter has more than {LONGEST_TEXT} characters. Pass a file's name instead."
        )
    if options.env_file is not None:
        environment_file.read(Path(options.env_file), os.environ)
    if options.output is not None and Path(options.output).is_dir():
        raise RunError(f"The output {options.output} is a folder. Name the file in it: --output FOLDER/train.run.ipynb")
    if options.output is not None and not Path(options.output).parent.is_dir():
        raise RunError(f"The folder of the output {options.output} is not there. Make it, or choose another --output.")


def refuse_twin(record: Record, folders: Iterable[Path]) -> None:
    """Raise RunError where a living run in *folders* has the same source, or writes to the same file."""
    for other in living(folders):
        if other.name != record.name and _files(other) & _files(record):
            where = f" (cell {other.cell} of {other.cells})" if other.cell and other.cells else ""
            raise RunError(
                f"{Path(record.source).name} is run already, by the run {other.name}, which is {other.state}{where}. "
                f"See it: ipyrescue logs -f {other.name}   Stop it first: ipyrescue stop {other.name}"
            )


def living(folders: Iterable[Path]) -> Iterator[Record]:
    """The records in *folders* of runs that live."""
    for folder in folders:
        record = records.read_good(folder)
        if record is not None and (record := records.judged(record, folder)).state not in ENDED:
            yield record


def _refuse_what_scripts_lack(options: Options) -> None:
    if options.parameters:
        raise RunError("A script has no parameters cell; what it takes stands behind --: ipyrescue run a.py -- --lr 1")
    if options.output is not None:
        raise RunError("A script has no output notebook: what it prints is in ipyrescue logs NAME.")
    if options.timeout_cell_seconds is not None or options.kernel is not None:
        raise RunError("--timeout-cell and --kernel are for notebooks; a script has no cells, and runs in this Python.")


def _refuse_odd_parameter(name: str, text: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise RunError(f"A parameter becomes a variable, and {name!r} is no name for one. Write -p learning_rate 3e-4")
    if credentials.says_so(name) or credentials.is_credential(name, text):
        raise RunError(
            f"The parameter {name} looks like a credential: it would stand in the notebook and in the run's record. "
            "Put it into a file of KEY=VALUE lines, pass --env-file FILE, and read os.environ in the notebook."
        )


def _texts(options: Options) -> list[str]:
    return [*options.arguments, *(text for pair in options.parameters for text in pair)]


def _files(record: Record) -> set[str]:
    paths = (record.source, record.options.output, record.output)
    return {os.path.realpath(path) for path in paths if path is not None}
