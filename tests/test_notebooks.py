"""The notebooks in notebooks/: they run from top to bottom, and git sees no trace of whoever ran them last."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"/(home|root|Users|work|workspace|tmp|mnt)/|[A-Z]:\\\\")
SECONDS = 120

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(path, tmp_path):
    """Its own assertions hold in a kernel that knows nothing, and it leaves nothing behind but snapshots."""
    notebook = nbformat.read(path, as_version=4)

    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert {path.name for path in tmp_path.iterdir()} <= {".ipyrescue"}


def test_notebook_is_valid(path):
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))


def test_notebook_is_stripped(path):
    """Outputs, counts and times would differ at each run, and show somebody's machine."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_notebook_names_no_machine(path):
    assert MACHINE_PATH.findall(path.read_text(encoding="utf-8")) == []


def test_notebook_opens_with_a_title_and_ends_with_a_check(path):
    """A newcomer reads what will happen; a test and a reader see that it did."""
    notebook = nbformat.read(path, as_version=4)

    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert notebook.cells[-1].source.startswith("assert ")
