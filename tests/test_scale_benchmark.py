"""`python -m benchmarks.scale` measures what it says, on stores that are whole to whoever reads them."""

import re
import subprocess
import sys

import pytest

from benchmarks.scale.__main__ import LINES, SHAPES
from benchmarks.scale.stores import Shape, fill
from ipyrescue.store import Store
from ipyrescue.store.signing import Key
from ipyrescue.store.verify import incomplete


def test_its_stores_are_stores(tmp_path):
    key = Key(b"k" * 32)
    stored_bytes = fill(tmp_path / "store", key, Shape(7, 5, 2, notebooks=2))

    store = Store.open(tmp_path / "store", key)

    snapshots = store.snapshots()
    assert [len(snapshot.blobs) for snapshot in snapshots] == [5] * 7
    assert [incomplete(store.root, snapshot) for snapshot in snapshots] == [None] * 7
    assert {snapshot.notebook for snapshot in snapshots} == {"notebook_0.ipynb", "notebook_1.ipynb"}
    assert sum({b.hash: b.size_bytes for s in snapshots for b in s.blobs}.values()) == stored_bytes


@pytest.mark.slow
def test_every_line_is_measured(tmp_path, pytestconfig):
    command = [sys.executable, "-m", "benchmarks.scale", "--divide", "1000", "--folder", str(tmp_path)]
    command += ["--write", str(tmp_path)]
    subprocess.run(command, check=True, cwd=pytestconfig.rootpath, timeout=100, stdout=subprocess.DEVNULL)

    document = (tmp_path / "BENCHMARKS.md").read_text()

    for line, _ in LINES:
        assert len(re.findall(rf"^\| {re.escape(line)} \| \d+\.\d\d \| \d+\.\d\d \| \d+ \|$", document, re.M)) == len(
            SHAPES
        )
