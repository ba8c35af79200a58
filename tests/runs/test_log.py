"""What a run printed comes back byte for byte, whatever happens to the disk and to who writes."""

from __future__ import annotations

import errno
import gzip
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipyrescue.runs import log, segments
from ipyrescue.runs.log import Log, Reader, read, read_last

PIECES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.one_of(st.binary(max_size=40), st.text("ab\r\n", max_size=12).map(str.encode)),
    ),
    max_size=30,
)


def output(folder: Path, stream: str = "stdout") -> bytes:
    return b"".join(entry.output for entry in read(folder) if entry.stream == stream)


def told(folder: Path) -> str:
    return output(folder, "runner").decode()


@given(pieces=PIECES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_come_back_as_they_were(pieces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    writer = Log(folder, limit_bytes=300)
    for stream, data in pieces:
        writer.write(stream, data)
    writer.close()

    for stream in ("stdout", "stderr"):
        assert output(folder, stream) == b"".join(data for name, data in pieces if name == stream)


def test_the_file_is_in_the_format_of_the_container_runtime_interface(tmp_path):
    writer = Log(tmp_path, clock=lambda: 1_795_280_000.25)
    writer.write("stdout", b"one\ntwo\r three\r\n")
    writer.write("stderr", b"\xff\x00 \x1b[31m")
    writer.say("Attempt 2 begins.")
    writer.close()

    at = b"2026-11-21T16:53:20.250000Z"
    assert (tmp_path / "log").read_bytes().split(b"\n") == [
        at + b" stdout F one",
        at + b" stdout P two\r",
        at + b" stdout F  three\r",
        at + b" runner F Attempt 2 begins.",
        at + b" stderr P \xff\x00 \x1b[31m",
        b"",
    ]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_the_beginning_of_a_line_is_there_before_its_end(tmp_path):
    writer = Log(tmp_path)
    writer.write("stdout", b"Name? ")
    first = next(entry for entry in read(tmp_path, follow=lambda: True))
    writer.write("stdout", b"x" * 40_000 + b"\n")
    writer.close()

    assert (first.data, first.complete) == (b"Name? ", False)
    assert output(tmp_path) == b"Name? " + b"x" * 40_000 + b"\n"
    assert max(len(entry.data) for entry in read(tmp_path)) == log.LINE_BYTES


def test_a_reader_that_follows_gets_all_of_it_across_rotations(tmp_path):
    lines = [b"%d %s" % (number, b"x" * (number % 90)) for number in range(4000)]
    ended = threading.Event()

    def write():
        writer = Log(tmp_path, limit_bytes=10_000)
        for line in lines:
            writer.write("stdout", line + b"\n")
        writer.close()
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    found = [entry.data for entry in read(tmp_path, follow=lambda: not ended.is_set())]
    thread.join()

    assert found == lines
    assert len(segments.rotated(tmp_path)) > 10
    assert {segment.path.suffix for segment in segments.rotated(tmp_path)} == {".gz"}
    assert output(tmp_path) == b"\n".join(lines) + b"\n"


def test_what_is_written_just_before_a_rotation_is_read(tmp_path, monkeypatch):
    writer = Log(tmp_path, limit_bytes=60)
    asked = []

    def is_current(folder, file):
        asked.append(file)
        if len(asked) == 2:  # once it was opened, and once it was read to its end
            writer.write("stdout", b"in the same file\n")
            writer.write("stdout", b"in the next one\n")
        return real(folder, file)

    real = segments.is_current
    monkeypatch.setattr(segments, "is_current", is_current)
    writer.write("stdout", b"first\n")

    assert output(tmp_path) == b"first\nin the same file\nin the next one\n"
    writer.close()


def test_the_last_lines_are_found_without_reading_all(tmp_path):
    writer = Log(tmp_path, limit_bytes=1000)
    for number in range(200):
        writer.write("stderr" if number % 50 == 0 else "stdout", b"%d\n" % number)
    writer.close()

    for wanted, number, expected in (
        ("stdout", 3, [b"197", b"198", b"199"]),
        ("stderr", 3, [b"50", b"100", b"150"]),
        ("stderr", 9, [b"0", b"50", b"100", b"150"]),
    ):
        reader, found = read_last(tmp_path, number, lambda entry, wanted=wanted: entry.stream == wanted)
        assert [entry.data for entry in found] == expected
        assert list(reader.read()) == []
        reader.close()


def test_the_oldest_output_goes_and_the_log_says_so(tmp_path):
    writer = Log(tmp_path, limit_bytes=20_000, total_bytes=60_000)
    for _ in range(20):
        writer.write("stdout", os.urandom(8_000).replace(b"\n", b"") + b"\n")
    writer.close()

    there = segments.rotated(tmp_path)
    assert there[0].number > 1
    assert sum(segment.size_bytes for segment in there) <= 60_000
    assert f"The oldest output, log.{there[0].number - 1}.gz" in told(tmp_path)


def test_what_a_killed_writer_left_is_passed_on(tmp_path):
    (tmp_path / "log.1").write_bytes(b"2026-11-21T16:00:00.0Z stdout F old\n")
    (tmp_path / "log.1.gz").write_bytes(b"half")
    (tmp_path / ".log.1.gz").write_bytes(b"a draft")
    (tmp_path / "log").write_bytes(b"2026-11-21T16:00:00.0Z stdout F whole\nrubbish\n2026-11-21T16:0")
    before = list(read(tmp_path))
    writer = Log(tmp_path)
    writer.write("stdout", b"next\n")
    writer.close()

    assert [(entry.at is None, entry.data) for entry in before] == [
        (False, b"old"),
        (False, b"whole"),
        (True, b"rubbish"),
        (True, b"2026-11-21T16:0"),
    ]
    assert output(tmp_path) == b"old\nwhole\nnext\n"
    assert "may be cut off" in told(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz"]


def test_a_damaged_old_file_costs_itself_only(tmp_path):
    packed = gzip.compress(b"2026-11-21T16:00:00.0Z stdout F old\n" * 5000)
    (tmp_path / "log.1.gz").write_bytes(packed[: len(packed) // 2])
    writer = Log(tmp_path)
    writer.write("stdout", b"next\n")
    writer.close()

    assert "File 1 of this log is damaged from here on" in told(tmp_path)
    assert output(tmp_path).endswith(b"next\n")


def test_a_full_disk_is_told_once_it_is_not_full(tmp_path, monkeypatch):
    room = [10_000]

    def write(fd: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size = real(fd, bytes(data)[: room[0]])
        room[0] -= size
        return size

    real = os.write
    monkeypatch.setattr(segments.os, "write", write)
    writer = Log(tmp_path)
    reader = Reader(tmp_path)
    found = []
    for number in range(100):
        writer.write("stdout", b"%03d %s\n" % (number, b"x" * 200))
        found += reader.read()
    room[0] = 1 << 30
    writer.write("stdout", b"there is room\n")
    writer.close()
    found += reader.read()
    reader.close()

    assert found == list(read(tmp_path))
    lines = output(tmp_path).splitlines()
    assert lines == [b"%03d %s" % (number, b"x" * 200) for number in range(len(lines) - 1)] + [b"there is room"]
    assert told(tmp_path).count("could not be written here: No space left on device.") == 1


def test_what_cannot_be_rotated_or_opened_is_tried_again(tmp_path, monkeypatch):
    folder = tmp_path / "not yet"
    writer = Log(folder, limit_bytes=100)
    writer.write("stdout", b"lost\n")
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(segments.os, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
        for number in range(9):
            writer.write("stdout", b"%d\n" % number)
    writer.close()

    assert output(folder) == b"".join(b"%d\n" % number for number in range(9))
    assert "could not be written here: No such file or directory." in told(folder)


@pytest.mark.slow
def test_a_hundred_megabytes_are_complete(tmp_path):
    writer = Log(tmp_path, limit_bytes=16 << 20)
    chunk = b"".join(b"step %06d %s\n" % (number, b"=" * 68) for number in range(12_500))
    for _ in range(100):
        writer.write("stdout", chunk)
    writer.close()

    assert output(tmp_path) == chunk * 100
