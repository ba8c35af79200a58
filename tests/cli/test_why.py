"""`ipyrescue why`: how kernels died, what they left, and what would help."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest
from kernels import kernels
from typer.testing import CliRunner

from ipyrescue.cli.app import app
from ipyrescue.cli.exits import Exit
from ipyrescue.manifest import Variable
from ipyrescue.store import layout
from ipyrescue.store.lives import Cause, Memory
from tests.incarnations.samples import a_life, bury, here, trace

FULL = Memory(
    31_700_000_000,
    31_900_000_000,
    limit_bytes=32_000_000_000,
    cuda_allocated_bytes=71_000_000_000,
    cuda_reserved_bytes=75_000_000_000,
    warning="Cell [9] took more memory in each of its last 3 runs, 4.2 GB in all.",
)
VARIABLES = tuple(
    Variable(name, kind, size, 3, None)
    for name, kind, size in [
        ("x", "int", 28),
        ("opt", "AdamW", 60_000_000),
        ("model", "Net", 811_000_000),
        ("losses", "list", 80_000),
        ("df", "DataFrame", 120_000_000),
        ("tokens", "torch.Tensor", 300_000_000),
    ]
)


def ago(seconds):
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def died(store, tmp_path):
    """Put the death of a kernel on record; its notebook's file is there."""

    def put(digit, seconds_ago=60, **fields):
        known = {
            "incarnation": digit * 16,
            "notebook": "train.ipynb",
            "started": ago(20_000 - int(digit, 16)),
            "cell_started": ago(seconds_ago + 11_520),
        }
        life = a_life(**here(**(known | fields)))
        if life.kind == "notebook":
            (tmp_path / life.notebook).parent.mkdir(exist_ok=True)
            (tmp_path / life.notebook).write_text('{"cells": []}')
        return bury(store.root, life, at=time.time() - seconds_ago)

    return put


def why(*arguments, env=None):
    return CliRunner().invoke(app, ["why", *map(str, arguments)], env=env, catch_exceptions=False)


def documents(*arguments):
    result = why(*arguments, "--json")
    assert result.exit_code == Exit.OK, result.stderr
    return json.loads(result.stdout)["deaths"]


def told(*arguments):
    """The output with its line breaks undone."""
    result = why(*arguments)
    assert result.exit_code == Exit.OK, result.stderr
    return re.sub(r"\s+", " ", result.stdout)


# --- one death -------------------------------------------------------------------------------------------------


def test_a_death_is_told_for_a_person_at_night(died, make):
    died("b", exit_code=-9, died_at=ago(60), memory=FULL)
    snapshot = make(incarnation="b" * 16, variables=VARIABLES, created=ago(171))

    result = why("train.ipynb")

    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (Exit.OK, "")
    assert all(len(line) <= 80 for line in lines)
    assert lines[0] == "train.ipynb: the kernel was killed (most likely out of memory, 31.7 of 32 GB)"
    assert re.fullmatch(r"when      (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d, 1 min ago", lines[1])
    assert lines[2:14] == [
        "cell      [9], for 3 h 12 min: for epoch in range(100):",
        "certain   no: the facts suggest it, nothing proves it",
        "memory    31.7 of 32 GB when last looked at, at most 32 GB in this cell",
        "CUDA      71 GB in tensors, 75 GB held by the allocator",
        f"snapshot  {snapshot.id[:8]}, 1 min 51 s before it died: 6 variables, 5.0 kB",
        "          model   Net           811 MB",
        "          tokens  torch.Tensor  300 MB",
        "          df      DataFrame     120 MB",
        "          opt     AdamW          60 MB",
        "          losses  list           80 kB",
        "go back   %restore_vars",
        "look      %restore_vars --dry-run",
    ]
    help_ = re.sub(r"\s+", " ", "\n".join(lines[14:]))
    assert help_.startswith(
        "help - The largest variables of the snapshot: model (811 MB), tokens (300 MB), df (120 MB)."
    )
    assert "- Cell [9] took more memory in each of its last 3 runs, 4.2 GB in all." in help_
    assert "- Load less at a time: smaller batches" in help_


