"""Former names of a notebook: its cells are in this file, and the file of the old name is gone."""

import json

import pytest

from ipyrescue.identity import Identity
from ipyrescue.incarnations.renames import former_names
from tests.incarnations.samples import a_life, bury


@pytest.fixture
def identity(tmp_path, store_root):
    """A notebook `new.ipynb` of two cells."""
    path = tmp_path / "new.ipynb"
    write(path, ["one", "two"])
    return Identity("new.ipynb", "notebook", path, store_root)


def write(path, ids):
    path.write_text(json.dumps({"cells": [{"id": cell, "source": ""} for cell in ids], "nbformat": 4}))


def lived(root, digit, notebook, *cell_ids, kind="notebook"):
    bury(root, a_life(incarnation=digit * 16, notebook=notebook, cell_ids=cell_ids, kind=kind))


def test_a_renamed_notebook_is_known_by_its_cells(identity, store_root):
    lived(store_root, "1", "old.ipynb", "two", "deleted")
    lived(store_root, "2", "older.ipynb", "one")
    lived(store_root, "3", "another.ipynb", "three")
    lived(store_root, "4", "new.ipynb", "one")

    assert former_names(identity) == {"old.ipynb", "older.ipynb"}


def test_a_copy_of_a_notebook_has_no_former_name(identity, store_root, tmp_path):
    lived(store_root, "1", "original.ipynb", "one", "two")
    write(tmp_path / "original.ipynb", ["one", "two"])

    assert former_names(identity) == frozenset()


def test_a_notebook_that_was_moved_below_is_known(identity, store_root, tmp_path):
    lived(store_root, "1", "sub/old.ipynb", "one")
    assert former_names(identity) == {"sub/old.ipynb"}
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub/old.ipynb", [])
    assert former_names(identity) == frozenset()


def test_cells_that_nobody_named_prove_nothing(identity, store_root):
    lived(store_root, "1", "old.ipynb")
    lived(store_root, "2", "console:ipython:.", "one", kind="console")

    assert former_names(identity) == frozenset()
    assert former_names(Identity("console:ipython:.", "console", None, store_root)) == frozenset()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"1", b'{"cells": 1}', b'{"cells": [1]}', b'{"cells": ["id"]}',
        b'{"cells": {"id": 1}}', b'{"cells": [{"source": ""}]}', b"\xff", b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:24]),
)  # fmt: skip
def test_a_file_that_is_no_notebook_has_no_former_name(identity, store_root, content):
    lived(store_root, "1", "old.ipynb", "one")
    identity.path.write_bytes(content)

    assert former_names(identity) == frozenset()


def test_a_file_that_is_not_there_has_no_former_name(identity, store_root):
    lived(store_root, "1", "old.ipynb", "one")
    identity.path.unlink()

    assert former_names(identity) == frozenset()


def test_an_enormous_notebook_is_not_read(identity, store_root):
    lived(store_root, "1", "old.ipynb", "one")
    with identity.path.open("ab") as file:
        file.truncate(65 << 20)

    assert former_names(identity) == frozenset()


@pytest.mark.parametrize("name", ["x" * 4000, "a/" * 2000 + "b.ipynb", "a\x00b", "\udcff.ipynb", "", "/", "../" * 50])
def test_hostile_names_are_survived(identity, store_root, name):
    lived(store_root, "1", name, "three")

    assert former_names(identity) == frozenset()
