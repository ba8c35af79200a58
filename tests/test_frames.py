"""Locals of running functions, and what loops are at: beside the variables in a snapshot, and beside them again."""

from __future__ import annotations

import types
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from namespaces import reborn

from ipyrescue.comparing import compare
from ipyrescue.errors import CheckpointError, CorruptError, RestoreError
from ipyrescue.manifest import Settings, Snapshot, local_name
from ipyrescue.selection import Occasion, Origin, select
from ipyrescue.stack import Running

if TYPE_CHECKING:
    from namespaces import Life

TRAIN = """
class Net: pass
def train(lr):
    import math
    net, kind, it, password = shared, Net, (n for n in [1]), "hunter2-hunter2"
    def step(): return net
    here()
train(0.1)
"""


def chosen(frames, namespace, **settings):
    """What a snapshot with these *settings* would hold, and what it would not."""
    trigger = settings.pop("trigger", "every")
    progress = settings.pop("progress", {})
    occasion = Occasion(trigger=trigger, frames=frames, progress=progress)
    return select(namespace, 1, Origin("n.ipynb", "1" * 16, "here"), occasion, Settings(**settings))


def frame(**held):
    return Running("train", 3, 5, held)


def test_locals_are_pseudo_names_of_the_snapshot(life: Life) -> None:
    """They are variables of it with sizes and types, and in their frame; no name that a restore binds."""
    life.run("shared = [1]")

    snapshot = life.checkpoint_inside(TRAIN, progress={"train": 3})

    (train,) = snapshot.frames
    assert (train.function, train.cell, train.line) == ("train", 1, 7)
    assert sorted(train.names) == sorted(snapshot.pseudo_names - {"ipyrescue.progress"})
    assert sorted(snapshot.names) == ["Net", "shared", "train"]
    assert {v.name: v.type for v in snapshot.variables if v.name in snapshot.pseudo_names} == {
        "train().lr": "float",
        "train().math": "module",
        "train().net": "list",
        "train().kind": "type",
        "train().step": "function",
        "ipyrescue.progress": "progress",
    }
    assert {s.name: s.reason for s in snapshot.skipped} == {
        "train().it": "generator",
        "train().password": "looks like a secret; save it with --allow password",
    }
    assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot


def test_a_full_restore_hands_them_out_with_their_objects(life: Life) -> None:
    """What they shared with variables they share still; nothing of them is bound, and an undo leaves them alone."""
    life.run("shared = [1]")
    life.checkpoint_inside(TRAIN, progress={"train": 3})
    after = reborn(life)

    restored = after.restore()

    (train,) = restored.frames
    assert (train.function, train.cell, train.line) == ("train", 1, 7)
    assert train.locals["net"] is after.names["shared"]
    assert train.locals["kind"] is after.names["Net"]
    assert train.locals["step"]() is after.names["shared"]
    assert isinstance(train.locals["math"], types.ModuleType)
    assert restored.progress == {"train": 3}
    assert restored.names == ("Net", "shared", "train")
    assert not [name for name in after.names if "." in name]
    assert restored.before is not None
    restored.before.come_back()
    assert train.locals["net"] == [1]


def test_a_part_leaves_them_alone(life: Life) -> None:
    """A group that holds locals beside the names that are wanted is not torn by leaving them."""
    life.run("import torch\nmodel = torch.nn.Linear(2, 2)\nopt = torch.optim.SGD(model.parameters(), 0.1)")
    life.checkpoint_inside("def train(m, o):\n    here()\ntrain(model, opt)", progress={"train": 3})
    after = reborn(life)

    with pytest.raises(RestoreError, match=r"shares objects with opt; .*Together: %restore_vars model opt  "):
        after.restore("model")
    restored = after.restore("model", "opt")

    assert restored.names == ("model", "opt")
    assert (restored.frames, restored.progress, restored.warnings) == ((), {}, ())
    assert after.names["opt"].param_groups[0]["params"][0] is after.names["model"].weight
    for other in ({"prefix": "old_"}, {"into": {}}, {"keep_existing": True}):
        assert after.restore(**other).frames == ()
    live = after.names["model"]
    assert "model" not in after.restore("model", "opt", force=True).before.changes
    assert after.names["model"] is not live, "nothing was separated, so nothing is loaded in place"
    with pytest.raises(RestoreError, match="no variable"):
        after.restore("train().m")