def test_a_traces_place_is_told(store, died):
    stack = 'Current thread 0x1 (most recent call first):\n  File "a/functional.py", line 123 in conv2d\n'
    life = died("b", error="RuntimeError: shape")
    trace(store.root, life, "fault", f"Fatal Python error: Segmentation fault\n\n{stack}", at=time.time())

    text = told("train.ipynb")

    assert "the kernel crashed (segmentation fault in conv2d (functional.py:123))" in text
    assert "stood in conv2d (functional.py:123) raised RuntimeError: shape" in text
    assert "certain" not in text


def test_an_unknown_cause_is_called_unknown(died):
    died("b", cell_running=False)

    text = told("train.ipynb")

    assert "the kernel died (cause unknown: no trace left, as after kill -9)" in text
    assert "cell none was running; the last one was [9]: for epoch in range(100):" in text
    assert "snapshot none that can be read is left of it" in text
    assert "help - Have something to go back to the next time: %checkpoint_vars every=5m" in text
    assert "restore_vars" not in text


def test_what_was_recorded_is_better_than_what_can_be_found_now(died):
    died("b", cause=Cause("killed", "was killed", "SIGKILL from outside"))

    assert documents()[0]["cause"] == {
        "kind": "killed", "verb": "was killed", "text": "SIGKILL from outside", "certain": True, "place": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"restored": "e" * 16}, "since restored, from snapshot eeeeeeee"),
        ({"dismissed": True}, "since dismissed: it is not offered any more"),
    ],
)
def test_a_death_that_was_answered_is_told_and_said_to_be(died, make, fields, said):
    died("b", **fields)
    snapshot = make(incarnation="b" * 16)

    text = told("train.ipynb")

    assert said in text
    assert f"go back %restore_vars from={snapshot.id[:8]} " in text


def test_only_the_death_that_is_offered_next_needs_no_id(died, make):
    """Of the older one a plain restore would bring back nothing."""
    died("a")
    old = make(incarnation="a" * 16, created=ago(300))
    died("b")
    new = make(incarnation="b" * 16, created=ago(200))

    assert [(d["restore"], d["snapshot"]["id"]) for d in documents()] == [
        ("%restore_vars", new.id),
        (f"%restore_vars from={old.id[:8]}", old.id),
    ]


def test_a_death_without_a_snapshot_leads_to_the_one_before_it(died, make):
    died("b")
    before = make(incarnation="a" * 16, created=ago(660))

    text = told("train.ipynb")

    assert f"snapshot {before.id[:8]}, of a kernel before it, 10 min before it died" in text
    assert "go back %restore_vars look" in text


def test_a_torn_snapshot_is_said_to_be(died, make):
    died("b")
    torn = make(incarnation="b" * 16, cut="interrupted")

    text = told("train.ipynb")

    assert "cut in the middle of a step: it may be torn" in text
    assert f"go back %restore_vars from={torn.id[:8]}" in text


def test_a_restore_that_killed_the_kernel_is_not_proposed_again(died, make):
    snapshot = make(incarnation="a" * 16)
    died("a")
    died("b", restoring=snapshot.id)

    text = told("train.ipynb", "-n", 1)

    assert f"during a restore of snapshot {snapshot.id[:8]}" in text
    assert f"note The kernel died in a restore of {snapshot.id[:8]}. Single names take less memory:" in text
    assert "snapshot none is proposed" in text


def test_a_console_is_told_by_the_name_that_ls_prints(died, make):
    died("b", kind="console", notebook="console:ipython:.")
    snapshot = make(incarnation="b" * 16, notebook="console:ipython:.")

    text = told("console:ipython:.")

    assert text.startswith("console:ipython:.: the kernel died")
    assert f"go back %restore_vars from={snapshot.id[:8]}" in text


def test_texts_from_a_store_do_not_reach_the_terminal_as_commands(died, make):
    hostile = "\x1b[2J\u202e\nx"
    died(
        "b",
        cell_source=hostile,
        error=hostile,
        restored=hostile,
        cause=Cause("killed", hostile, hostile, place=(hostile,)),
        memory=Memory(1, 1, warning=hostile),
    )
    make(incarnation="b" * 16, variables=(Variable(hostile, hostile, 1, None, None),))

    output = why().stdout

    assert "\x1b" not in output
    assert "\u202e" not in output
    assert r"\x1b[2J" in output


# --- which deaths, of which notebook ---------------------------------------------------------------------------


