"""Restores as people need them, in a real kernel: some names, beside the live ones, taken back, looked at before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel

MakeKernel = Callable[..., Kernel]

MODEL = """
import torch
model = torch.nn.Linear(3, 3)
opt = torch.optim.AdamW(model.parameters())
def step():
    opt.zero_grad(); model(torch.ones(1, 3)).sum().backward(); opt.step()
step()
"""


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> Kernel:
    started = make_kernel()
    started.run("%load_ext ipyrescue")
    return started


def written(folder: Path) -> list[tuple[Path, int]]:
    """Every pack and manifest of the store, and when it was written; the life record beats on its own."""
    store = folder / ".ipyrescue"
    return sorted((p, p.stat().st_mtime_ns) for kind in ("packs", "snapshots", "tmp") for p in (store / kind).glob("*"))


def as_json(kernel: Kernel, line: str) -> Any:
    (data,) = kernel.run(line).data
    return json.loads(data["text/plain"])


def test_an_old_model_stands_beside_the_live_one(kernel: Kernel) -> None:
    """`as=old_` with a glob: the old optimizer drives the old model, and yours goes on untouched."""
    kernel.run(MODEL)
    kernel.run("%checkpoint_vars label=good every=1h")
    kernel.run("%checkpoint_vars --off")
    kernel.run("mine, weight = model, model.weight; step(); now = weight.detach().clone()")

    told = as_json(kernel, "%restore_vars model opt st* from=good as=old_ --json")

    assert told["names"] == ["old_model", "old_opt", "old_step"]
    assert told["armed"] is None
    kernel.run("old_step()")
    assert kernel.value("model is mine and model.weight is weight and bool(torch.equal(weight, now))")
    assert kernel.value("old_opt.param_groups[0]['params'][0] is old_model.weight")
    assert kernel.value("bool(torch.equal(old_model.weight, now))"), "the old session took the same step"


def test_python_restores_into_a_dict(kernel: Kernel) -> None:
    kernel.run("x = [1]\ny = x")
    kernel.run("%checkpoint_vars")
    kernel.run("x = 'mine'\nimport ipyrescue\nfound = {}\nrestored = ipyrescue.restore(into=found)")

    assert kernel.value("x") == "mine"
    assert kernel.value("found['x'] is found['y'] and restored.names == ('x', 'y') and not restored.full")


def test_undo_brings_back_the_very_same_objects(kernel: Kernel) -> None:
    """What was replaced is there again, what was not there is gone, random numbers go on as if nothing had been."""
    kernel.run("import random\nx, gone = [1], 'only in the snapshot'")
    kernel.run("%checkpoint_vars label=good")
    kernel.run("x = ['mine']; x_was = x; del gone\nrandom.seed(3); expected = random.Random(3).random()")

    told = kernel.run("%restore_vars from=good").text
    assert kernel.value("(x, gone)") == ([1], "only in the snapshot")
    undone = kernel.run("%restore_vars --undo").text

    assert "Replaced yours: x. To have them back: %restore_vars --undo" in told
    assert kernel.value("(x is x_was, 'gone' in globals())") == (True, False)
    assert kernel.value("random.random() == expected")
    assert "As before: " in undone
    assert "random streams" in undone
    assert "Gone, as they were not there: gone." in undone
    assert "nothing to undo" in kernel.try_run("%restore_vars --undo").stderr


def test_a_restore_that_fails_leaves_nothing_to_undo(kernel: Kernel) -> None:
    kernel.run("x = 1")
    kernel.run("%checkpoint_vars")
    assert "no variable y" in kernel.try_run("%restore_vars y").stderr

    assert "nothing to undo" in kernel.try_run("%restore_vars --undo").stderr


def test_a_restore_that_is_refused_leaves_the_one_before_to_undo(kernel: Kernel) -> None:
    """A typo costs nothing, nor does a restore that finds all there or goes elsewhere."""
    kernel.run("x = [1]")
    kernel.run("%checkpoint_vars")
    kernel.run("x = ['mine']; x_was = x; elsewhere = {}")
    kernel.run("%restore_vars")

    assert "no variable xx" in kernel.try_run("%restore_vars xx").stderr
    assert "no snapshot" in kernel.try_run("%restore_vars from=nowhere").stderr.lower()
    kernel.run("%restore_vars x --keep-existing")
    kernel.run("import ipyrescue; ipyrescue.restore(into=elsewhere)")
    kernel.run("%restore_vars --undo")

    assert kernel.value("x is x_was")


def test_what_undo_keeps_can_be_let_go(kernel: Kernel) -> None:
    """Only the last restore is kept, and its memory is free once the user says so."""
    kernel.run("import gc, weakref\nclass Big: pass\nx = Big()")
    kernel.run("%checkpoint_vars")
    kernel.run("x = Big(); held = weakref.ref(x)")
    kernel.run("%restore_vars x")
    assert kernel.value("held() is not None")

    told = as_json(kernel, "%restore_vars --forget-undo --json")

    assert told["names"] == ["x"]
    assert kernel.value("gc.collect() is not None and held() is None")
    assert "nothing to undo" in kernel.try_run("%restore_vars --undo").stderr


def test_a_name_stays_known_by_the_cell_that_made_it(kernel: Kernel) -> None:
    """The cell that restores a name did not make it."""
    kernel.run("x = 1", store_history=True)
    made = kernel.value("get_ipython()._ipyrescue.notebook.cells['x']")
    kernel.run("%checkpoint_vars")
    kernel.run("x = 2")
    kernel.run("%restore_vars")

    assert kernel.value("get_ipython()._ipyrescue.notebook.cells['x']") == made
    kernel.run("%restore_vars --undo")
    assert kernel.value("get_ipython()._ipyrescue.notebook.cells['x']") == made + 2


def test_force_brings_a_model_back_under_the_live_optimizer(kernel: Kernel) -> None:
    kernel.run(MODEL)
    kernel.run("%checkpoint_vars label=good")
    kernel.run("saved, live = model.weight.detach().clone(), model\nstep()\ntrained = model.weight.detach().clone()")
    assert "--force" in kernel.try_run("%restore_vars model from=good").stderr

    told = kernel.run("%restore_vars model from=good --force").text
    assert kernel.value("model is live and bool(torch.equal(model.weight, saved))")
    assert kernel.value("opt.param_groups[0]['params'][0] is model.weight")
    kernel.run("%restore_vars --undo")

    assert "load_state_dict" in told
    assert kernel.value("model is live and bool(torch.equal(model.weight, trained))")


def test_an_edited_class_is_shown_or_kept(kernel: Kernel) -> None:
    """The difference stands in lines of its own below the warning."""
    kernel.run("class Net:\n    def size(self):\n        return 1\nnet = Net()")
    kernel.run("%checkpoint_vars label=good")
    kernel.run("class Net:\n    def size(self):\n        return 2\nmine = Net")

    told = kernel.run("%restore_vars from=good").text.splitlines()
    assert "-        return 1" in told
    assert kernel.value("(net.size(), Net is mine)") == (1, False)
    kernel.run("%restore_vars --undo")
    kept = as_json(kernel, "%restore_vars from=good --keep-classes --json")

    assert kept["kept"] == ["Net"]
    assert not any("edited" in warning for warning in kept["warnings"])
    assert kernel.value("(net.size(), Net is mine, isinstance(net, mine))") == (2, True, True)


def test_a_dry_run_compares_with_the_namespace_and_leaves_no_trace(kernel: Kernel, tmp_path: Path) -> None:
    """Same, changed, new and gone, by the bytes; nothing is unpickled, written, drawn or bound."""
    kernel.run(MODEL + "import math, random\nclass Same:\n    x = 1\nsame, text, only_saved = Same(), 'a', [1]")
    kernel.run("big = torch.zeros(500_000)\nunpickled = []\ngen = (i for i in [])")
    kernel.run("class Told:\n    def __setstate__(self, state): unpickled.append(state)\ntold = Told(); told.x = 1")
    kernel.run("%checkpoint_vars label=good")
    kernel.run("text, only_here = 12, 1; del only_saved; big[7] = 1")
    trace = "(sorted((n, id(v)) for n, v in globals().items() if n[0] != '_'), hash(random.getstate()), len(unpickled))"
    before = kernel.value(trace)
    files = written(tmp_path)

    told = as_json(kernel, "%restore_vars from=good --dry-run --json")
    text = kernel.run("%restore_vars from=good --dry-run").text

    changes = {row["name"]: row["change"] for row in told["rows"]}
    assert kernel.value(trace) == before
    assert written(tmp_path) == files
    assert changes == {
        "Same": "same", "Told": "same", "math": "same", "model": "same", "opt": "same", "random": "same",
        "same": "same", "step": "same", "told": "same", "torch": "same", "unpickled": "same",
        "big": "changed", "text": "changed", "only_saved": "new", "only_here": "gone",
    }  # fmt: skip
    assert "Against your namespace: 11 same, 2 changed, 1 new, 1 gone." in text
    assert "int -> str" in text


def test_a_dry_run_of_some_names_looks_at_no_others(kernel: Kernel) -> None:
    kernel.run("a, b, c = [1], [2], [3]")
    kernel.run("%checkpoint_vars")
    kernel.run("class Loud:\n    def __reduce__(self): 1 / 0\nb, loud = [0], Loud()")

    told = as_json(kernel, "%restore_vars [ab] --dry-run --json")

    assert {row["name"]: row["change"] for row in told["rows"]} == {"a": "same", "b": "changed"}


def die(kernel: Kernel) -> None:
    kernel.begin("print('running', flush=True)\nimport time\ntime.sleep(600)")
    kernel.wait_for_output("running")
    kernel.kill()


def test_the_report_says_how_to_make_again_what_was_left_out(make_kernel: MakeKernel) -> None:
    """Per variable: restored, left out when saved with the code that makes it again, failed on load with the reason."""
    first = make_kernel()
    first.run("%load_ext ipyrescue")
    first.run("class Bad:\n    def __setstate__(self, state): raise ValueError('will not load')")
    first.run("x = [1, 2]\ngen = (n * 2\n       for n in x)\nbad = Bad(); bad.y = 1")
    first.run("%checkpoint_vars")
    die(first)

    second = make_kernel()
    second.run("%load_ext ipyrescue")
    text = second.run("report = %restore_vars\nreport").text
    told = second.value("{r.name: (r.fate, r.note) for r in report.rows}")

    assert told["x"] == ("restored", "")
    assert told["gen"] == ("left out when saved", "generator")
    assert told["bad"] == ("FAILED on load", "ValueError: will not load")
    assert "To make gen again, run what made it in cell [3]:\n    gen = (n * 2\n           for n in x)\n" in text
    source = second.value("next(s['source'] for s in report.as_json()['skipped'] if s['name'] == 'gen')")
    second.run(source)
    assert second.value("list(gen)") == [2, 4]


def test_a_snapshot_carries_the_cells_without_credentials(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """Also the running one, and after a restore those of the kernel before; a terminal shows the same."""
    first = make_kernel()
    first.run("%load_ext ipyrescue")
    first.run("password = 'hunter2'\nif password:\n    x = 1")
    first.run("hidden = 1", store_history=False)
    first.run("%checkpoint_vars x label=first")
    die(first)
    second = make_kernel()
    second.run("%load_ext ipyrescue")
    second.run("%restore_vars")
    second.run("%checkpoint_vars label=second")

    told = as_json(second, "%snapshots show second --code --json")
    shown = second.run("%snapshots show first --code").text
    in_a_terminal = subprocess.run(
        [sys.executable, "-m", "ipyrescue", "show", "first", "--code"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    assert [cell["source"].splitlines()[0] for cell in told["cells"]] == [
        "%load_ext ipyrescue",
        "password = '[redacted]'",
        "%checkpoint_vars x label=first",
        "%load_ext ipyrescue",
        "%restore_vars",
        "%checkpoint_vars label=second",
    ]
    for text in (shown, in_a_terminal):
        assert "# In [2]\npassword = '[redacted]'\nif password:\n    x = 1\n" in text
        assert "hunter2" not in text
    assert not any(b"hunter2" in path.read_bytes() for path in (tmp_path / ".ipyrescue").rglob("*.pack"))


@pytest.mark.parametrize("decorator", ["", "@dataclass\n"])
def test_an_edited_class_without_methods_is_shown_too(kernel: Kernel, decorator: str) -> None:
    """A class of fields tells no place in the code: the cells do."""
    kernel.run(f"from dataclasses import dataclass\n{decorator}class P:\n    x: int = 1\np = P()")
    kernel.run("%checkpoint_vars label=good")
    assert kernel.run("report = %restore_vars from=good").text == ""
    assert kernel.value("report.warnings") == ()

    kernel.run(f"{decorator}class P:\n    x: int = 2\n    y: int = 3")

    told = kernel.run("%restore_vars from=good").text.splitlines()
    assert "-    x: int = 1" in told
    assert "+    y: int = 3" in told


def test_credentials_in_code_and_errors_are_nowhere_in_the_store(kernel: Kernel, tmp_path: Path) -> None:
    """Not in the life record, not in the reason of an interrupted snapshot, not in the source of a class."""
    key = "sk-" + "a1B2" * 8
    kernel.run("%checkpoint_vars every=0.2s")
    kernel.run(f"class Client:\n    '''{key}'''\n    __doc__ = ''\nclient = Client()")
    kernel.try_run(f"raise ValueError('{key} was refused')")
    kernel.run("get_ipython()._ipyrescue.drain()", store_history=False)

    told = as_json(kernel, "%snapshots --json")["snapshots"]
    written = [path.read_bytes() for path in (tmp_path / ".ipyrescue").rglob("*.*") if path.is_file()]

    assert any(row["mark"] == "interrupted" for row in told)
    assert not any(key.encode() in data for data in written)
