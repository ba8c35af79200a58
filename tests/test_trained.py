"""What trains is in a snapshot if its memory is, in whatever way a variable holds it; otherwise a warning says so."""

from __future__ import annotations

import functools
import io
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from ipyrescue import checkpointing
from ipyrescue.capture.staging import LiveArea
from ipyrescue.errors import RescueError
from ipyrescue.manifest import Settings
from ipyrescue.selection import Occasion, Origin
from ipyrescue.stack import Running
from ipyrescue.trained import Trained, unsaved_in

if TYPE_CHECKING:
    from namespaces import Life

NOTHING = Settings()


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = [{"of": held}]


class SavesItself:
    """As skorch's nets: the tensors are in bytes that it made itself."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __getstate__(self) -> dict[str, bytes]:
        file = io.BytesIO()
        torch.save(self.model, file)
        return {"bytes": file.getvalue()}


def closure(model: nn.Module) -> Callable[[], Any]:
    return lambda: model(torch.ones(1, 3))


def warnings(
    life: Life, names: dict[str, Any], optimizer: object, settings: Settings = NOTHING, frames: tuple[Running, ...] = ()
) -> tuple[str, ...]:
    life.names.update(names)
    occasion = Occasion(trained=(Trained(optimizer),), frames=frames)
    origin = Origin(life.notebook, life.incarnation, "test-host")
    with life.as_main():
        draft = checkpointing.capture(
            life.names, life.store, LiveArea(), origin=origin, occasion=occasion, settings=settings
        )
    assert [s.reason for s in draft.snapshot.skipped] in ([], ["excluded by -x"])
    return draft.snapshot.warnings


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "holding",
    [
        lambda model: {"model": model},
        lambda model: {"opt": sgd(model)},
        lambda model: {"trainer": Holder(model)},
        lambda model: {"weights": [parameter.data for parameter in model.parameters()]},
        lambda model: {"array": [parameter.detach().numpy() for parameter in model.parameters()]},
        lambda model: {"predict": functools.partial(closure, model)},
        lambda model: {"predict": closure(model)},
        lambda model: {"net": Holder(SavesItself(model))},
        lambda model: {"scheduler": torch.optim.lr_scheduler.StepLR(sgd(model), 1)},
    ],
)
def test_what_a_variable_holds_raises_no_alarm(life: Life, holding: Callable[[nn.Module], dict[str, Any]]) -> None:
    model = nn.Linear(3, 2)
    unsaved = unsaved_in(warnings(life, holding(model), sgd(model)))
    assert unsaved is None


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_model_and_a_local_raise_no_alarm(life: Life) -> None:
    local = nn.Linear(3, 2)
    frame = Running("train", None, 1, {"local": local})
    assert warnings(life, {}, sgd(local), frames=(frame,)) == ()
    scripted = torch.jit.script(nn.Linear(3, 2))
    assert unsaved_in(warnings(life, {"scripted": scripted}, sgd(scripted))) is None


def test_what_only_a_module_or_a_traceback_holds_is_not_saved(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(3, 2)
    module = types.ModuleType("their_training")
    module.model = model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_training", module)
    told = warnings(life, {"their_training": module, "copy": nn.Linear(3, 2)}, sgd(model))
    assert [str(w).partition(" is in ")[0] for w in told] == ["What trains here (SGD, 2 tensors)"]

    def train() -> None:
        weights = model
        raise RescueError(str(weights))

    with pytest.raises(RescueError) as raised:
        train()
    assert unsaved_in(warnings(life, {"error": raised.value}, sgd(model))) is not None


def test_what_is_there_in_part_is_told(life: Life) -> None:
    backbone, head = nn.Linear(3, 2), nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()])
    (told,) = warnings(life, {"head": head}, optimizer)
    assert told.startswith("What trains here (Adam, 2 of 3 tensors) is in no variable that is saved, so it is NOT")


def test_what_was_left_out_on_purpose_raises_no_alarm(life: Life) -> None:
    model = nn.Linear(3, 2)
    assert warnings(life, {"model": model, "step": 1}, sgd(model), Settings(exclude=("model",))) == ()
    assert warnings(life, {}, sgd(model), Settings(only=True, tagged=("step",))) == ()


def test_what_has_no_memory_of_its_own_is_not_asked_about(life: Life) -> None:
    """Lazy, frozen and sparse parameters, and what is no optimizer of torch's or has odd groups."""
    lazy, frozen = nn.LazyLinear(2), nn.Linear(3, 2).requires_grad_(requires_grad=False)
    sparse = nn.Parameter(torch.eye(3).to_sparse())
    empty = nn.Parameter(torch.empty(0))
    optimizer = torch.optim.SGD([*lazy.parameters(), *frozen.parameters(), sparse, empty], lr=0.1)
    assert warnings(life, {}, optimizer) == ()
    optimizer.param_groups[0]["params"] = 5
    assert warnings(life, {}, optimizer) == ()
    assert warnings(life, {}, object()) == ()
