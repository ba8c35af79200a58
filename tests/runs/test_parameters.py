"""Parameters as papermill has them."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest

from ipyrescue.runs.parameters import inject, typed


def notebook(*cells: tuple[str, str]) -> Any:
    made = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag]} if tag else {}) for source, tag in cells]
    return nbformat.v4.new_notebook(cells=made)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("False", False),
        ("None", None),
        ("3", 3),
        ("-3", -3),
        ("3e-4", 3e-4),
        ("adam", "adam"),
        ("true", "true"),
    ],
)
def test_a_text_is_typed_as_papermill_types_it(text: str, value: object) -> None:
    assert typed(text) == value
    assert type(typed(text)) is type(value)


def test_values_stand_after_the_tagged_cell_and_replace_older_ones() -> None:
    one = notebook(("import os", ""), ("lr = 0.1\nname: str = 'x'", "parameters"), ("print(lr)", ""))

    assert inject(one, [("lr", "3e-4"), ("name", "it's")]) == ()
    assert inject(one, [("lr", "nan")]) == ()

    sources = [cell.source for cell in one.cells]
    assert sources == ["import os", "lr = 0.1\nname: str = 'x'", "# Parameters\nlr = float('nan')", "print(lr)"]
    assert one.cells[2].metadata.tags == ["injected-parameters"]
    nbformat.validate(one)


def test_a_name_that_the_tagged_cell_does_not_know_is_told() -> None:
    one = notebook(("lr = 0.1", "parameters"))

    assert inject(one, [("lr", "1"), ("rl", "1")]) == ("The cell tagged `parameters` knows no rl.",)


def test_without_a_tagged_cell_they_stand_first() -> None:
    one = notebook(("print(lr)", ""))

    (warning,) = inject(one, [("lr", "1")])

    assert one.cells[0].source == "# Parameters\nlr = 1"
    assert "No cell is tagged" in warning


def test_nothing_is_changed_where_nothing_is_said() -> None:
    one = notebook(("lr = 0.1", "parameters"))
    assert inject(one, []) == ()
    assert len(one.cells) == 1
