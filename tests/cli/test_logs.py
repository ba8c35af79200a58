"""`ipyrescue logs` over logs of runs that are over, that go on, and whose runner is gone."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipyrescue.cli.exits import Exit
from ipyrescue.cli.logs import _local, harmless
from ipyrescue.runs import record as records
from ipyrescue.runs import registry
from ipyrescue.runs.log import Log
from ipyrescue.runs.record import Options, Record
from tests.cli.test_verbs import run, run_json

BEGAN = 1_700_000_000.25  # 2023-11-14T22:13:20.25Z


@pytest.fixture
def folder(store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run called `train` that says that it runs, by a runner that is this process."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = registry.new_folder(store_root, "train", exact=True)
    state(folder, "running")
    return folder


def state(folder: Path, state: str, **said: object) -> None:
    record = Record(
        name="train",
        kind="script",
        source="/train.py",
        folder="/",
        store=str(folder.parent.parent),
        options=Options(),
        created=records.now(),
        runner=records.process_of(os.getpid()),
    )
    records.write(folder, dataclasses.replace(record, state=state, **said))


def log_of(folder: Path, *written: tuple[str, bytes], step_seconds: float = 60.0) -> None:
    ticks = iter(range(1000))
    log = Log(folder, clock=lambda: BEGAN + step_seconds * next(ticks))
    for stream, data in written:
        log.write(stream, data)
    log.close()


MIXED = [
    ("runner", b"Attempt 1: python train.py\n"),
    ("stdout", b"epoch 1\n"),
    ("stderr", b"warning \xff\n"),
    ("stdout", b"50%\r100%\rdone\nno end"),
]


def test_each_line_has_its_time(folder):
    log_of(folder, *MIXED)

    assert run("logs", "train").stdout_bytes.splitlines() == [
        b"2023-11-14T22:13:20.250000Z ipyrescue: Attempt 1: python train.py",
        b"2023-11-14T22:14:20.250000Z epoch 1",
        b"2023-11-14T22:15:20.250000Z warning \xff",
        *b"2023-11-14T22:16:20.250000Z 50%\r100%\rdone".splitlines(),
        b"2023-11-14T22:17:20.250000Z no end",
    ]


def test_without_times_the_bytes_are_as_they_were(folder):
    log_of(folder, *MIXED)

    assert run("logs", "-T", "--stream", "stdout", "train").stdout_bytes == b"epoch 1\n50%\r100%\rdone\nno end"
    assert run("logs", "-T", "--stream", "stderr", "train").stdout_bytes == b"warning \xff\n"
    assert run("logs", "-T", "train", "-n", "1").stdout_bytes == b"done\nno end"
    assert run("logs", "-T", "train", "-n", "0").stdout_bytes == b"no end"


def test_since_a_moment_or_so_long_ago(folder):
    log_of(folder, *MIXED)
    now = time.time()
    later = Log(folder, clock=lambda: now)
    later.write("stdout", b"now\n")
    later.close()

    assert run("logs", "-T", "train", "--since", "10m").stdout == "now\n"
    assert run("logs", "-T", "train", "--since", "2023-11-14T22:15:00").stdout_bytes.startswith(b"warning")
    refused = run("logs", "train", "--since", "yesterday")
    assert (refused.exit_code, "is no duration" in refused.stderr) == (Exit.USAGE, True)
    assert run("logs", "train", "--stream", "both").exit_code == Exit.USAGE


def test_as_json(folder):
    log_of(folder, *MIXED)

    result, document = run_json("logs", "train")
    following = run("logs", "-f", "--json", "train", "-n", "1") if state(folder, "finished") is None else None

    assert (result.exit_code, document["run"]) == (Exit.OK, "train")
    assert document["entries"][2] == {
        "time": "2023-11-14T22:15:20.250000Z",
        "stream": "stderr",
        "text": "warning \ufffd",
        "complete": True,
        "base64": base64.b64encode(b"warning \xff").decode(),
    }
    assert [json.loads(line)["text"] for line in following.stdout.splitlines()] == ["done", "no end"]
    assert run("logs", "nobody").exit_code == Exit.NOT_FOUND


def test_following_ends_with_the_run_and_says_that_its_runner_is_gone(folder):
    log_of(folder, ("stdout", b"one\n"))
    gone = dataclasses.replace(records.process_of(os.getpid()), start_ticks=1)
    state(folder, "running", runner=gone)

    result = run("logs", "-f", "-T", "train")

    assert (result.exit_code, result.stdout) == (Exit.OK, "one\n")
    assert "is gone, while the run was running. ipyrescue resume train goes on." in result.stderr


def test_following_from_a_terminal(folder):
    """What comes is shown as it comes, harmless; Ctrl-C ends the watching with 130."""
    log = Log(folder, clock=lambda: BEGAN)
    log.write("stdout", b"one\n\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07 \x1b[1A\x9b\t|\n 50%\r")
    terminal, other = pty.openpty()
    command = [sys.executable, "-m", "ipyrescue", "logs", "-f", "train"]
    environ = {**os.environ, "TZ": "UTC"}
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environ, start_new_session=True)
    os.close(other)
    try:
        shown = until(terminal, b" 50%")
        log.write("stdout", b"100%\r")
        log.flush()
        log.write("stderr", b"error\n")
        shown += until(terminal, b"error")
        process.send_signal(signal.SIGINT)
        shown += until(terminal, None)
        assert process.wait() == Exit.INTERRUPTED
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        log.close()

    at = b"2023-11-14 22:13:20 "
    assert shown.replace(b"\r\n", b"\n") == (
        at + b"one\n" + at + b"\x1b[31mred\x1b[0m \\x9b\t|\x1b[0m\n"
        + at + b" 50%\r\x1b[K" + at + b"100%\n" + at + b"error\n"
    )  # fmt: skip


def until(terminal: int, text: bytes | None) -> bytes:
    """What the terminal shows up to *text*, or to its end."""
    shown = b""
    while text is None or text not in shown:
        try:
            shown += os.read(terminal, 1000)
        except OSError:
            return shown
    return shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[m", "\x1b[1;31mred\x1b[m"),
        ("\x1b[2K\x1b[1A\x1b[?25lbar", "bar"),
        ("\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;AAAA", ""),
        ("a\tb\x00\u202e\x1bc", "a\tb\\x00\\u202e\\x1bc"),
        ("12\x08\x08\x08 13", "12 13"),
    ],
)
def test_a_terminal_is_given_nothing_that_moves_its_cursor(text, shown):
    assert harmless(text) == shown


def test_a_moment_that_no_calendar_has_here_is_left_out(monkeypatch):
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    try:
        assert _local("9999-12-31T23:59:59.000000Z") == " " * 19
    finally:
        monkeypatch.undo()
        time.tzset()
