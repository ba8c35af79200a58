"""All of ipyrescue is loaded or nothing; and what is said of the last kernel is said once, and not lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernels import Kernel

MakeKernel = Callable[..., Kernel]

SLOW = """
def slowly():
    import time
    print("restoring", flush=True)
    time.sleep(60)

class Slow:
    def __reduce__(self):
        return slowly, ()
"""


@pytest.fixture
def profile(tmp_path: Path) -> str:
    """An IPython directory whose profile loads ipyrescue into every kernel and every ipython."""
    folder = str(tmp_path / "ipython")
    command = [sys.executable, "-m", "ipyrescue", "install"]
    subprocess.run(command, env={**os.environ, "IPYTHONDIR": folder}, check=True)
    return folder


def ipython(folder: Path, profile: str, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """A plain IPython in *folder*, with what somebody types."""
    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", *arguments]
    environ = {**os.environ, "IPYTHONDIR": profile}
    return subprocess.run(command, cwd=folder, env=environ, input=typed, capture_output=True, text=True, timeout=120)


def killed(make_kernel: MakeKernel, profile: str, source: str = "x = 42\n%checkpoint_vars") -> None:
    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.run(source)
    kernel.kill()


def test_a_setting_that_cannot_be_used_loads_nothing_and_the_next_try_loads_all(make_kernel: MakeKernel) -> None:
    """Half of us would say that the kernel is armed, and save nothing."""
    kernel = make_kernel(IPYRESCUE_AUTOSTART="soon")

    refused = kernel.try_run("%load_ext ipyrescue").text
    assert "ipyrescue was not loaded: The setting IPYRESCUE_AUTOSTART" in refused
    assert kernel.value("'checkpoint_vars' in get_ipython().magics_manager.magics['line']") is False

    kernel.run("import os; del os.environ['IPYRESCUE_AUTOSTART']")
    kernel.run("%load_ext ipyrescue\n%checkpoint_vars every=0.001s")
    kernel.run("x = 42")
    kernel.run("get_ipython()._ipyrescue.drain()", store_history=False)
    kernel.kill()
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\n%restore_vars")
    assert kernel.value("x") == 42


def test_a_profile_that_cannot_load_us_says_so_once_with_the_first_cell(make_kernel: MakeKernel, profile: str) -> None:
    kernel = make_kernel(IPYTHONDIR=profile, IPYRESCUE_ON_DEATH="perhaps")

    hidden, first, second = kernel.run("1", store_history=False), kernel.run("print(1)"), kernel.run("print(2)")

    assert "not loaded" not in hidden.text
    assert "ipyrescue was not loaded: The setting IPYRESCUE_ON_DEATH" in first.stderr
    assert (first.stdout, second.text) == ("1\n", "2\n")


def test_a_cell_that_loads_what_the_profile_has_loaded_is_told_once(make_kernel: MakeKernel, profile: str) -> None:
    killed(make_kernel, profile)

    assert make_kernel(IPYTHONDIR=profile).run("%load_ext ipyrescue").text.count("The last kernel") == 1


@pytest.mark.parametrize(
    "source",
    ["restore_vars", "r = %restore_vars", "%time %restore_vars x", "from ipyrescue import restore\nrestore()"],
    ids=["automagic", "assigned", "timed", "imported"],
)
def test_every_spelling_of_a_restore_is_offered_nothing(make_kernel: MakeKernel, profile: str, source: str) -> None:
    killed(make_kernel, profile)
    kernel = make_kernel(IPYTHONDIR=profile)

    assert "The last kernel" not in kernel.run(source).text
    assert "The last kernel" not in kernel.run("print('next')").text
    assert kernel.value("x") == 42


@pytest.mark.parametrize(
    "source",
    ["def f(:\n%restore_vars", "1/0\n%restore_vars", "%restore_vars nothing", "%restore_vars --list"],
    ids=["syntax", "raised", "no such name", "only looked"],
)
def test_a_cell_that_did_not_restore_after_all_loses_no_offer(
    make_kernel: MakeKernel, profile: str, source: str
) -> None:
    killed(make_kernel, profile)
    kernel = make_kernel(IPYTHONDIR=profile)

    assert "The last kernel" not in kernel.try_run(source).text
    assert "The last kernel" in kernel.run("print('next')").stderr
    assert kernel.run("print('next')").text == "next\n"


def test_a_restore_by_policy_that_is_interrupted_says_so_and_the_cell_runs(
    make_kernel: MakeKernel, profile: str
) -> None:
    """Ctrl-C stops what takes too long: a sentence and the line that brings it back, not a page of our code."""
    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.run(SLOW)
    kernel.run("x = Slow()\n%checkpoint_vars on_death=restore")
    kernel.kill()
    kernel = make_kernel(IPYTHONDIR=profile)
    kernel.begin("print('mine')")
    kernel.wait_for_output("restoring")

    shown = ""
    while "mine" not in shown:
        kernel.manager.interrupt_kernel()  # again: one that arrives while ipykernel prints is lost
        time.sleep(0.2)
        while kernel.client.iopub_channel.msg_ready():
            content = kernel.client.get_iopub_msg(timeout=1)["content"]
            shown += str(content.get("text", content.get("traceback", "")))

    assert "It was not restored: you interrupted it" in shown
    assert "Bring it back: %restore_vars" in shown
    assert "Error in callback" not in shown


def test_a_script_hears_nothing_of_dead_consoles(tmp_path: Path, profile: str) -> None:
    """Who types is told at the start; what runs by itself has no reader."""
    ipython(tmp_path, profile, typed="x = 1\n%checkpoint_vars\nimport os; os.kill(os.getpid(), 9)\n")
    (tmp_path / "script.py").write_text("print('mine')")

    for arguments in (["script.py"], ["-c", "print('mine')"]):
        run = ipython(tmp_path, profile, *arguments)
        assert (run.stdout, run.stderr) == ("mine\n", "")
    assert "The last kernel of this console died" in ipython(tmp_path, profile, typed="1\n").stderr


def test_a_number_in_the_configuration_is_as_good_as_its_text(make_kernel: MakeKernel, profile: str) -> None:
    """`c.IPyRescue.keep = 20` is what people write; refused, it would leave every kernel of the profile unprotected."""
    configuration = Path(profile) / "profile_default" / "ipython_config.py"
    configuration.write_text("c.IPyRescue.keep = 20\nc.IPyRescue.autostart = 3600\n")
    kernel = make_kernel(IPYTHONDIR=profile)

    assert kernel.run("print('mine')").text == "mine\n"
    assert "keeps the last 20" in kernel.run("%checkpoint_vars --status").text
    kernel.run("%config IPyRescue.keep = 30")
    assert kernel.value("get_ipython()._ipyrescue.notebook.configuration.keep") == 30


def test_an_error_that_shows_a_secret_does_not_name_a_snapshot(make_kernel: MakeKernel, tmp_path: Path) -> None:
    """Manifests are signed, not sealed: what a cell raised stands in them for everybody who can read the store."""
    kernel = make_kernel()
    kernel.run("%load_ext ipyrescue\nx = 1\n%checkpoint_vars every=0.001s")

    kernel.try_run("raise ValueError('bad key: sk-0123456789abcdefghij')")
    kernel.run("get_ipython()._ipyrescue.drain()", store_history=False)

    manifests = [path.read_text() for path in (tmp_path / ".ipyrescue" / "snapshots").glob("*.json")]
    assert any('"reason":"ValueError"' in text for text in manifests)
    assert not any("sk-0123" in text for text in manifests)
