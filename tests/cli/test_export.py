"""`ipyrescue export`: what other libraries read is what was in the namespace, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from kernels import kernels

from ipyrescue.cli.exits import Exit
from ipyrescue.store import Store, layout, signing
from tests.cli.test_verbs import run, run_json

torch = pytest.importorskip("torch")
load_arrays = pytest.importorskip("safetensors.numpy").load_file
load_file = pytest.importorskip("safetensors.torch").load_file

CELLS = """
import sys, torch, numpy as np, pandas as pd
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
opt = torch.optim.Adam(model.parameters())
model(torch.randn(5, 4)).sum().backward(); opt.step()
epoch, loss, features = 3, 0.5, torch.arange(6.).reshape(2, 3)
transposed = torch.arange(6).to(torch.bfloat16).reshape(2, 3).t()
expanded, scalar, nothing = torch.ones(1).expand(4), torch.tensor(3.5), torch.empty(0, 3)
f8, flags = torch.ones(3).to(torch.float8_e4m3fn), torch.tensor([True, False, True])
strided = np.arange(12.).reshape(3, 4)[:, ::2]
backwards, fortran = np.arange(5)[::-1], np.asfortranarray(np.arange(6).reshape(2, 3))
records = np.array([(1, b"ab", (2., 3.))], dtype=[("a", "<i4"), ("b", "S3"), ("c", "<f8", (2,))])
half_complex, aligned = torch.ones(4, dtype=torch.complex32), np.zeros(3, np.dtype("i1,f8", align=True))
big_endian, days, words = np.arange(3, dtype=">i4"), np.array(["2020-01-01"], "M8[D]"), np.array(["a", "bc"])
logs = {"loss": [np.ones(2), 1.5], "best": torch.zeros(2)}
table = pd.DataFrame({"x": [1, 2, 3], "y": list("abc")})
class Note:
    def __setstate__(self, state):
        with open("unpickled", "a") as file: file.write("here")
