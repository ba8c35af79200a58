"""A real kernel ends in every way there is, and the next one says what happened, once, where its user looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernels import Kernel

MakeKernel = Callable[..., Kernel]


def die(kernel: Kernel, source: str) -> None:
    """Run a cell that ends the kernel, and wait until it is gone."""
    kernel.begin(source)
    kernel.manager.provisioner.process.wait()  # type: ignore[union-attr]
    kernel.close()


def life_records(folder: Path) -> list[dict]:
    return [json.loads(path.read_bytes()) for path in (folder / ".ipyrescue" / "kernels").glob("*.json")]


@pytest.fixture
def profile(tmp_path: Path) -> str:
    """An IPython directory whose profile loads ipyrescue into every kernel."""
    folder = str(tmp_path / "ipython")
    command = [sys.executable, "-m", "ipyrescue", "install"]
    subprocess.run(command, env={**os.environ, "IPYTHONDIR": folder}, check=True)
    return folder


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import os; os.kill(os.getpid(), 9)", "died (cause unknown: no trace left, as after kill -9)"),
        ("import ctypes; ctypes.string_at(0)", "crashed (segmentation fault in string_at"),
        ("import os; os.abort()", "crashed (aborted in"),
        ("import os, time; os.kill(os.getpid(), 15); time.sleep(60)", "was terminated (SIGTERM from outside"),
        ("import os, time; os.kill(os.getpid(), 1); time.sleep(60)", "was hung up (SIGHUP"),
        ("import os; os._exit(3)", "died (cause unknown"),
    ],
    ids=["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM", "SIGHUP", "_exit"],
)
def test_a_death_is_told_with_its_cause(make_kernel: MakeKernel, source: str, told: str) -> None:
    """The kernel's own traces name the cause; where there is none, nothing is invented."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 42\n%checkpoint_vars")
    die(kernel, source)
    kernel = make_kernel()

    said = kernel.run("%load_ext ipyrescue").text

    assert told in said
    assert "while cell [2] was running" in said
    assert "Its newest snapshot" in said
    kernel.run("%restore_vars")
    assert kernel.value("x") == 42


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda kernel: die(kernel, "exit()"), "shutdown"),
        (lambda kernel: kernel.shut_down(), "shutdown"),
        (lambda kernel: kernel.manager.shutdown_kernel(restart=True), "restart"),
    ],
    ids=["exit", "shutdown", "restart"],
)
def test_an_end_that_was_asked_for_is_no_death(
    make_kernel: MakeKernel, tmp_path: Path, end: Callable[[Kernel], None], how: str
) -> None:
    """exit(), a shutdown and a restart by the user are recorded as what they are, and nothing is offered."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 42\n%checkpoint_vars")
    end(kernel)

    assert [life["ended"] in (how, "exit") for life in life_records(tmp_path)] == [True]
    assert "Nothing is saved yet" in make_kernel().run("%load_ext ipyrescue").text


def test_signals_still_end_the_kernels_children(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """A worker that is terminated dies as ever, and leaves no trace that the kernel's own death could be read from."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 1\n%checkpoint_vars")
    kernel.run(
        textwrap.dedent("""
        import ctypes, multiprocessing, time
        fork = multiprocessing.get_context("fork")
        sleeper, crasher = fork.Process(target=time.sleep, args=(60,)), fork.Process(target=ctypes.string_at, args=(0,))
        sleeper.start(), crasher.start(), sleeper.terminate()
        sleeper.join(), crasher.join()
        """)
    )
    assert kernel.value("(sleeper.exitcode, crasher.exitcode)") == (-15, -11)
    kernel.kill()

    assert "cause unknown" in make_kernel().run("%load_ext ipyrescue").text


def test_a_handler_of_the_user_is_left_alone(make_kernel: MakeKernel) -> None:
    """Who handles SIGTERM keeps doing so, set before or after us."""
    kernel = make_kernel()
    kernel.run("import signal, os\nheard = []\nsignal.signal(signal.SIGTERM, lambda *a: heard.append('before'))")
    kernel.run("%load_ext ipyrescue\nos.kill(os.getpid(), signal.SIGTERM)")
    kernel.run("signal.signal(signal.SIGHUP, lambda *a: heard.append('after'))\nos.kill(os.getpid(), signal.SIGHUP)")
    kernel.run("%unload_ext ipyrescue\nos.kill(os.getpid(), signal.SIGTERM)\nos.kill(os.getpid(), signal.SIGHUP)")

    assert kernel.value("heard") == ["before", "after", "before", "after"]