def test_the_last_three_of_the_store_newest_first(died):
    for position, digit in enumerate("1234"):
        died(digit, seconds_ago=1000 - position, notebook=f"{digit}.ipynb")

    result = why()

    assert re.findall(r"^(\d\.ipynb): ", result.stdout, re.M) == ["4.ipynb", "3.ipynb", "2.ipynb"]
    assert result.stderr == "1 older death on record: ipyrescue why --all\n"
    assert len(documents("--all")) == 4
    assert [d["notebook"] for d in documents("-n", 1)] == ["4.ipynb"]
    assert [d["notebook"] for d in documents("1.ipynb")] == ["1.ipynb"]


def test_a_notebook_is_a_path_from_here(store, died, tmp_path, monkeypatch):
    """It finds the store beside it; with --store or IPYRESCUE_STORE that one is asked."""
    died("b", notebook="train.ipynb")
    died("c", notebook="sub/train.ipynb")
    monkeypatch.chdir(tmp_path / "sub")

    assert [d["incarnation"][0] for d in documents("../train.ipynb")] == ["b"]
    assert [d["incarnation"][0] for d in documents("train.ipynb", "--store", store.root)] == ["c"]
    assert [d["incarnation"][0] for d in documents("train.ipynb", "--store", "../.ipyrescue")] == ["c"]
    assert why("train.ipynb", env={"IPYRESCUE_STORE": str(store.root)}).stdout.startswith("sub/train.ipynb: ")
    assert why("train.ipynb").exit_code == Exit.NOT_FOUND


def test_a_renamed_notebook_knows_its_deaths(died, make, tmp_path):
    died("b", notebook="old.ipynb", cell_ids=("one",))
    snapshot = make(incarnation="b" * 16, notebook="old.ipynb")
    (tmp_path / "old.ipynb").unlink()
    (tmp_path / "new.ipynb").write_text('{"cells": [{"id": "one"}]}')

    (death,) = documents("new.ipynb")

    assert (death["notebook"], death["restore"]) == ("old.ipynb", f"%restore_vars from={snapshot.id[:8]}")
    assert documents("old.ipynb") == [death]


def test_nothing_died_is_said_and_is_no_error(store, died, tmp_path):
    result = why()
    assert (result.exit_code, result.stdout) == (Exit.OK, "")
    assert re.fullmatch("No kernel of a notebook in .* has died.\n", result.stderr)

    died("b", ended="shutdown")
    died("c", pid=os.getpid(), start_ticks=None)
    result = why("train.ipynb")
    assert (result.exit_code, result.stdout, result.stderr) == (Exit.OK, "", "No kernel of train.ipynb has died.\n")
    assert documents("train.ipynb") == []


def test_a_kernel_that_has_just_fallen_silent_is_not_called_dead_yet(died):
    died("b", seconds_ago=40, pid_namespace="pid:[1]")

    assert "One has been silent for some seconds: ask again in a minute." in why("train.ipynb").stderr


def test_a_name_that_nobody_knows_is_not_called_healthy(store, died):
    died("b")

    result = why("tran.ipynb")

    assert (result.exit_code, result.stdout) == (Exit.NOT_FOUND, "")
    assert "There is no notebook tran.ipynb" in result.stderr
    assert "It knows train.ipynb." in result.stderr
    assert why("no/such/folder/a.ipynb").exit_code == Exit.NOT_FOUND
    assert why("..").exit_code == Exit.NOT_FOUND


def test_without_a_store_it_says_where_it_looked(tmp_path):
    (tmp_path / "a.ipynb").write_text("{}")

    for result in (why(), why("a.ipynb")):
        assert result.exit_code == Exit.NOT_FOUND
        assert "There is no ipyrescue store at" in result.stderr


def test_a_count_must_be_one(store):
    assert why("-n", 0).exit_code == Exit.USAGE


# --- keys, damage, shape ---------------------------------------------------------------------------------------


