"""What differs between two snapshots, and that nothing is called the same that may not be."""

from __future__ import annotations

import dataclasses

import pytest
from namespaces import Life, reborn

from ipyrescue.comparing import compare, in_order, left_out
from ipyrescue.manifest import BlobRef, Buffer, Group, Import, Skipped, Snapshot, Storage, Stream, Variable
from tests.kernel.samples import snapshot


def held(blobs: str, *groups: Group, **fields: object) -> Snapshot:
    """A snapshot that holds *groups*; each letter of *blobs* is one blob's content."""
    names = [name for group in groups for name in group.names]
    known = {
        "variables": tuple(Variable(name, "list", 7, None, None) for name in names),
        "groups": groups,
        "blobs": tuple(BlobRef(letter * 64, "e" * 16, 4096 * i, 7) for i, letter in enumerate(blobs)),
    }
    return snapshot(**(known | fields))


def group(*names: str, stream: int = 0, buffer: int | None = None, depends: tuple[int, ...] = ()) -> Group:
    buffers = () if buffer is None else (Buffer((buffer,), 0, 7),)
    storages = () if buffer is None else (Storage(0, 0, 7, "torch", "cpu"),)
    return Group(names, "data", "pickle", Stream((stream,), 7, "raw"), buffers, storages, (), (), depends)


def fates(older: Snapshot, newer: Snapshot) -> dict[str, list[str]]:
    found = compare(older, newer)
    return {
        "added": [v.name for v in found.added],
        "removed": [v.name for v in found.removed],
        "changed": [c.after.name for c in found.changed],
        "same": list(found.same),
    }


X = group("x", buffer=1)


@pytest.mark.parametrize(
    ("older", "newer", "same"),
    [
        pytest.param(held("ab", X), held("ab", X), True, id="the same bytes"),
        pytest.param(held("ab", X), held("zab", group("x", stream=1, buffer=2)), True, id="elsewhere on disk"),
        pytest.param(held("ab", X), held("zb", X), False, id="another stream"),
        pytest.param(held("ab", X), held("az", X), False, id="another buffer"),
        pytest.param(held("ab", X), held("ab", group("x", "y", buffer=1)), False, id="shares with another name now"),
        pytest.param(
            held("ab", X), held("ab", dataclasses.replace(X, encoder="dill")), False, id="read by another unpickler"
        ),
        pytest.param(
            held("ab", X),
            held("ab", dataclasses.replace(X, storages=(Storage(0, 0, 7, "torch", "cuda:0"),))),
            False,
            id="moved to a GPU",
        ),
        pytest.param(
            held("ab", X), held("ab", X, variables=(Variable("x", "tuple", 7, None, None),)), False, id="another type"
        ),
        pytest.param(held("ab", X, groups=()), held("ab", X, groups=()), False, id="no evidence at all"),
        pytest.param(
            held("ab", group("C"), group("x", stream=1, depends=(0,))),
            held("zb", group("C"), group("x", stream=1, depends=(0,))),
            False,
            id="its class changed",
        ),
        pytest.param(
            held("abc", group("C"), group("D", stream=1, depends=(0,)), group("x", stream=2, depends=(1,))),
            held("zbc", group("C"), group("D", stream=1, depends=(0,)), group("x", stream=2, depends=(1,))),
            False,
            id="its class's class changed",
        ),
    ],
)
def test_only_what_is_proved_equal_is_the_same(older: Snapshot, newer: Snapshot, same: bool) -> None:
    found = fates(older, newer)

    assert ("x" in found["same"], "x" in found["changed"]) == (same, not same)


def test_names_of_one_group_change_together() -> None:
    """Which of them it was the stream does not say."""
    older, newer = held("abc", group("model", "opt", buffer=1)), held("azc", group("model", "opt", buffer=1))

    assert fates(older, newer)["changed"] == ["model", "opt"]


def test_how_much_changed_is_the_blobs_that_the_older_one_lacks() -> None:
    """Wherever they stood in the groups of these names; one that stands twice counts once."""
    model = dataclasses.replace(group("model", "opt", stream=0), buffers=(Buffer((1, 2, 3, 3), 0, 28),))
    apart = (group("model", stream=0, buffer=1), group("opt", stream=2), group("other", stream=3))

    found = compare(held("sabz", *apart), held("sayz", model)).changed
    needed = compare(
        held("ab", group("C"), group("x", stream=1, depends=(0,))),
        held("zb", group("C"), group("x", stream=1, depends=(0,))),
    ).changed

    assert [(change.after.name, change.changed_bytes) for change in found] == [("model", 14), ("opt", 14)]
    assert [(change.after.name, change.changed_bytes) for change in needed] == [("C", 7), ("x", 0)]
    assert compare(held("a", imports=(Import("x", "os"),)), held("a", group("x"))).changed[0].changed_bytes == 7