def test_a_profile_that_loads_us_offers_before_the_first_cell_of_the_user(
    make_kernel: MakeKernel, profile: str
) -> None:
    """What is printed while a kernel starts is lost, and cells that front ends run for themselves do not count."""
    kernel = make_kernel(IPYTHONDIR=profile)
    assert kernel.run("x = 42").text == ""
    kernel.run("%checkpoint_vars")
    kernel.kill()
    kernel = make_kernel(IPYTHONDIR=profile)

    hidden = kernel.run("1", store_history=False).text + kernel.run("2", silent=True).text
    first = kernel.run("print('mine')")
    second = kernel.run("print('mine')")

    assert "The last kernel" not in hidden
    assert "The last kernel of train.ipynb died" in first.stderr
    assert first.stdout == "mine\n"
    assert second.text == "mine\n"


@pytest.mark.parametrize("source", ["%restore_vars", "  %restore_vars x", "import ipyrescue; ipyrescue.restore()"])
def test_who_restores_in_the_first_cell_is_not_told_to(make_kernel: MakeKernel, profile: str, source: str) -> None:
    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.run("x = 42\n%checkpoint_vars")
    kernel.kill()
    kernel = make_kernel(IPYTHONDIR=profile)

    assert "The last kernel" not in kernel.run(source).text
    assert "The last kernel" not in kernel.run("print('next')").text
    assert kernel.value("x") == 42


def test_a_cell_that_loads_and_restores_is_offered_nothing(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 42\n%checkpoint_vars")
    kernel.kill()

    assert "Bring it back" not in make_kernel().run("%load_ext ipyrescue\n%restore_vars").text


def test_a_profile_makes_no_store_where_there_is_no_notebook(
    make_kernel: MakeKernel, profile: str, tmp_path: Path
) -> None:
    """Every console in every folder would litter it; the first snapshot makes the store."""
    kernel = make_kernel(None, IPYTHONDIR=profile)
    kernel.run("x = 1")
    assert not (tmp_path / ".ipyrescue").exists()

    kernel.run("%checkpoint_vars")

    assert [life["kind"] for life in life_records(tmp_path)] == ["console"]


def test_the_policy_of_a_notebook_restores_before_the_first_cell(make_kernel: MakeKernel, profile: str) -> None:
    """It travels with the snapshots, shows its report, and runs before the cell that needs the variables."""
    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.run("x = 42\n%checkpoint_vars every=1h on_death=restore")
    kernel.kill()

    first = make_kernel(IPYTHONDIR=profile).run("print(x + 1)")

    assert first.stdout == "43\n"
    assert "The last kernel of train.ipynb died" in first.stderr
    assert "Restored 1 variable" in first.text


def test_the_policy_never_says_nothing_and_restores_on_demand(make_kernel: MakeKernel, profile: str) -> None:
    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.run("x = 42\n%checkpoint_vars")
    kernel.kill()
    kernel = make_kernel(IPYTHONDIR=profile, IPYRESCUE_ON_DEATH="never")

    assert kernel.run("print('mine')").text == "mine\n"
    kernel.run("%restore_vars")
    assert kernel.value("x") == 42


def test_autostart_arms_without_a_word(make_kernel: MakeKernel, profile: str) -> None:
    kernel = make_kernel(IPYTHONDIR=profile, IPYRESCUE_AUTOSTART="0.001s")

    assert kernel.run("x = 42").text == ""
    kernel.run("get_ipython()._ipyrescue.drain()", store_history=False)
    kernel.kill()

    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.run("%restore_vars")
    assert kernel.value("x") == 42


BOMB = """
class Bomb:
    def __reduce__(self):
        return eval, ("__import__('os').kill(__import__('os').getpid(), 9)",)
"""


@pytest.mark.slow
def test_a_restore_that_killed_the_kernel_is_not_offered_again(make_kernel: MakeKernel) -> None:
    """The generation before is, with the reason; and once that is back, nothing is offered any more."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 'good'\n%checkpoint_vars")
    kernel.run(BOMB)
    kernel.run("x = Bomb()\n%checkpoint_vars")
    kernel.kill()
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    die(kernel, "%restore_vars")
    kernel = make_kernel()

    said = kernel.run("%load_ext ipyrescue").text

    assert "in the middle of a restore" in said
    assert "so the one before is proposed" in said
    kernel.run("%restore_vars")
    assert kernel.value("x") == "good"
    assert "Nothing is saved yet" in make_kernel().run("%load_ext ipyrescue").text or "still running" in (
        make_kernel().run("%load_ext ipyrescue").text
    )


def test_a_restore_that_somebody_ended_is_offered_again(make_kernel: MakeKernel) -> None:
    """SIGTERM in the midst of it says nothing against the snapshot."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 'older'\n%checkpoint_vars")
    kernel.run("x = 'newest'\n%checkpoint_vars")
    kernel.kill()
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue")
    die(
        kernel,
        "import os\nfrom ipyrescue import restoring\n"
        "restoring.restore = lambda *a, **k: os.kill(os.getpid(), 15)\n%restore_vars",
    )
    kernel = make_kernel()

    said = kernel.run("%load_ext ipyrescue").text

    assert "was terminated (SIGTERM" in said
    assert "so the one before" not in said
    kernel.run("%restore_vars")
    assert kernel.value("x") == "newest"


