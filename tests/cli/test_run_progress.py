"""What a run in the foreground says of its cells."""

import json
from dataclasses import replace

import pytest

from ipyrescue.cli.progress import Progress, first_lines
from ipyrescue.runs.record import Done, Options, Record

RECORD = Record("train", "notebook", "train.ipynb", "", "", Options(), "2026-11-21T00:00:00+00:00", cells=2)
DONE = tuple(Done(cell, "c", "s", cell, "") for cell in (1, 2))


def code(source, *tags):
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}}


@pytest.fixture
def written(tmp_path):
    def write(*cells):
        (tmp_path / "notebook.ipynb").write_text(json.dumps({"cells": cells}))
        return tmp_path

    return write


def test_cells_are_numbered_as_the_run_numbers_them(written):
    title = {"cell_type": "markdown", "source": "# Training"}
    skipped = code("print('skip')", "skip-execution")
    folder = written(title, code(["\n", "import torch\n", "x"]), code(""), skipped, code(" \n"), code("fit()", "mine"))

    assert first_lines(folder / "notebook.ipynb") == ["import torch", "fit()"]


@pytest.mark.parametrize("cell", [1, {"cell_type": "code", "source": "x", "metadata": 3}, code(None)])
def test_what_is_no_notebook_has_no_lines(written, cell):
    assert first_lines(written(cell) / "notebook.ipynb") == []


@pytest.fixture
def said(written, capsys):
    """What is told of a record that changes so, without times."""

    def tell(*changes):
        record, progress = RECORD, Progress(written(code("print('A')"), code("print('C')")))
        for change in changes:
            record = replace(record, **change)
            progress(record)
        return [line.partition("   ")[0] for line in capsys.readouterr().err.splitlines()]

    return tell


def test_a_resumed_run_with_nothing_left_says_nothing_of_its_last_cell(said):
    assert said({"cell": 2, "done": DONE}, {"state": "running"}, {"state": "finished"}) == []


def test_a_cell_is_over_when_the_next_one_begins(said):
    told = said({"state": "running", "cell": 1}, {"done": DONE[:1]}, {"cell": 2}, {"done": DONE}, {"state": "finished"})

    assert told == ["[1/2] print('A') ...", "[1/2] print('A')", "[2/2] print('C') ...", "[2/2] print('C')"]
