"""`ipyrescue stats`: what takes the space, as bytes on disk say too."""

import os

import pytest
from kernels import kernels

from ipyrescue.cli.exits import Exit
from ipyrescue.store import layout
from tests.cli.test_verbs import damage_manifest, run, run_json


def test_the_shape_of_stats_and_its_sums(store, make):
    _, gone = make(notebook="a.ipynb"), make(notebook="a.ipynb", data=os.urandom(9000))
    make(notebook="b.ipynb")
    store.forget(gone.id)

    _, document = run_json("stats")

    assert list(document) == [
        "store", "snapshots", "logical_bytes", "stored_bytes", "own_bytes", "shared_bytes", "packs", "disk_bytes",
        "manifest_bytes", "prune_frees_bytes", "repack_frees_bytes", "prune_refuses_because", "notebooks", "largest",
    ]  # fmt: skip
    assert [n["notebook"] for n in document["notebooks"]] == ["a.ipynb", "b.ipynb"]
    assert document["largest"][0] == {"notebook": "a.ipynb", "name": "weights", "stored_bytes": 5008, "contents": 1}
    assert document["logical_bytes"] - document["stored_bytes"] == document["shared_bytes"] == 8
    assert document["disk_bytes"] == sum(p.stat().st_blocks * 512 for p in layout.packs(store.root).iterdir())
    assert document["prune_frees_bytes"] == 12288 == run_json("prune")[1]["freed_bytes"]
    assert run_json("stats")[1]["prune_frees_bytes"] == 0


def test_stats_of_a_store_that_prune_refuses(store, make):
    make()
    damage_manifest(store, make())

    result = run("stats")

    assert result.exit_code == Exit.OK
    assert "dead     unknown. Nothing was pruned:" in result.stdout


def test_stats_of_an_empty_store(store):
    assert "on disk  0 B in 0 packs" in run("stats").stdout


def test_stats_of_a_kernels_store(tmp_path):
    """A tensor is found by its dotted name, in as many contents as there were."""
    pytest.importorskip("torch")
    with kernels(tmp_path) as make_kernel:
        kernel = make_kernel()
        kernel.run("%load_ext ipyrescue\nimport torch\nmodel = torch.nn.Linear(300, 200)\n%checkpoint_vars")
        kernel.run("torch.nn.init.zeros_(model.weight)\n%checkpoint_vars")

    result, document = run("stats"), run_json("stats")[1]

    assert document["largest"][0] == {
        "notebook": "train.ipynb", "name": "model.weight", "stored_bytes": 2 * 300 * 200 * 4, "contents": 2,
    }  # fmt: skip
    assert result.stdout.splitlines()[3].split() == ["LARGEST", "NOTEBOOK", "STORED", "CONTENTS"]
    assert result.stdout.splitlines()[4].split() == ["model.weight", "train.ipynb", "480", "kB", "2"]
