"""The cells of a session as text: bounded, and read strictly."""

from __future__ import annotations

import json

import pytest

from ipyrescue import cells
from ipyrescue.cells import Cell, History, from_bytes, source_of
from ipyrescue.errors import CorruptError


def history(*made: Cell) -> History:
    kept = History()
    kept.add(made)
    return kept


def test_what_was_run_is_read_back() -> None:
    ran = (Cell(1, "x = 1\ny = 'ä\u2028\x00'"), Cell(2, ""), Cell(3, "print('\\n')"))

    assert from_bytes(history(*ran).to_bytes()) == ran
    assert from_bytes(b"") == ()


def test_the_session_before_stands_in_front() -> None:
    kept = history(Cell(1, "new"))
    kept.begin_with([Cell(1, "old"), Cell(2, "older")])

    assert [cell.source for cell in from_bytes(kept.to_bytes())] == ["old", "older", "new"]


def test_beyond_the_bound_the_newest_stay_and_the_rest_stays_as_it_is() -> None:
    kept = history(*(Cell(i, "x" * 1000) for i in range(2000)))
    first = kept.to_bytes()
    kept.add([Cell(2000, "y")])

    assert len(first) <= cells.MAX_BYTES
    assert from_bytes(kept.to_bytes())[-1] == Cell(2000, "y")
    assert kept.to_bytes().startswith(first), "blobs that were full are the same again"


def test_one_enormous_cell_is_cut() -> None:
    (cell,) = from_bytes(history(Cell(1, "x" * 10_000_000)).to_bytes())

    assert cell.source.endswith("\n# ... 9900000 more characters")


@pytest.mark.parametrize(
    "raw",
    [b"\n", b"x", b"[]", b"{}", b'{"cell":1}', b'{"cell":"1","source":""}', b'{"cell":true,"source":""}', b"\xff",
     b'{"cell":1,"source":null}', b'{"cell":1,"source":"","x":1}', b"[" * 5000],
)  # fmt: skip
def test_anything_else_is_damage(raw: bytes) -> None:
    with pytest.raises(CorruptError):
        from_bytes(raw + b"\n")


RAN = (
    Cell(3, "a = 1\ngen = (i for i in range(a))\nwith open('x') as file:\n    pass\ndef f():\n    return gen"),
    Cell(3, "other = 2"),
    Cell(4, "%time gen = iter([])\nnot python ("),
)


@pytest.mark.parametrize(
    ("number", "name", "source"),
    [
        (3, "gen", "gen = (i for i in range(a))"),
        (3, "file", "with open('x') as file:\n    pass"),
        (3, "f", "def f():\n    return gen"),
        (3, "other", "other = 2"),
        (4, "gen", "%time gen = iter([])\nnot python ("),
        (5, "gen", None),
        (None, "gen", None),
        (3, "nowhere", None),
    ],
)
def test_the_statements_that_made_a_name_are_found(number: int | None, name: str, source: str | None) -> None:
    assert source_of(RAN, number, name) == source


DECORATED = Cell(
    7, "from dataclasses import dataclass\n@dataclass(\n    frozen=True)\nclass P:\n    x: int\np = P(1)\n"
)


@pytest.mark.parametrize(
    ("number", "name", "source"),
    [
        (7, "P", "@dataclass(\n    frozen=True)\nclass P:\n    x: int"),
        (7, "dataclass", None),
        (7, "p", None),
        (3, "P", None),
        (4, "gen", None),
    ],
)
def test_the_definition_of_a_class_is_found_with_its_decorators(number: int, name: str, source: str | None) -> None:
    assert cells.class_source((*RAN, DECORATED), number, name) == source
    assert source is None or source_of((*RAN, DECORATED), number, name) == source


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import xml.dom.minidom", {"xml.dom.minidom"}),
        ("import os.path as p, json  # import a.b", {"os.path", "json"}),
        ("import os; import xml.sax", {"os", "xml.sax"}),
        ("%load_ext ipyrescue\nimport xml.dom\n!ls", {"xml.dom"}),
        ("def f():\n    import xml.dom", {"xml.dom"}),
        ("from torch.nn import functional as F, init", {"torch.nn", "torch.nn.functional", "torch.nn.init"}),
        ("from torch.nn import (\n    functional,\n    init,\n)", {"torch.nn", "torch.nn.functional", "torch.nn.init"}),
        ("from math import *", {"math", "math.*"}),
        ("x = 'no import here'\nimportant = 1", set()),
    ],
)
def test_what_cells_import_is_known(source: str, modules: set[str]) -> None:
    assert cells.imported([Cell(1, source)]) == modules


def test_a_line_is_what_the_format_says() -> None:
    assert json.loads(history(Cell(3, "x = 1")).to_bytes()) == {"cell": 3, "source": "x = 1"}
    assert history(Cell(3, "x = 1")).to_bytes() == b'{"cell":3,"source":"x = 1"}\n'