def test_without_a_key_the_deaths_are_told_and_the_snapshots_called_untrusted(died, make, monkeypatch, tmp_path):
    died("b", memory=FULL)
    snapshot = make(incarnation="b" * 16, variables=VARIABLES)
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(tmp_path / "nowhere"))

    result = why("train.ipynb")

    assert result.exit_code == Exit.OK
    assert "There is no key" in result.stderr
    assert f"snapshot  {snapshot.id[:8]} is untrusted: " in result.stdout
    assert "model" not in result.stdout  # what it claims is hearsay
    assert "go back" not in result.stdout
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_snapshot_is_said_to_be(store, died, make):
    died("b")
    whole, damaged = make(incarnation="b" * 16), make(incarnation="b" * 16)
    layout.pack_path(store.root, damaged.blobs[1].pack).unlink()
    assert documents()[0]["snapshot"]["id"] == whole.id

    layout.pack_path(store.root, whole.blobs[1].pack).unlink()

    assert f"snapshot {damaged.id[:8]} is damaged: Pack " in told()
    assert documents()[0]["restore"] is None


def test_the_shape_is_stable_and_documented(died, make):
    died("b", memory=FULL, exit_code=-9)
    make(incarnation="b" * 16)

    (death,) = documents()

    assert list(death) == [
        "incarnation", "notebook", "kind", "host", "pid", "started", "died", "exit_code",
        "cell", "cell_source", "cell_started", "cell_running", "error",
        "cause", "memory", "restoring", "restored", "dismissed", "snapshot", "largest", "restore", "note", "advice",
    ]  # fmt: skip
    assert list(death["cause"]) == ["kind", "verb", "text", "certain", "place"]
    assert list(death["memory"]) == [
        "rss_bytes", "peak_rss_bytes", "limit_bytes", "cuda_allocated_bytes", "cuda_reserved_bytes", "warning",
    ]  # fmt: skip
    assert [list(variable) for variable in death["largest"]] == [["name", "type", "size_bytes"]]
    documented = why("--help").stdout
    for name in [*death, *death["cause"], *death["memory"], *death["largest"][0]]:
        assert re.search(rf"\b{name}\b", documented), name


def test_looking_changes_nothing(store, died, make):
    died("b")
    make(incarnation="b" * 16)
    before = {p: p.lstat().st_mtime_ns for p in store.root.rglob("*")}

    why()
    why("train.ipynb", "--json")

    assert {p: p.lstat().st_mtime_ns for p in store.root.rglob("*")} == before


def test_nothing_heavy_is_loaded_and_nothing_unpickled(died, make):
    died("b")
    make(incarnation="b" * 16)
    code = """
import sys
found = []
sys.addaudithook(lambda event, args: found.append(args) if event == "pickle.find_class" else None)
from ipyrescue.cli.app import app
try:
    app()
finally:
    heavy = {"torch", "numpy", "dill", "cloudpickle", "zstandard", "IPython"} & set(sys.modules)
    ours = [m for m in sys.modules if m.startswith(("ipyrescue.pickling", "ipyrescue.restoring", "ipyrescue.kernel"))]
    assert not heavy and not ours and not found, (heavy, ours, found)
"""
    result = subprocess.run([sys.executable, "-c", code, "why"], capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr


# --- a real kernel ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kind", "certain"),
    [(signal.SIGSEGV, "segmentation_fault", True), (signal.SIGTERM, "terminated", True), (signal.SIGKILL, None, False)],
)
def test_a_real_kernels_death_is_explained(tmp_path, number, kind, certain):
    """No server saw how it ended, and no new kernel has looked yet."""
    (tmp_path / "train.ipynb").write_text('{"cells": []}')
    with kernels(tmp_path) as make_kernel:
        kernel = make_kernel()
        kernel.run("%load_ext ipyrescue\nweights = list(range(1000))\n%checkpoint_vars")
        kernel.begin(
            f"import os\ndef step():\n    print('in step', flush=True)\n    os.kill(os.getpid(), {int(number)})\nstep()"
        )
        kernel.manager.provisioner.process.wait()
        kernel.close()

        (death,) = documents("train.ipynb")

    assert death["cause"]["kind"] == (kind or death["cause"]["kind"])
    assert death["cause"]["certain"] is certain
    assert [line.partition(" (")[0] for line in death["cause"]["place"][:2]] == (
        ["step", "<module>"] if certain else []
    )
    assert (death["cell"], death["cell_running"], death["cell_source"]) == (2, True, "import os")
    assert death["memory"]["rss_bytes"] > 10_000_000
    assert death["restore"] == "%restore_vars"
    assert [variable["name"] for variable in death["largest"]] == ["weights"]
