"""Durations, sizes, ages and the precedence of settings."""

import re
from pathlib import Path

import pytest

from ipyrescue import settings
from ipyrescue.errors import RescueError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("5min", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("90", 90),
        ("1.5h", 5400),
        ("0.5", 0.5),
        (".5s", 0.5),
        (" 5M ", 300),
        ("1d2h3m4s", 93_784),
    ],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert settings.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "0s", "-5", "-5m", "5 x", "m", "5m5m", "30m1h", "1..5s", ".s", "inf", "9" * 400, "५", "1e3"],
)
def test_a_bad_duration_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"30s, 5m, 1h30m"):
        settings.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("500MB", 500_000_000),
        ("2GiB", 2 << 30),
        ("1.5G", 1_500_000_000),
        ("1.5 GB", 1_500_000_000),
        ("10", 10),
        ("10B", 10),
        ("4KiB", 4096),
        ("4k", 4000),
        ("1tb", 10**12),
        ("1Mi", 1 << 20),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size_bytes):
    assert settings.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "0", "0.1", "-1MB", "MB", "1.2.3G", "iB", "5i", "20%", "9" * 30, "1XB", "nan"])
def test_a_bad_size_is_refused_with_examples(text):
    with pytest.raises(ValueError, match="500MB, 2GiB"):
        settings.parse_size(text)


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.01", 0.01), ("2.5 %", 0.025), ("100%", 1), (".5", 0.5)])
def test_shares_are_read_as_people_write_them(text, share):
    assert settings.parse_share(text) == share


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "1", "2", "101%", "-1%", "one", "1%%", "1.2.3"])
def test_a_bad_share_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"like 1% or 0\.01"):
        settings.parse_share(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "ten", "1" * 12, "²"])
def test_a_bad_count_is_refused(text):
    with pytest.raises(ValueError, match="like 10"):
        settings.parse_count(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.018, "18 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.1 s"),
        (0.21, "0.21 s"),
        (2.0, "2 s"),
        (9.96, "10 s"),
        (42, "42 s"),
        (59.7, "1 min"),
        (90, "1 min 30 s"),
        (300, "5 min"),
        (11_520, "3 h 12 min"),
        (3600 + 5, "1 h"),
        (172_800, "2 d"),
    ],
)
def test_durations_are_told_in_two_units_at_most(seconds, text):
    assert settings.format_duration(seconds) == text


@pytest.mark.parametrize("text", ["5m", "1h30m", "2d", "90s", "0.25s", "1d1s", "100000", "0.001s"])
def test_a_spelled_duration_is_read_back(text):
    seconds = settings.parse_duration(text)

    assert settings.parse_duration(settings.spell_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (41_000_000, "41 MB"),
        (999_600, "1.0 MB"),
        (1_300_000_000, "1.3 GB"),
        (9_960_000_000, "10 GB"),
        (10**19, "10000 PB"),
    ],
)
def test_sizes_are_told_with_two_digits(size_bytes, text):
    assert settings.format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (-30, "just now"),
        (42, "42 s ago"),
        (200, "3 min ago"),
        (7300, "2 h ago"),
        (200_000, "2 d ago"),
        (-600, "10 min ahead of this clock"),
    ],
)
def test_ages_are_told_in_one_unit(seconds, text):
    assert settings.format_age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than 1 min ago"),
        (59.9, "less than 1 min ago"),
        (60, "1 min ago"),
        (299, "4 min ago"),
        (599, "5 min ago"),
        (3599, "55 min ago"),
        (7199, "1 h ago"),
        (200_000, "2 d ago"),
        (-600, "10 min ahead of this clock"),
    ],
)
def test_coarse_ages_change_seldom(seconds, text):
    assert settings.coarse_age(seconds) == text


def test_environment_beats_traitlets_beats_default():
    """Magic argument > environment > c.IPyRescue > default."""
    found = settings.resolve(
        {"IPYRESCUE_KEEP": "7", "IPYRESCUE_LONG_CELL": ""},
        {"keep": 3, "long_cell": "2m", "max_size": "2GB", "store": None},
    )

    assert found.keep == 7
    assert found.max_size_bytes == 2_000_000_000
    assert found.long_cell_seconds == 120
    assert found.store is None


def test_defaults_hold_where_nothing_is_said():
    assert settings.resolve({}) == settings.Configuration()


def test_paths_expand_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")

    assert settings.resolve({"IPYRESCUE_STORE": "~/snapshots"}).store == Path("/home/ada/snapshots")


@pytest.mark.parametrize(
    ("environ", "configured", "origin"),
    [
        ({"IPYRESCUE_KEEP": "many"}, {}, "IPYRESCUE_KEEP"),
        ({}, {"long_cell": "often"}, "c.IPyRescue.long_cell"),
        ({"IPYRESCUE_MAX_SIZE": "-3"}, {}, "IPYRESCUE_MAX_SIZE"),
    ],
)
def test_a_bad_setting_is_named_by_where_it_was_said(environ, configured, origin):
    with pytest.raises(RescueError, match=re.escape(f"The setting {origin} ")):
        settings.resolve(environ, configured)


def test_every_knob_has_a_variable_a_help_text_and_a_reader():
    assert {knob.variable for knob in settings.KNOBS} >= {
        "IPYRESCUE_STORE",
        "IPYRESCUE_KEY_FILE",
        "IPYRESCUE_LONG_CELL",
    }
    assert all(knob.help and callable(knob.parse) for knob in settings.KNOBS)