def test_who_went_on_in_a_new_kernel_is_not_taken_back(make_kernel: MakeKernel) -> None:
    """The offer was not taken, the new kernel saved and was ended on purpose: the newest is what it left."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 1\n%checkpoint_vars")
    kernel.kill()
    kernel = make_kernel()
    assert "The last kernel" in kernel.run("%load_ext ipyrescue").text
    kernel.run("x = 2\n%checkpoint_vars")
    kernel.shut_down()
    kernel = make_kernel()

    assert "The last kernel" not in kernel.run("%load_ext ipyrescue").text
    kernel.run("%restore_vars")
    assert kernel.value("x") == 2


def test_a_policy_that_restores_makes_no_loop(make_kernel: MakeKernel, profile: str) -> None:
    """A restore that killed the kernel is not tried again unasked."""
    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.run(BOMB)
    kernel.run("x = Bomb()\n%checkpoint_vars on_death=restore")
    kernel.kill()
    die(make_kernel(IPYTHONDIR=profile), "1")

    said = make_kernel(IPYTHONDIR=profile).run("print('alive')")

    assert said.stdout == "alive\n"
    assert "Single names take less memory" in said.stderr


def test_a_dismissed_death_is_told_no_more(make_kernel: MakeKernel) -> None:
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 42\n%checkpoint_vars")
    kernel.kill()
    kernel = make_kernel()

    assert "The last kernel" in kernel.run("%load_ext ipyrescue").text
    assert "1 dead kernel" in kernel.run("%restore_vars --dismiss").text
    kernel.shut_down()
    kernel = make_kernel()
    assert "The last kernel" not in kernel.run("%load_ext ipyrescue").text
    kernel.run("%restore_vars")
    assert kernel.value("x") == 42


def test_a_kernel_that_still_lives_is_to_be_gone_on_in(make_kernel: MakeKernel) -> None:
    """VS Code Remote keeps a kernel when its window closes: nothing is lost, so nothing is offered but the way back."""
    old = make_kernel()
    old.run("%load_ext ipyrescue\nx = 42\n%checkpoint_vars")

    said = make_kernel().run("%load_ext ipyrescue").text

    assert f"pid {old.pid}" in said
    assert "jupyter console --existing kernel-" in said
    assert "Bring it back" not in said


def test_a_renamed_notebook_is_known_by_its_cells_and_a_copy_is_not(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """A kernel keeps the name it was started with; the file of a copy's original is still there."""
    notebook = {"cells": [{"id": "cell-one"}, {"id": "cell-two"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}
    (tmp_path / "train.ipynb").write_text(json.dumps(notebook))
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 42\n%checkpoint_vars")
    kernel.client.session.metadata = {"cellId": "cell-two"}
    kernel.run("x")
    kernel.kill()
    (tmp_path / "copy.ipynb").write_text(json.dumps(notebook))
    assert "The last kernel" not in make_kernel("copy.ipynb").run("%load_ext ipyrescue").text
    (tmp_path / "copy.ipynb").unlink()
    (tmp_path / "train.ipynb").rename(tmp_path / "renamed.ipynb")

    kernel = make_kernel("renamed.ipynb")
    said = kernel.run("%load_ext ipyrescue").text

    assert "The last kernel of train.ipynb died" in said
    line = next(part for part in said.split("Bring it back: ")[1].split("    "))
    kernel.run(line)
    assert kernel.value("x") == 42


def test_status_shows_the_memory_that_people_watch_by_hand(make_kernel: MakeKernel) -> None:
    """Now, at the peak of a cell, the largest variables; and a cell that takes more each time is named."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nkept = []\n%checkpoint_vars every=1h")
    for _ in range(3):
        kernel.run("kept.append(bytearray(b'x' * 40_000_000))")

    status = kernel.run("%checkpoint_vars --status --json").data[0]["application/json"]

    assert status["memory"]["rss_bytes"] > 40_000_000
    assert status["memory"]["limit_bytes"] > status["memory"]["rss_bytes"]
    assert "took more memory in each of its last 3 runs" in status["memory"]["warning"]
    kernel.run("del kept[1:]\n%checkpoint_vars")
    assert "kept 40 MB" in kernel.run("%checkpoint_vars --status").text


def test_the_record_says_how_full_the_memory_was(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """The heartbeat writes it during a cell, so that whoever asks after a kill can tell."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\n%checkpoint_vars")
    kernel.begin(
        textwrap.dedent("""
        import json, time
        from pathlib import Path
        hog = b"x" * 300_000_000
        [record] = Path(".ipyrescue/kernels").glob("*.json")
        while json.loads(record.read_bytes())["memory"]["rss_bytes"] < 300_000_000:
            time.sleep(0.05)
        print("noted", flush=True)
        time.sleep(60)
        """)
    )
    kernel.wait_for_output("noted")
    kernel.kill()

    [life] = life_records(tmp_path)
    assert life["memory"]["peak_rss_bytes"] >= life["memory"]["rss_bytes"] >= 300_000_000
    assert life["cell_running"]


@pytest.mark.slow
def test_what_died_before_the_kernel_that_was_restored_is_past(make_kernel: MakeKernel) -> None:
    """Two kernels died one after the other, each with its own snapshots; the user went on from the second."""
    for value in (1, 2):
        kernel = make_kernel()
        kernel.run(f"%load_ext ipyrescue\nx = {value}\n%checkpoint_vars")
        kernel.kill()
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\n%restore_vars")
    assert kernel.value("x") == 2
    kernel.run("x = 3\n%checkpoint_vars\nx = None\n%restore_vars")
    assert kernel.value("x") == 3
    kernel.shut_down()

    assert "The last kernel" not in make_kernel().run("%load_ext ipyrescue").text


@pytest.fixture
def container(make_kernel: MakeKernel, tmp_path: Path) -> Path:
    """The life record of a kernel that died with its container: of the same host, in a namespace that is gone."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 42\n%checkpoint_vars")
    kernel.kill()
    [record] = (tmp_path / ".ipyrescue" / "kernels").glob("*.json")
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"pid_namespace": "pid:[1]"}))
    return record


def test_a_container_that_starts_anew_is_offered_the_last_ones_death(make_kernel: MakeKernel, container: Path) -> None:
    """Its processes cannot be seen; once the heartbeat has been still for a minute, the kernel is dead."""
    kernel = make_kernel()
    assert "Nothing is saved yet" in kernel.run("%load_ext ipyrescue").text
    assert kernel.run("1").stderr == ""
    os.utime(container, (time.time() - 90, time.time() - 90))

    assert "The last kernel of train.ipynb died" in kernel.run("2").stderr
    assert kernel.run("3").stderr == ""


def test_a_kernel_in_another_container_lives_when_its_heart_beats(make_kernel: MakeKernel, container: Path) -> None:
    os.utime(container, (time.time() - 10, time.time() - 10))
    kernel = make_kernel()
    assert "Nothing is saved yet" in kernel.run("%load_ext ipyrescue").text
    os.utime(container)

    assert "is still running" in kernel.run("1").stderr
    assert kernel.run("2").stderr == ""
