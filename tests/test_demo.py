"""`make demo`: what a stranger sees first, at a size for tests."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "demo"


@pytest.fixture
def story(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    return __import__("story")


@pytest.mark.slow
def test_the_demo_ends_with_every_bit_the_same(tmp_path):
    """Train, SIGKILL, restore, continue: exit status 0 and the sentences that tell it."""
    demo = run_demo("--small", "--keep", str(tmp_path / "kept"))

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "kill -9" in demo.stdout
    assert "NameError" in demo.stdout, "the new kernel is empty"
    assert "Restored" in demo.stdout
    assert "The same, bit for bit" in demo.stdout
    assert demo.stdout.isascii(), "a terminal without Unicode shows it too"
    assert demo.stderr == ""


@pytest.mark.slow
def test_the_demo_stays_out_of_the_users_home(tmp_path, monkeypatch):
    """It signs with a key of its own, and takes all that it made away with it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    home = Path(os.environ["HOME"])
    before = sorted(home.rglob("*"))

    assert run_demo("--small").returncode == 0

    assert sorted(home.rglob("*")) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("ipyrescue", "kernel"))]


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_its_kernels(tmp_path):
    """A person who has seen enough gets one sentence, no traceback, and no process left behind."""
    arguments = [sys.executable, DEMO / "story.py", "--small", "--keep", tmp_path / "kept"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        first = next(line for line in demo.stdout if "process" in line)
        demo.send_signal(signal.SIGINT)
        told, complaints = demo.communicate(timeout=30)

    assert demo.returncode == 130
    assert "Interrupted" in told
    assert complaints == ""
    assert not is_running(int(first.split("process ")[1].split(")")[0]))


@pytest.mark.parametrize(
    ("whole", "elementwise", "same"),
    [
        ({"tensors": {"w": "ab"}, "rest": "[3]"}, ["12"], True),
        ({"tensors": {"w": "cd"}, "rest": "[3]"}, ["12"], False),
        ({"tensors": {"w": "ab"}, "rest": "[4]"}, ["12"], False),
        ({"tensors": {"w": "ab", "v": "ab"}, "rest": "[3]"}, ["12"], False),
        ({"tensors": {"w": "ab"}, "rest": "[3]"}, ["AssertionError: "], False),
    ],
)
def test_the_demo_holds_only_if_every_bit_is_the_same(story, whole, elementwise, same, capsys):
    """One tensor, one loss or one name that differs is a failure, and is said."""
    rescued = json.dumps({"tensors": {"w": "ab"}, "rest": "[3]"})

    assert story.verdict(story.Story(), rescued, json.dumps(whole), elementwise) is same

    assert ("NOT the same" in capsys.readouterr().out) is not same


def run_demo(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, DEMO / "story.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
