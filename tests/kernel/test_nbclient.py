"""A notebook that a program runs gives the same outputs whether ipyrescue protects it or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CELLS = [
    "import warnings\nwarnings.simplefilter('error')",
    "import numpy as np, random, threading\nrandom.seed(1)\nx = np.arange(10)",
    "class Model:\n    def __init__(self): self.w = x.copy()\nmodel = Model()",
    "def step(model): model.w = model.w + 1",
    "for _ in range(3):\n    step(model)\nprint(model.w.sum())",
    "model.w",
    "lines = (line for line in 'abc')\nnext(lines)",
    "lock = threading.Lock()\nrandom.random()",
    "x = x.astype(float)\nx /= 3\nx",
    "warnings.simplefilter('default')\nsorted(name for name in globals() if not name.startswith('_'))",
]


def outputs(folder: Path, **environ: str) -> list[object]:
    """Run the cells in a new kernel and return what each of them showed."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    client = NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="python3", timeout=120)
    run = client.execute(cwd=str(folder), env={**os.environ, **environ})
    return [cell["outputs"] for cell in run.cells]


def test_outputs_are_the_same_armed_and_unarmed(tmp_path: Path) -> None:
    """Warnings are errors in it; snapshots are made after cells, of things that can and that cannot be saved."""
    profile = {"IPYTHONDIR": str(tmp_path / "ipython")}
    subprocess.run([sys.executable, "-m", "ipyrescue", "install"], env={**os.environ, **profile}, check=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "armed").mkdir()

    plain = outputs(tmp_path / "plain")
    armed = outputs(tmp_path / "armed", **profile, IPYRESCUE_AUTOSTART="0.001s", IPYRESCUE_MAX_SHARE="100%")

    assert armed == plain
    assert list((tmp_path / "armed" / ".ipyrescue" / "snapshots").iterdir())
