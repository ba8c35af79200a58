"""A loop that goes on trains what came back, or does not train."""

import copy
import gc
import sys
from textwrap import dedent, indent
from types import SimpleNamespace

import pytest
import torch
from programs_of_training import run

import ipyrescue
from ipyrescue.errors import RescueError
from ipyrescue.stack import Running
from ipyrescue.training import progress
from ipyrescue.training.returned import Returned

STATE = {"iterable": "range", "length": 9, "steps": 6, "source": {}}
HOOKS = sys.modules["torch.optim.optimizer"]._global_optimizer_pre_hooks
TRAIN = """
    for i in ipyrescue.loop(range(9), name="train"):
        {first}
        opt.zero_grad()
        model(torch.ones(1, 4)).sum().backward()
        opt.step()
        done.append(i)
    """
MAKE = "model = torch.nn.Linear(4, 2); opt = torch.optim.SGD(model.parameters(), lr=0.1)"


class Trainer:
    """Holds what it trains, as classes of users do."""

    def __init__(self, model):
        self.parts = {"model": model}


def trained():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    return {"model": model, "opt": torch.optim.AdamW(model.parameters())}


def resumed(namespace, frames=(), passes=("train",)):
    """As after a restore that has bound *namespace*, and hands out *frames*."""
    snapshot = SimpleNamespace(id="3f9c2d10aaaa")
    restored = SimpleNamespace(names=tuple(namespace), frames=tuple(frames), snapshot=snapshot)
    states = {"passes": [("loop", name, dict(STATE)) for name in passes]}
    progress.resume(states, Returned(restored, namespace))
    return {**namespace, "ipyrescue": ipyrescue, "torch": torch, "done": [], "copy": copy}


def of_function(**values):
    return Running("train", 1, 3, values)


def train(first="pass"):
    return dedent(TRAIN).format(first=first)


def indented(text):
    return "def train():" + text.replace("\n", "\n    ") + "\ntrain()\n"


def refused(source, namespace):
    with pytest.raises(RescueError, match="made anew before it") as caught:
        run(source, namespace)
    assert namespace["done"] == []
    gc.collect()
    return str(caught.value)


def test_what_came_back_is_trained_and_one_line_says_from_where(capsys):
    namespace = run(train(), resumed(trained()))

    assert namespace["done"] == [6, 7, 8]
    said = "loop 'train' goes on after 6 of 9, from snapshot 3f9c2d10 (its goes_on is True, for sums over it)."
    assert capsys.readouterr().err == f"ipyrescue: {said}\n"
    assert not HOOKS


def test_a_model_that_the_cell_made_anew_is_refused_until_the_cell_is_another():
    namespace = resumed(trained())

    said = refused(f"{MAKE}\n{train()}", namespace)

    assert said.startswith("The loop 'train' goes on after 6 of 9, from snapshot 3f9c2d10, but what its SGD trains")
    assert "`if not steps.goes_on:`" in said
    assert "name='train again')" in said
    refused(f"{MAKE}\n{train()}", namespace)
    with pytest.warns(UserWarning, match="starts at its beginning"):
        assert run(f"{MAKE}\n{train()}".replace('"train"', '"train again"'), namespace)["done"] == list(range(9))


def test_a_model_that_a_function_made_anew_is_refused_unless_its_own_is_taken():
    kept = trained()
    namespace = resumed({"n": 1}, [of_function(**kept)])

    refused(indented(f"\n{MAKE}\n" + train()), namespace)

    namespace["frames"] = [of_function(**kept)]
    source = "\nmodel, opt = frames[0].locals['model'], frames[0].locals['opt']\n" + train()
    assert run(indented(source), namespace)["done"] == [6, 7, 8]


OF_WHAT_CAME_BACK = {
    "another optimizer": "opt = torch.optim.SGD(model.parameters(), lr=0.1)",
    "a copy": "model = copy.deepcopy(model); opt = torch.optim.SGD(model.parameters(), lr=0.1)",
    "its values, in half precision": """
values = model.state_dict(); model = type(model)(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).bfloat16()
model.load_state_dict(values); model = torch.nn.Sequential(model); opt = torch.optim.SGD(model.parameters(), lr=0.1)
torch.set_default_dtype(torch.bfloat16)
""",
    "moved": "model = model.double().float(); opt = torch.optim.SGD(model.parameters(), lr=0.1)",
    "with a new head": """
model = torch.nn.Sequential(model, torch.nn.Linear(2, 2)); opt = torch.optim.SGD(model.parameters(), lr=0.1)
""",
}


@pytest.mark.parametrize("before", OF_WHAT_CAME_BACK.values(), ids=OF_WHAT_CAME_BACK)
def test_what_was_made_of_what_came_back_is_trained(before):
    namespace = resumed(trained())
    try:
        assert run(f"{before.strip()}\n{train()}", namespace)["done"] == [6, 7, 8]
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_model_that_each_iteration_makes_is_trained():
    assert run(train(MAKE), resumed(trained()))["done"] == [6, 7, 8]


def test_a_model_made_between_two_loops_that_go_on_is_refused():
    source = f"""
for fold in ipyrescue.loop(range(9), name="folds"):
    {MAKE}
{indent(train(), "    ")}
"""
    refused(source, resumed(trained(), passes=("folds", "train")))


def test_what_an_object_of_the_user_holds_came_back_too():
    kept = Trainer(trained()["model"])
    namespace = resumed({"trainer": kept})
    source = "model = trainer.parts['model']; opt = torch.optim.SGD(model.parameters(), lr=0.1)\n" + train()

    assert run(source, namespace)["done"] == [6, 7, 8]


def test_where_no_parameters_came_back_a_model_from_a_file_may_be_right():
    with pytest.warns(UserWarning, match="made anew before it.*If they come from a file of yours"):
        assert run(f"{MAKE}\n{train()}", resumed({"n": 1}))["done"] == [6, 7, 8]


def test_nothing_but_locals_of_functions_is_refused_until_somebody_takes_them():
    """Without torch too: what the function had counted is in no variable of it."""
    source = "total = sum(ipyrescue.loop(range(9), name='train'))"
    namespace = resumed({"math": __import__("math"), "train": train}, [of_function(total=15)])

    with pytest.raises(RescueError, match=r"no variable came back from snapshot 3f9c2d10.*ipyrescue\.frames\(\)"):
        run(source, namespace)
    progress.frames_are_taken()

    assert run(source, namespace)["total"] == 6 + 7 + 8


def test_a_step_after_the_loop_is_nobodys_business():
    namespace = resumed(trained())
    source = f"{MAKE}\nrest = list(ipyrescue.loop(range(9), name='train'))\nopt.step()"

    assert run(source, namespace)["rest"] == [6, 7, 8]
    assert not HOOKS


def test_what_a_trainer_trains_is_its_own_business():
    """The bridges load what came back into models that are made anew."""
    namespace = resumed(trained())
    fitting = progress.Pass("lightning")
    fitting.kind = progress.TRAINER
    progress.run(fitting)

    assert run(f"{MAKE}\n{train()}", namespace)["done"] == [6, 7, 8]
    progress.finish(fitting)


def test_objects_that_do_not_say_what_they_hold_cost_nothing():
    class Silent(torch.nn.Module):
        def __init__(self):
            pass

        def parameters(self):
            raise OSError

    class Proxy:
        @property
        def __class__(self):
            raise OSError

        def __getattribute__(self, name):
            raise OSError

    namespace = resumed({**trained(), "silent": Silent(), "proxy": Proxy(), "many": [object()] * 5000})

    assert run(train(), namespace)["done"] == [6, 7, 8]