note = Note(); note.text = "text"
"""


@pytest.fixture(scope="module")
def namespace(tmp_path_factory):
    """A folder with a store that a real kernel wrote; what it held is saved beside, by torch and NumPy themselves."""
    folder = tmp_path_factory.mktemp("exported")
    with kernels(folder) as make_kernel:
        kernel = make_kernel()
        kernel.run(f"%load_ext ipyrescue\n{CELLS}\n%checkpoint_vars")
        kernel.run(
            "torch.save({'model': model.state_dict(), 'opt': opt.state_dict(), 'transposed': transposed, 'f8': f8,"
            " 'expanded': expanded, 'scalar': scalar, 'nothing': nothing, 'flags': flags}, 'truth.pt')\n"
            "np.savez('truth.npz', strided=strided, backwards=backwards, fortran=fortran, records=records,"
            " big_endian=big_endian, days=days, words=words)"
        )
    return folder


@pytest.fixture
def truth(namespace, monkeypatch):
    monkeypatch.chdir(namespace)
    return torch.load(namespace / "truth.pt", weights_only=True)


@pytest.fixture
def arrays(namespace, monkeypatch):
    monkeypatch.chdir(namespace)
    with np.load(namespace / "truth.npz") as loaded:
        yield dict(loaded)


def equal(one, other):
    return (one.dtype, one.shape, bits(one)) == (other.dtype, other.shape, bits(other))


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def test_safetensors_has_the_model_as_its_state_dict(truth, tmp_path):
    out = tmp_path / "model.safetensors"

    result = run("export", "latest", "model", "-o", out)

    assert result.exit_code == Exit.OK, result.stderr
    found = load_file(out)
    assert found.keys() == truth["model"].keys()
    assert all(equal(found[key], truth["model"][key]) for key in found)
    assert result.stdout.startswith(f"Wrote model.safetensors: {len(found)} keys, ")


def test_safetensors_takes_every_layout_of_torch(truth, tmp_path):
    names = ["transposed", "f8", "expanded", "scalar", "nothing", "flags", "logs", "opt"]
    out = tmp_path / "some.safetensors"

    _, document = run_json("export", "latest", *names, "-o", out)

    found = load_file(out)
    assert all(equal(found[name], truth[name]) for name in names[:6])
    assert set(document["keys"]) == set(found) > {"logs.best", "logs.loss.0", "opt.state.0.exp_avg"}
    assert load_arrays(out_of(tmp_path, "logs"))["loss.0"].tolist() == [1.0, 1.0]


def out_of(folder, name):
    assert run("export", "latest", name, "-o", folder / f"{name}.safetensors").exit_code == Exit.OK
    return folder / f"{name}.safetensors"


def test_npz_takes_every_layout_of_numpy(arrays, tmp_path):
    out = tmp_path / "x.npz"

    result = run("export", "latest", *arrays, "model.0.weight", "-o", out)

    assert result.exit_code == Exit.OK, result.stderr
    with np.load(out, allow_pickle=False) as found:
        for name, array in arrays.items():
            read = found[name]
            assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert found["model.0.weight"].shape == (3, 4)


@pytest.mark.slow
def test_pt_has_the_keys_of_a_checkpoint_and_loads_as_weights_only(truth, tmp_path, namespace):
    out = tmp_path / "model.pt"

    result = run("export", "latest", "model", "opt", "epoch", "loss", "features", "strided", "-o", out)

    assert result.exit_code == Exit.OK, result.stderr
    found = torch.load(out, weights_only=True)
    assert list(found) == ["model_state", "optimizer_state", "epoch", "loss", "features", "strided"]
    assert (found["epoch"], found["loss"]) == (3, 0.5)
    assert all(equal(found["model_state"][key], value) for key, value in truth["model"].items())
    again = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    again.load_state_dict(found["model_state"])
    torch.optim.Adam(again.parameters()).load_state_dict(found["optimizer_state"])
    assert not (namespace / "unpickled").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_pt_of_everything_leaves_out_what_is_not_simple_and_refuses_it_by_name(truth, tmp_path):
    result = run("export", "latest", "-o", tmp_path / "all.pt")

    assert result.exit_code == Exit.OK, result.stderr
    assert "Left out: note (__main__.Note is no simple value)" in result.stderr
    assert "optimizer_state" in torch.load(tmp_path / "all.pt", weights_only=True)
    refused = run("export", "latest", "note", "-o", tmp_path / "note.pt")
    assert refused.exit_code == Exit.FAILED
    assert "would refuse note (__main__.Note is no simple value)" in refused.stderr
    assert sorted(os.listdir(tmp_path)) == ["all.pt"]


@pytest.mark.slow
def test_parquet_is_the_table(truth, tmp_path):
    import pandas as pd

    assert run("export", "latest", "table", "-o", tmp_path / "df.parquet").exit_code == Exit.OK

    assert pd.read_parquet(tmp_path / "df.parquet").to_dict("list") == {"x": [1, 2, 3], "y": ["a", "b", "c"]}


def test_a_folder_is_read_without_ipyrescue(truth, arrays, tmp_path):
    """In a process where ipyrescue cannot be imported."""
    folder = tmp_path / "plain"

    result, document = run_json("export", "latest", "-o", folder)

    assert result.exit_code == Exit.OK
    assert list(document["left_out"]) == ["aligned"]
    assert document["left_out"]["aligned"].startswith("no plain type: {'names': ['f0', 'f1'], ")
    code = (
        "import sys; sys.modules['ipyrescue'] = None; sys.path.insert(0, sys.argv[1]); import numpy, reader, torch\n"
        "plain, tensors, truth = reader.load(), reader.load(torch=True), torch.load('truth.pt')\n"
        "assert tensors['transposed'].equal(truth['transposed']) and plain['transposed'].dtype == 'uint16'\n"
        "assert tensors['f8'].dtype == torch.float8_e4m3fn\n"
        "assert tensors['half_complex'].view(torch.int32).tolist() == [0x3c00] * 4\n"
        "assert all(tensors['model.' + key].equal(value) for key, value in truth['model'].items())\n"
        "known = numpy.load('truth.npz')\n"
        "assert all(plain[name].tobytes() == known[name].tobytes() for name in known.files)\n"
        "print(sorted(name for name in plain if name.startswith('(')))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(table)#0" in done.stdout
    assert json.loads((folder / "snapshot.json").read_text())["notebook"] == "train.ipynb"
    assert "torch.manual_seed(0)" in (folder / "cells.jsonl").read_text()
    assert len(json.loads((folder / "groups.json").read_text())) == len(list((folder / "streams").iterdir()))


def test_what_does_not_fit_a_file_is_left_out_and_said_unless_it_was_named(truth, arrays, tmp_path):
    _, floats = run_json("export", "latest", "-o", tmp_path / "x.safetensors")
    _, plain = run_json("export", "latest", "-o", tmp_path / "x.npz")
    told = run("export", "latest", "-o", tmp_path / "y.npz").stderr

    assert set(load_file(tmp_path / "x.safetensors")) == set(floats["keys"]) > {"transposed", "f8", "model.0.weight"}
    assert floats["left_out"]["words"] == "safetensors has no type <U2"
    assert floats["left_out"].keys() == {"aligned", "big_endian", "days", "half_complex", "records", "words"}
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert set(found) == set(plain["keys"]) > {"words", "records", "scalar", "model.0.weight"}
    assert plain["left_out"].keys() == {"aligned", "f8", "half_complex", "transposed"}
    assert "Left out: transposed (NumPy has no type bfloat16)" in told


def test_a_file_into_which_nothing_fits_is_not_written(make, tmp_path):
    snapshot = make()

    result = run("export", snapshot.id, "-o", tmp_path / "x.npz")

    assert (result.exit_code, os.listdir(tmp_path)) == (Exit.FAILED, [".ipyrescue"])
    assert "nothing in snapshot" in " ".join(result.stderr.split())


def test_what_is_plain_is_exported_without_unpickling(truth, tmp_path):
    """Of one process that wrote all three: which modules it has, and an audit hook."""
    code = """
