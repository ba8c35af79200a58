"""FORMAT.md is true: its reader reads what the store writes, its lists are the code's."""

import dataclasses
import re

import pytest

from ipyrescue import manifest


@pytest.fixture(scope="module")
def text(pytestconfig):
    return (pytestconfig.rootpath / "FORMAT.md").read_text()


def test_the_reader_in_the_document_reads(store, save, text):
    """Somebody without ipyrescue gets a tensor's bytes from the document alone."""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    reader = {}
    exec(code, reader)
    save(store, b"older", b"old!")
    save(store, b"stream", b"weights one", b"weights two!!")

    tensor, data = reader["read_tensor"](store.root, "x")

    assert data == b"weights oneweights two!!"
    assert (tensor["dtype"], tensor["shape"]) == ("float32", [6])
    with pytest.raises(KeyError):
        reader["read_tensor"](store.root, "y")


def test_the_reader_in_the_document_notices_damage(store, save, text, rewrite):
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    reader = {}
    exec(code, reader)
    save(store, b"stream", b"weights")
    (path,) = (store.root / "packs").iterdir()
    rewrite(path, path.read_bytes().replace(b"weights", b"weight5"))

    with pytest.raises(AssertionError, match="damaged"):
        reader["read_tensor"](store.root, "x")


@pytest.mark.parametrize(
    "noun", [manifest.Snapshot, manifest.Group, manifest.BlobRef, manifest.Buffer, manifest.Storage, manifest.Tensor,
             manifest.Stream, manifest.Settings, manifest.Variable, manifest.Skipped, manifest.Import, manifest.Frame],
)  # fmt: skip
def test_every_field_is_in_the_document(noun, text):
    documented = set(re.findall(r"`(\w+)`", text))

    assert {field.name for field in dataclasses.fields(noun)} <= documented


def test_every_invariant_names_tests_that_exist(text, pytestconfig):
    named = re.findall(r"`(?:tests/)?(?:store/)?(test_\w+\.py)`", text)

    assert len(named) > 9
    found = {path.name for path in (pytestconfig.rootpath / "tests").rglob("test_*.py")}
    assert set(named) <= found
