"""Restores that take apart what belonged together: names by --force, instances to the live class by --keep-classes."""

from __future__ import annotations

import pytest
import torch
from namespaces import Life, reborn

from ipyrescue.errors import RestoreError

MODEL = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.body = nn.Linear(3, width)
    def forward(self, x):
        return self.body(x)
model = Net()
opt = torch.optim.AdamW(model.parameters(), lr=0.01)
def step():
    opt.zero_grad(); model(torch.ones(1, 3)).sum().backward(); opt.step()
step()
"""
NET = "class Net:\n    def size(self):\n        return {}\n"


def weights(life: Life) -> list[torch.Tensor]:
    return [p.detach().clone() for p in life.names["model"].parameters()]


def test_force_loads_a_model_into_the_live_one(life: Life) -> None:
    """The optimizer of the live session keeps its hold on it, and so does everything else."""
    life.run(MODEL)
    life.checkpoint()
    saved = weights(life)
    model, opt = life.names["model"], life.names["opt"]
    life.run("step()")
    trained, steps = weights(life), [s["step"].item() for s in opt.state.values()]

    restored = life.restore("model", force=True)

    assert life.names["model"] is model
    assert all(map(torch.equal, weights(life), saved))
    assert opt.param_groups[0]["params"][0] is model.body.weight
    assert [s["step"].item() for s in opt.state.values()] == steps
    assert restored.names == ("model",)
    assert any("load_state_dict" in warning for warning in restored.warnings)
    restored.before.come_back()
    assert all(map(torch.equal, weights(life), trained))


def test_force_loads_an_optimizer_into_the_live_one(life: Life) -> None:
    life.run(MODEL)
    life.checkpoint()
    life.run("step(); step()")
    opt, model = life.names["opt"], life.names["model"]

    restored = life.restore("opt", force=True)

    assert life.names["opt"] is opt
    assert [s["step"].item() for s in opt.state.values()] == [1, 1]
    assert opt.param_groups[0]["params"][0] is model.body.weight
    restored.before.come_back()
    assert [s["step"].item() for s in opt.state.values()] == [3, 3]


@pytest.mark.parametrize("live", ["", "model = Net(4)", "model = torch.nn.Linear(3, 3)", "model = 'mine'"])
def test_force_binds_what_does_not_fit_separately_and_says_so(life: Life, live: str) -> None:
    life.run(MODEL)
    life.checkpoint()
    after = reborn(life)
    after.run(MODEL + live if live else "")
    mine = after.names.get("model")

    restored = after.restore("model", force=True)

    assert after.names["model"] is not mine
    assert all(map(torch.equal, weights(after), weights(life)))
    assert "model shared objects with opt, which was not restored: they are separate now." in restored.warnings


def test_force_binds_plain_objects_separately(life: Life) -> None:
    life.run("a = [1]\nb = {'a': a}")
    life.checkpoint()
    with pytest.raises(RestoreError, match="Nevertheless: --force"):
        life.restore("a")

    restored = life.restore("a", force=True)

    assert life.names["a"] == [1]
    assert life.names["b"]["a"] is not life.names["a"]
    assert "a shared objects with b, which was not restored: they are separate now." in restored.warnings


def test_a_failure_after_loading_in_place_leaves_no_trace(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.run(MODEL)
    life.checkpoint()
    life.run("step()")
    trained = weights(life)
    monkeypatch.setattr("ipyrescue.restoring.separated", lambda *_: 1 / 0)

    with pytest.raises(RestoreError, match="as it was"):
        life.restore("model", force=True)

    assert all(map(torch.equal, weights(life), trained))


def test_an_edited_class_is_shown_as_a_short_difference(life: Life) -> None:
    life.run(NET.format(1) + "net = Net()")
    life.checkpoint()
    life.run(NET.format(2) + "".join(f"    def more_{i}(self): pass\n" for i in range(40)))

    (warning,) = life.restore().warnings

    lines = warning.splitlines()
    assert lines[0].startswith("class Net was edited since the snapshot, and the snapshot's is bound now.")
    assert "--keep-classes" in lines[0]
    assert "-        return 1" in lines
    assert "+        return 2" in lines
    assert lines[-1].endswith("more lines")
    assert len(lines) == 14
    assert life.names["net"].size() == 1


def test_kept_classes_take_the_instances_of_old_ones(life: Life) -> None:
    """Subclasses that come back are of the live one too, and nothing is left to warn of."""
    life.run(NET.format(1) + "class Sub(Net): pass\nnet, sub = Net(), Sub()\nnet.weight = 7")
    life.checkpoint()
    after = reborn(life)
    live = after.run(NET.format(2))["Net"]

    restored = after.restore(keep_classes=True)

    assert after.names["Net"] is live
    assert isinstance(after.names["net"], live)
    assert isinstance(after.names["sub"], live)
    assert (after.names["net"].size(), after.names["sub"].size(), after.names["net"].weight) == (2, 2, 7)
    assert (restored.kept, restored.warnings) == (("Net",), ())
    assert "Net" not in restored.names


def test_a_class_that_moved_into_a_module_can_be_kept(life: Life) -> None:
    life.run("class Fraction:\n    pass\nhalf = Fraction()")
    life.checkpoint()
    after = reborn(life)
    after.run("from argparse import Namespace as Fraction")

    after.restore(keep_classes=True)

    assert isinstance(after.names["half"], after.names["Fraction"])


def test_a_class_that_shares_objects_with_variables_cannot_be_kept_and_is_named(life: Life) -> None:
    life.run(
        "registry = []\nclass Net:\n    made = registry\n    def size(self):\n        return registry\nnet = Net()"
    )
    snapshot = life.checkpoint()
    assert any({"Net", "registry"} <= set(g.names) for g in snapshot.groups)
    life.run(NET.format(2))

    restored = life.restore(keep_classes=True)

    assert "Net was saved together with registry" in "".join(restored.warnings)
    assert isinstance(life.names["net"], life.names["Net"])


def test_an_instance_alone_is_of_another_class_than_the_live_one_which_is_told(life: Life) -> None:
    life.run(NET.format(1) + "net = Net()")
    life.checkpoint()
    after = reborn(life)
    after.run(NET.format(1))

    told = after.restore("net").warnings
    assert not isinstance(after.names["net"], after.names["Net"])
    assert [warning.partition(":")[0] for warning in told] == ["net"]
    assert after.restore("net", keep_classes=True).warnings == ()
    assert isinstance(after.names["net"], after.names["Net"])


def test_a_state_that_the_live_class_refuses_costs_its_group(life: Life) -> None:
    life.run("class P:\n    def size(self): pass\np = P()\np.x = 1\nq = 2")
    life.checkpoint()
    after = reborn(life)
    after.run("class P:\n    __slots__ = ()\n    def size(self): pass\n")

    restored = after.restore(keep_classes=True)

    assert [skipped.name for skipped in restored.skipped] == ["p"]
    assert after.names["q"] == 2


def test_what_is_loaded_in_place_stays_of_the_live_class(life: Life) -> None:
    life.run(
        "import torch\nclass Net(torch.nn.Linear):\n    def __init__(self): super().__init__(2, 2)\n"
        "net = Net(); opt = torch.optim.SGD(net.parameters())\n"
    )
    life.checkpoint()
    before = life.names["net"]

    restored = life.restore("net", force=True)

    assert life.names["net"] is before
    assert not [text for text in restored.warnings if "another class" in text]


def test_a_tensor_without_memory_is_on_no_device_to_be_brought_from(life: Life) -> None:
    """device=cpu moves what is somewhere."""
    life.run("import torch\nlayer = torch.nn.Linear(2, 2, device='meta')\nx = torch.empty(3, device='meta')[1:]")
    life.checkpoint()
    after = reborn(life)

    assert after.restore(device="cpu").warnings == ()
    assert (after.names["layer"].weight.device.type, after.names["x"].device.type) == ("meta", "meta")
    assert after.names["x"].shape == (2,)