def test_a_local_that_does_not_load_costs_itself(life: Life) -> None:
    life.run("x = 1")
    life.checkpoint_inside("""
class Broken:
    def __reduce__(self): return int, ("nothing",)
def train():
    good, bad = [2], Broken()
    here()
train()""")

    restored = reborn(life).restore()

    assert restored.frames[0].locals == {"good": [2]}
    assert [s.name for s in restored.skipped] == ["train().bad"]
    assert restored.names == ("Broken", "train", "x")


def test_a_class_that_is_kept_stands_for_its_alias_too(life: Life) -> None:
    life.run("shared = [1]")
    life.checkpoint_inside(TRAIN)
    after = reborn(life)
    after.run("class Net: pass\nmine = Net")

    restored = after.restore(keep_classes=True)

    assert after.names["Net"] is after.names["mine"]
    assert restored.frames[0].locals["kind"] is after.names["mine"]


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({}, ["ipyrescue.progress", "train().api_key_path", "train().model", "train().step", "x"]),
        ({"exclude": ("mod*", "x")}, ["ipyrescue.progress", "train().api_key_path", "train().step"]),
        ({"only": True, "tagged": ("x",)}, ["ipyrescue.progress", "x"]),
        ({"only": True, "tagged": ("step",)}, ["ipyrescue.progress", "train().step"]),
        ({"only": True, "tagged": ("*",)}, ["ipyrescue.progress", "x"]),
    ],
)
def test_rules_go_by_the_locals_own_name(settings, saved) -> None:
    """But globs tag variables only, and what loops are at is always in it."""
    held = frame(model=[1], step=2, api_key_path="here")

    selection = chosen((held,), {"x": 1}, progress={"train": 1}, **settings)

    assert sorted(selection.values) == saved


def test_a_tagged_local_counts_as_present() -> None:
    """It is what was meant where no variable has its name, and loud if it cannot be saved."""
    missing = [s.name for s in chosen((), {}, tagged=("model",)).skipped]
    inside = chosen((frame(model=[1]),), {}, tagged=("model", "*"))
    both = chosen((frame(model=[1]),), {"model": 1}, tagged=("model", "*"))

    assert missing == ["model"]
    assert (inside.skipped, inside.tagged) == ((), ("train().model",))
    assert both.tagged == ("model",)


def test_a_tagged_local_that_refuses_is_loud(life: Life) -> None:
    """One that a glob would mean is not."""
    source = "def train():\n    it = iter(int, 1)\n    gen = (n for n in [1])\n    here()\ntrain()"

    assert life.checkpoint_inside(source, tagged=("*",)).lost == ()
    with pytest.raises(CheckpointError, match=r"train\(\)\.gen"):
        life.checkpoint_inside(source, tagged=("gen",))


def test_a_variable_cannot_pass_for_a_local(life: Life) -> None:
    """`globals()` takes any text for a name."""
    life.run("globals()['train().x'] = 1\nglobals()['ipyrescue.progress'] = 2\nglobals()['other().x'] = 3")

    snapshot = life.checkpoint_inside("def train(x):\n    here()\ntrain(5)")

    assert sorted(s.name for s in snapshot.skipped) == ["ipyrescue.progress", "train().x"]
    restored = reborn(life).restore()
    assert restored.frames[0].locals == {"x": 5}
    assert restored.names == ("other().x", "train")


def test_two_snapshots_are_compared_with_their_locals(life: Life) -> None:
    older = life.checkpoint_inside("def train(a, b):\n    here()\ntrain(1, 2)")
    newer = life.checkpoint_inside("train(1, 3)")

    difference = compare(older, newer)

    assert [change.after.name for change in difference.changed] == ["train().b"]
    assert "train().a" in difference.same


def test_a_manifest_with_locals_that_are_no_variables_is_damaged(life: Life) -> None:
    snapshot = life.checkpoint_inside("def train(x):\n    here()\ntrain(5)")
    (good,) = snapshot.frames

    for names in (("train().y",), ("train",), good.names * 2):
        bad = replace(snapshot, frames=(replace(good, names=names),))
        with pytest.raises(CorruptError, match="locals"):
            Snapshot.from_bytes(bad.to_bytes())


def test_the_own_name_is_the_last_part() -> None:
    names = ["train().step", "Trainer.fit()#2.step", "a.b", "step", "f()#0.x", "f().a b", "f(). x", "().x"]

    assert [local_name(name) for name in names] == ["step", "step", *[None] * 6]
