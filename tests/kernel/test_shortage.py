"""Hints after memory ran out: who is named, who is not asked, and that nothing is kept alive by it."""

import gc
import sys
import weakref
from collections import defaultdict

import numpy as np
import pytest
import torch

from ipyrescue.kernel import shortage
from ipyrescue.kernel.shortage import Device, Facts, hints, kind_of, report

MB = 1_000_000


@pytest.fixture(autouse=True)
def _all_the_time_that_it_takes(monkeypatch):
    monkeypatch.setattr(shortage, "_WALKED_SECONDS", 60.0)


def _raised(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 - it is what the test wants
        return error
    raise AssertionError("it did not raise")


def _tensor(size_bytes):
    return torch.zeros(size_bytes, dtype=torch.uint8)


def _holders(holders):
    return [(holder.name, holder.place, holder.size_bytes) for holder in holders]


class _Hostile:
    """Whoever asks it anything runs code of the user."""

    def __getattribute__(self, name):
        raise AssertionError(f"it was asked for {name}")

    __eq__ = __hash__ = __len__ = __iter__ = __str__ = __repr__ = __bool__ = __getattribute__


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "cuda"),
        (type("Theirs", (torch.cuda.OutOfMemoryError,), {"__str__": lambda self: 1 / 0})(), "cuda"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), "cuda"),
        (MemoryError(), "cpu"),
        (_raised(np.ones, 1 << 50), "cpu"),
        (_raised(torch.ones, 1 << 50), "cpu"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (RuntimeError(_Hostile()), None),
        (RuntimeError(), None),
        (ValueError("CUDA out of memory"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_which_memory_ran_out(error, kind):
    assert kind_of(error) == kind
    assert (hints(error, {}) is not None) == (kind is not None)


def test_an_error_that_came_of_it_is_one():
    def wraps():
        try:
            raise MemoryError
        except MemoryError as error:
            raise RuntimeError("the trainer failed") from error

    assert hints(_raised(wraps), {}).startswith("Memory ran out")
    assert hints(None, {}) is None


def test_names_are_told_by_the_memory_that_they_keep():
    """What two names share counts for the first; gradients and moments count for who owns them."""
    model = torch.nn.Linear(1000, 500)
    opt = object.__new__(torch.optim.SGD)  # a made one imports torch's compiler, for ten seconds
    moments = {
        parameter: {"step": torch.zeros(2), "exp_avg": torch.ones_like(parameter)} for parameter in model.parameters()
    }
    vars(opt).update(param_groups=[{"params": list(model.parameters())}], state=defaultdict(dict, moments))
    model(torch.ones(1000)).sum().backward()
    kept = _tensor(7 * MB)
    namespace = {"_i": "x", "_": kept, "Out": {3: kept, 4: _tensor(MB)}, "kept": kept, "view": kept[5:], "n": 3}
    namespace |= {"model": model, "opt": opt, "array": np.zeros(3 * MB, np.uint8)[::2], "odd": _Hostile(), 5: kept}

    found = report("cpu", MemoryError(), namespace, Facts())

    weights = 1001 * 500 * 4
    assert [(name, size) for name, _, size in _holders(found.variables)] == [
        ("kept", 7 * MB),
        ("model", 2 * weights),
        ("array", 3 * MB),
        ("opt", weights + 2 * 8),
        ("Out[4]", MB),
    ]


def test_the_traceback_is_told_by_its_frames_and_only_for_what_no_variable_keeps():
    def train(model):
        hidden = _tensor(5 * MB)
        return block(hidden, model)

    def block(hidden, model):
        out = [_tensor(2 * MB), _tensor(MB)]
        raise MemoryError(out and None)

    model = _tensor(9 * MB)

    found = report("cpu", _raised(train, model), {"model": model}, Facts())

    assert _holders(found.frames) == [("hidden", "train()", 5 * MB), ("out", "block()", 3 * MB)]
    assert "traceback  hidden 5.0 MB in train(), out 3.0 MB in block()" in str(found)
    assert "The traceback keeps 8.0 MB alive. To let go of it: run a cell with 1/0 in it" in str(found)


def test_a_cells_own_frame_is_the_namespace():
    namespace = {"_tensor": _tensor}
    error = _raised(exec, "x = _tensor(1_000_000)\nraise MemoryError", namespace)

    found = report("cpu", error, namespace, Facts())

    assert (_holders(found.variables), _holders(found.frames)) == ([("x", "", MB)], [])


def test_a_list_of_losses_with_graphs_is_named():
    weight = torch.ones(10, requires_grad=True)
    losses = [(weight * number).sum() for number in range(900)]

    said = str(report("cpu", MemoryError(), {"losses": losses}, Facts()))

    assert "losses holds 900 tensors with autograd graphs" in said


def test_the_counters_of_the_devices_are_told_and_all_is_ascii():
    facts = Facts((Device("cuda:0", 900 * MB, 1100 * MB, 1000 * MB, 1200 * MB),))
    cuda = shortage.Shortage("cuda", facts, (shortage.Holder("größe", "", MB, "cuda:0"),))

    said = str(cuda)

    assert "cuda:0     900 MB in tensors (at most 1.0 GB so far), 1.1 GB held by the allocator of 1.2 GB" in said
    assert "gr\\xf6\\xdfe 1.0 MB (cuda:0)" in said
    assert "torch.cuda.empty_cache()" in said
    assert all(len(line) <= 130 for line in said.splitlines())


def test_tensors_of_another_device_or_subclass_are_not_asked():
    class Theirs(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *arguments, **options):
            raise AssertionError("it was asked")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(MB))

        @property
        def __dict__(self):
            raise AssertionError("it was asked")

    namespace = {"theirs": torch.zeros(5).as_subclass(Theirs), "meta": torch.empty(5, device="meta")}
    namespace |= {"sparse": torch.eye(3).to_sparse(), "generator": (i for i in ()), "net": None}
    net = object.__new__(Net)
    torch.nn.Module.__dict__["__dict__"].__get__(net).update(_parameters={"w": torch.nn.Parameter(torch.zeros(MB))})
    namespace["net"] = net

    assert _holders(report("cpu", MemoryError(), namespace, Facts()).variables) == [("net", "", 4 * MB)]
    assert report("cuda", MemoryError(), namespace, Facts()).variables == ()


def test_a_huge_namespace_is_left_in_time():
    """What was found by then is told, and that there is more."""
    deep = [[[], {}] for _ in range(30_000)]
    deep.append(deep)
    namespace = {"x": _tensor(MB), "deep": deep, "z": _tensor(2 * MB)}

    found = report("cpu", MemoryError(), namespace, Facts())

    assert (_holders(found.variables), found.complete) == ([("x", "", MB)], False)
    assert "There is more than could be looked at." in str(found)


def test_nothing_is_kept_alive_by_hints():
    kept = _tensor(MB)
    gone = weakref.ref(kept)
    error = _raised(_fails_with, kept)
    said = hints(error, {"kept": kept})
    assert "kept 1.0 MB" in said

    references = sys.getrefcount(kept)
    hints(error, {"kept": kept})
    assert sys.getrefcount(kept) == references
    del error, kept
    gc.collect()
    assert gone() is None


def _fails_with(tensor):
    raise MemoryError(tensor.shape)


def test_hints_that_fail_are_no_hints(monkeypatch):
    monkeypatch.setattr(shortage, "facts_now", lambda kind: 1 / 0)

    assert hints(MemoryError(), {}) is None