import sys
found = []
sys.addaudithook(lambda event, args: found.append(args) if event == "pickle.find_class" else None)
from ipyrescue.cli.app import app
for out in ("x.safetensors", "x.npz", "x"):
    names = ["model", "records"][out == "x.npz" :][:1] if out != "x" else []
    app(["export", "latest", *names, "-o", sys.argv[1] + "/" + out], standalone_mode=False)
heavy = {"torch", "numpy", "dill", "cloudpickle", "zstandard", "IPython", "ipyrescue.pickling"} & set(sys.modules)
assert not heavy and not found, (heavy, found)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["x", "x.npz", "x.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("latest", "big_endian", "-o", "x.safetensors"), Exit.FAILED, "safetensors has no type for big_endian (>i4)"),
        (("latest", "transposed", "-o", "x.npz"), Exit.FAILED, "NumPy has no type for transposed (bfloat16)"),
        (("latest", "epoch", "-o", "x.npz"), Exit.FAILED, "epoch (int) holds no tensor or array"),
        (("latest", "nobody", "-o", "x.npz"), Exit.FAILED, "has no 'nobody'. Its variables: Note"),
        (("latest", "nobody", "-o", "x.pt"), Exit.FAILED, "has no nobody"),
        (("latest", "epoch", "loss", "-o", "x.parquet"), Exit.FAILED, "holds one table"),
        (("latest", "model", "-o", "x.zip"), Exit.USAGE, "x.zip: end it with .safetensors"),
        (("latest", "model", "-o", "truth.npz"), Exit.FAILED, "truth.npz is there already"),
        (("latest", "-o", "no/where.npz"), Exit.FAILED, "there is no folder"),
        (("f" * 16, "-o", "x.npz"), Exit.NOT_FOUND, "matches no snapshot"),
    ],
)
def test_what_cannot_be_exported_is_said_and_leaves_nothing(truth, namespace, arguments, code, message):
    before = sorted(os.listdir(namespace))

    result = run("export", *arguments)

    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert sorted(os.listdir(namespace)) == before


def test_damaged_bytes_are_not_exported_nor_unpickled(store, make, tmp_path):
    """Whatever the format: the hash is checked before."""
    snapshot = make()
    path = layout.pack_path(store.root, snapshot.blobs[0].pack)
    path.chmod(0o600)
    path.write_bytes(b"\0" * path.stat().st_size)

    for out in ("x.pt", "folder"):
        result = run("export", snapshot.id, "-o", tmp_path / out)
        assert result.exit_code != Exit.OK
        assert "damaged" in result.stderr
    assert sorted(os.listdir(tmp_path)) == [".ipyrescue"]


def test_another_keys_snapshot_is_not_exported(store, make, other_key, tmp_path):
    theirs = make(into=Store.open(store.root, other_key))

    assert run("export", theirs.id, "-o", tmp_path / "x.pt").exit_code == Exit.UNTRUSTED
    assert signing.load_key().fingerprint != other_key.fingerprint