def test_imports_count_as_variables() -> None:
    older = held("a", group("x"), imports=(Import("np", "numpy"), Import("nn", "torch.nn")))
    newer = held("a", group("np"), imports=(Import("nn", "torch.nn"), Import("os", "os")))

    assert fates(older, newer) == {"added": ["os"], "removed": ["x"], "changed": ["np"], "same": ["nn"]}
    assert compare(older, newer).changed[0].types == "module numpy -> list"


def test_many_classes_that_need_each_other_take_no_time() -> None:
    """Each of forty needs all before it: two to the fortieth paths."""
    classes = [group(f"C{n}", stream=n, depends=tuple(range(n))) for n in range(40)]
    older = held("".join(map(chr, range(48, 88))), *classes)

    assert len(compare(older, dataclasses.replace(older)).same) == 40


def test_the_json_is_that_of_the_contract() -> None:
    older = held("ab", group("x"), group("gone", stream=1))
    newer = held("zb", group("x"), group("new", stream=1), variables=(Variable("x", "dict", 9, 3, None),))
    newer = dataclasses.replace(newer, variables=(*newer.variables, Variable("new", "int", 1, None, None)))

    assert compare(older, newer).as_json() == {
        "added": [{"name": "new", "type": "int", "size_bytes": 1}],
        "removed": [{"name": "gone", "type": "list", "size_bytes": 7}],
        "changed": [{"name": "x", "type": "dict", "size_bytes": 9, "size_bytes_before": 7, "changed_bytes": 7}],
        "same": 0,
    }
    assert str(compare(older, newer)) == "1 added, 1 removed, 1 changed"
    assert str(compare(held(""), held(""))) == "no variables in either"


def test_sequence_numbers_say_which_is_older() -> None:
    old, new = snapshot(sequence=1, created="2030-01-01"), snapshot(sequence=2, created="2020-01-01")

    assert in_order(new, old) == in_order(old, new) == (old, new)


def test_what_was_left_out_is_told_from_what_is_gone() -> None:
    newer = snapshot(skipped=(Skipped("gen", "generator", "generator"),))

    assert (left_out("gen", newer), left_out("x", newer)) == ("left out: generator", "")


NAMESPACE = """
import numpy as np
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 3)
model = Net()
opt = torch.optim.AdamW(model.parameters())
words, table = {"a", "b", "c"}, {"x": [1, 2]}
def double(x):
    return 2 * x
array = np.arange(100_000)
view = array[::2]
number = 1
"""
ALL = {"Net", "array", "double", "model", "np", "number", "opt", "table", "torch", "view", "words"}


@pytest.mark.parametrize(
    ("cell", "changed"),
    [
        ("", set()),
        ("number = 2", {"number"}),
        ("view[0] = 7", {"array", "view"}),
        ("table['x'].append(words)", {"table", "words"}),
        ("model.fc(torch.ones(1, 3)).sum().backward(); opt.step()", {"model", "opt"}),
        ("def double(x):\n    return x + x", {"double"}),
    ],
)
def test_what_a_cell_changed(life: Life, cell: str, changed: set[str]) -> None:
    """Objects that nobody touched are written as the same bytes by the same process."""
    life.run(NAMESPACE)
    before = life.checkpoint()
    life.run(cell)

    found = fates(before, life.checkpoint())

    assert (set(found["changed"]), set(found["same"])) == (changed, ALL - changed)
    assert found["added"] == found["removed"] == []


def test_one_element_of_a_large_array_changes_one_blob_of_it(life: Life) -> None:
    life.run("import numpy as np\nlarge = np.random.default_rng(0).normal(size=300_000)")
    before = life.checkpoint()
    life.run("large[7] = 0")

    (change,) = compare(before, life.checkpoint()).changed

    assert change.after.size_bytes >= 2_400_000
    assert 1 << 20 <= change.changed_bytes < 1.1 * (1 << 20)


def test_a_class_that_was_edited_changes_its_instances(life: Life) -> None:
    """Their own bytes are the same; what they do is not."""
    life.run("class Net:\n    size = 1\nnet = Net()")
    before = life.checkpoint()
    life.run("Net.size = 2")

    assert set(fates(before, life.checkpoint())["changed"]) == {"Net", "net"}


def test_data_is_the_same_after_a_restore(life: Life) -> None:
    """A death and a restore change no tensor and no plain data; a set may be written in another order."""
    life.run(NAMESPACE)
    before = life.checkpoint()
    after = reborn(life)
    after.restore()

    assert {"array", "number", "np", "table", "view"} <= set(fates(before, after.checkpoint())["same"])


def test_a_class_is_the_same_after_its_instances_were_saved(life: Life) -> None:
    """Copyreg notes in a class that an instance was pickled; that is no change of it."""
    life.run("class Net:\n    x = 1\nclass Lazy:\n    __slots__ = ('a',)\nnet, lazy = Net(), Lazy()")
    first = life.checkpoint()

    assert compare(first, life.checkpoint()).changed == ()
