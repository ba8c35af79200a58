"""Records of runs: back as they were, strict against whatever else stands in a store, judged by who lives."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import pytest

from ipyrescue.errors import CorruptError, RunNotFoundError
from ipyrescue.runs import record as records
from ipyrescue.runs import stopping
from ipyrescue.runs.outputs import Written
from ipyrescue.runs.record import Death, Done, Options, Outputs, Process, Record
from ipyrescue.store import layout


@pytest.fixture
def folder(tmp_path):
    layout.create(tmp_path / "store")
    made = layout.run_folder(tmp_path / "store", "train")
    made.mkdir()
    return made


def a_record(**changes):
    fields = {
        "name": "train",
        "kind": "notebook",
        "source": "/w/train.ipynb",
        "folder": "/w",
        "store": "/w/.ipyrescue",
        "options": Options(),
        "created": records.now(),
        "state": "running",
        "runner": records.process_of(os.getpid()),
    }
    return Record(**{**fields, **changes})


def test_a_record_comes_back(folder):
    record = a_record(
        options=Options(parameters=(("lr", "3e-4"), ("n", "\U0001f40d")), arguments=("--x", "")),
        kernel=Process(7, None, None, None, "elsewhere"),
        deaths=(Death("2026-11-21T16:00:00Z", 7, "was killed (SIGKILL)", -9, "a" * 16),),
        done=(Done(1, "ab" * 32, "c" * 16, 4, "2026-11-21T16:00:00Z"),),
        incarnations=("a" * 16, "b" * 16),
        outputs=Outputs("/w/train.run-2.ipynb", Written(7, 8, "ab" * 32)),
    )

    records.write(folder, record, durable=True)

    assert records.read(folder) == record
    assert (record.output, a_record(options=Options(output="/w/o.ipynb")).output) == (
        "/w/train.run-2.ipynb",
        "/w/o.ipynb",
    )
    assert records.read_all(folder.parent.parent) == [record]
    assert oct((folder / "run.json").stat().st_mode & 0o777) == "0o600"


def test_texts_from_elsewhere_are_cut(folder):
    records.write(folder, a_record(progress="x" * 10_000, reason="y" * 5000, deaths=(Death("", None, "z" * 9999),)))

    record = records.read(folder)

    assert {len(record.progress), len(record.reason), len(record.deaths[0].text)} == {4096}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"name": 7},
        {"state": "at ease"},
        {"kind": None},
        {"options": []},
        {"options": {"retries": "3"}},
        {"options": {"retries": True}},
        {"options": {"retries": 1 << 70}},
        {"options": {"every_seconds": float("nan")}},
        {"options": {"parameters": [["lr"]]}},
        {"options": {"parameters": [["lr", 1]]}},
        {"done": [{}]},
        {"done": {"cell": 1}},
        {"deaths": [None]},
        {"incarnations": [7]},
        {"progress": "x" * 5000},
        {"runner": {"pid": 1.5}},
        {"source": None},
    ],
    ids=str,
)
def test_a_malformed_record_is_refused(folder, change):
    records.write(folder, a_record())
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(CorruptError, match=r"run\.json is damaged"):
        records.read(folder)
    assert records.read_all(folder.parent.parent) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"name": "train"}'])
def test_what_is_no_record_is_refused(folder, content):
    (folder / "run.json").write_bytes(content)

    with pytest.raises(CorruptError):
        records.read(folder)


def test_what_is_no_plain_file_is_refused(folder, tmp_path):
    records.write(folder, a_record())
    (folder / "run.json").rename(tmp_path / "elsewhere.json")
    (folder / "run.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CorruptError, match="symbolic link"):
        records.read(folder)

    (folder / "run.json").unlink()
    os.mkfifo(folder / "run.json")
    with pytest.raises(CorruptError, match="not a plain file"):
        records.read(folder)

    (folder / "run.json").unlink()
    with open(folder / "run.json", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptError, match="are not read"):
        records.read(folder)

    (folder.parent / "link").symlink_to(folder)
    with pytest.raises(CorruptError, match="not a folder"):
        records.read(folder.parent / "link")
    with pytest.raises(RunNotFoundError, match="There is no run other"):
        records.read(folder.parent / "other")


def test_another_versions_fields_are_passed_over(folder):
    records.write(folder, a_record())
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": [1, {}]}))

    assert records.read(folder).state == "running"


def judge(folder, record, *, age_seconds=1.0):
    records.write(folder, record)
    now = (folder / "run.json").stat().st_mtime + age_seconds
    return records.judged(record, folder, now=now)


def test_a_record_is_judged(folder):
    """Not what was written last counts, but who lives: in sight by the process, else by the heartbeat."""
    here = records.process_of(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    gone = dataclasses.replace(records.process_of(ended.pid), start_ticks=1)
    ended.wait()
    elsewhere = dataclasses.replace(here, host="elsewhere")
    container = dataclasses.replace(here, pid_namespace="pid:[1]")
    before = dataclasses.replace(here, boot_id="before")

    assert judge(folder, a_record(runner=here), age_seconds=1e6).state == "running"
    assert judge(folder, a_record(runner=dataclasses.replace(here, start_ticks=1))).state == "dead"
    assert judge(folder, a_record(runner=gone)).state == "dead"
    assert judge(folder, a_record(runner=gone, state="finished")).state == "finished"
    assert judge(folder, a_record(runner=None, state="starting")).state == "dead"
    assert judge(folder, a_record(runner=elsewhere), age_seconds=20).state == "running"
    assert judge(folder, a_record(runner=container), age_seconds=45).state == "running"
    silent = judge(folder, a_record(runner=elsewhere), age_seconds=61)
    assert silent.state == "dead"
    assert "on elsewhere) has given no sign of life for 61 s. ipyrescue resume train" in silent.reason
    assert "The machine was started anew while the run was waiting in cell 2 of 5." in str(
        judge(folder, a_record(runner=before, state="waiting", cell=2, cells=5)).reason
    )
    assert here.host == socket.gethostname()


def test_a_touch_is_a_sign_of_life(folder):
    records.write(folder, a_record())
    os.utime(folder / "run.json", (1, 1))

    records.touch(folder)

    assert (folder / "run.json").stat().st_mtime > 1


def test_a_request_to_stop(folder):
    assert stopping.requested(folder) is None
    stopping.request(folder, now=False)
    assert stopping.requested(folder) == "snapshot"
    stopping.request(folder, now=True)
    assert stopping.requested(folder) == "now"
    for odd in (b'{"how": "later"}', b"[]", b"", b"x" * 5000, b'{"how": ["now"]}'):
        (folder / "stop.json").write_bytes(odd)
        assert stopping.requested(folder) is None
    stopping.clear(folder)
    stopping.clear(folder)
    assert list(folder.iterdir()) == [folder / "run.json"] or not list(folder.iterdir())
