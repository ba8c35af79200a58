"""Another key's snapshots: listed with whose they are, exported unchecked, signed anew when a person says so."""

from __future__ import annotations

import dataclasses
import json

import pytest
from namespaces import Life
from typer.testing import CliRunner

from ipyrescue.cli.app import app
from ipyrescue.cli.exits import Exit
from ipyrescue.manifest import Snapshot
from ipyrescue.store import Store

np = pytest.importorskip("numpy")


def run(*arguments, **more):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, **more)


@pytest.fixture
def theirs(store, other_key) -> Life:
    """Somebody with another key, in the same store."""
    life = Life(Store.open(store.root, other_key), notebook="theirs.ipynb")
    life.run("import numpy as np\nw = np.arange(4.)\nwide = np.broadcast_to(w, (1000, 4))\nn = {1, 2}")
    return life


def test_ls_and_show_say_whose_it_is(theirs, other_key):
    snapshot = theirs.checkpoint()

    listed, shown = run("ls"), run("show", snapshot.id)

    whose = f"key {other_key.fingerprint}, file of uid "
    assert whose in listed.stdout
    assert "made on test-host" in listed.stdout
    assert f"signed by  {whose}" in shown.stdout
    assert f"ipyrescue trust {snapshot.id[:8]}" in shown.stdout
    (entry,) = json.loads(run("ls", "--json").stdout)["snapshots"]
    assert (entry["signed_by"], entry["state"]) == (other_key.fingerprint, "untrusted")


def test_trust_shows_whose_it_is_and_signs_it(theirs, store, other_key):
    snapshot = theirs.checkpoint()

    result = run("trust", snapshot.id[:8], "--yes")

    assert result.exit_code == Exit.OK
    assert f"Signed, it says, by: key {other_key.fingerprint}, file of uid" in result.stderr
    assert "ipyrescue key import FILE" in result.stderr, "a fingerprint proves nothing, the key does"
    (ours,) = Store.open(store.root, store.key).snapshots()
    assert result.stdout == f"Signed {snapshot.id[:8]} of theirs.ipynb with your key: it is {ours.id[:8]} now.\n"
    assert ours.groups == snapshot.groups


def test_trust_asks(theirs, store, monkeypatch):
    snapshot = theirs.checkpoint()

    refused = run("trust", snapshot.id[:8])
    monkeypatch.setattr("typer.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    answers = {answer: run("trust", snapshot.id[:8], input=answer) for answer in ("\n", "n\n", "yes\n")}

    assert refused.exit_code == Exit.UNTRUSTED
    assert "--yes" in refused.stderr
    assert [answers[answer].exit_code for answer in answers] == [Exit.FAILED, Exit.FAILED, Exit.OK]
    assert "Nothing was signed" in answers["n\n"].stderr


def test_json_tells_the_new_id(theirs, store):
    snapshot = theirs.checkpoint()

    document = json.loads(run("trust", snapshot.id, "--yes", "--json").stdout)

    assert document["was"] == snapshot.id
    assert document["snapshot"]["state"] == "ok"
    assert document["signed_by"] == store.key.fingerprint


def test_a_damaged_one_is_not_signed(theirs, store):
    snapshot = theirs.checkpoint()
    for pack in (store.root / "packs").iterdir():
        pack.unlink()

    result = run("trust", snapshot.id, "--yes")

    assert result.exit_code == Exit.DAMAGED
    assert Store.open(store.root, store.key).snapshots() == []


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_tensors_of_a_foreign_one_are_exported_and_said_to_be_unchecked(theirs, tmp_path, suffix):
    snapshot = theirs.checkpoint()

    result = run("export", snapshot.id[:8], "w", "-o", tmp_path / f"w.{suffix}")

    assert result.exit_code == Exit.OK
    assert result.stderr.startswith("UNCHECKED: nobody whom you know vouches for")
    if suffix == "npz":
        with np.load(tmp_path / "w.npz", allow_pickle=False) as found:
            assert list(found["w"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["w.pt", "w.parquet", "folder"])
def test_nothing_of_a_foreign_one_is_unpickled(theirs, tmp_path, name):
    snapshot = theirs.checkpoint()

    result = run("export", snapshot.id[:8], *(["w"] if "." in name else []), "-o", tmp_path / name)

    assert result.exit_code == Exit.UNTRUSTED
    assert "only .safetensors and .npz" in result.stderr
    assert not (tmp_path / name).exists()


CLAIMS = {
    "more elements than bytes": {"shape": (1 << 40,), "stride": (0,)},
    "a path": {"name": "../../../etc/passwd"},
    "what the format keeps for itself": {"name": "__metadata__"},
    "a name with a zero byte": {"name": "w\x00"},
    "a negative shape": {"shape": (-4,), "stride": (8,)},
    "a type without end": {"dtype": "f" + "9" * 5000},
    "a type with a negative field": {"dtype": "[('a', '<f4', -5)]"},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_what_a_foreign_one_claims_is_not_believed(theirs, tmp_path, claim):
    made = theirs.checkpoint(exclude=("wide",))
    groups = [
        dataclasses.replace(g, tensors=tuple(dataclasses.replace(t, **claim) for t in g.tensors)) for g in made.groups
    ]
    hostile = dataclasses.replace(made, id="f" * 16, sequence=99, groups=tuple(groups))
    assert isinstance(hostile, Snapshot)
    with theirs.store.writing():
        theirs.store.commit(hostile)

    for suffix in ("npz", "safetensors"):
        result = run("export", "ffff", "-o", tmp_path / f"x.{suffix}")

        assert result.exit_code in (Exit.DAMAGED, Exit.FAILED)
        assert not (tmp_path / f"x.{suffix}").exists()


def test_a_foreign_one_is_exported_without_any_key(theirs, tmp_path, monkeypatch):
    snapshot = theirs.checkpoint()
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(tmp_path / "nothing"))

    assert run("export", snapshot.id[:8], "w", "-o", tmp_path / "w.npz").exit_code == Exit.OK
