"""What a cell prints, as its output shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipyrescue.runs.streams import CellText, Screen, gap_sentence


def shown(*texts: str) -> str:
    screen = Screen()
    for text in texts:
        screen.add(text)
    assert screen.size == len(screen.text)
    return screen.text


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a\nb"], "a\nb"),
        (["a", "b\n", "c"], "ab\nc"),
        (["10%\r20%\r30%\n"], "30%\n"),
        (["10%", "\r2", "0%"], "20%"),
        (["long line\rshort"], "shortline"),
        (["done\r\nnext"], "done\nnext"),
        (["done\r", "\nnext"], "done\nnext"),
        (["abc\b\bX"], "aXc"),
        (["a\n\b\bb"], "a\nb"),
        (["over\rwr\ntail"], "wrer\ntail"),
        (["first\nsecond\rS"], "first\nSecond"),
        ([""], ""),
    ],
)
def test_a_carriage_return_and_a_backspace_overwrite_as_in_jupyterlab(texts: list[str], expected: str) -> None:
    assert shown(*texts) == expected


@given(st.lists(st.text("ab\n\r\b", max_size=8), max_size=8))
def test_how_text_is_cut_into_messages_changes_nothing(texts: list[str]) -> None:
    assert shown(*texts) == shown("".join(texts))


def test_a_bar_of_a_night_is_one_line() -> None:
    screen = Screen()
    for step in range(50_000):
        screen.add(f"\r{step:6d}/50000")
    assert screen.text == " 49999/50000"


def printed(*pairs: tuple[str, str], limit: int = 1000) -> tuple[list[dict[str, str]], list[int]]:
    outputs: list[dict[str, str]] = []
    removed: list[int] = []
    text = CellText("the log", removed.append, limit)
    for name, said in pairs:
        if name == "plot":
            outputs.append({"output_type": "display_data", "name": "plot"})
        else:
            text.add(outputs, name, said, dict)
    text.settle()
    return outputs, removed


def test_text_of_one_name_that_follows_itself_is_one_output() -> None:
    outputs, _ = printed(
        ("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "!"), ("stdout", "c"), ("plot", ""), ("stdout", "d")
    )

    assert [(one["name"], one.get("text")) for one in outputs] == [
        ("stdout", "a\nb\n"),
        ("stderr", "!"),
        ("stdout", "c"),
        ("plot", None),
        ("stdout", "d"),
    ]


def test_of_too_much_text_the_beginning_and_the_end_stay() -> None:
    lines = [f"line {number:5d}\n" for number in range(1000)]

    outputs, removed = printed(*(("stdout", line) for line in lines))

    first, gap, last = (one["text"] for one in outputs)
    assert removed == []
    assert "".join(lines).startswith(first)
    assert "".join(lines).endswith(last)
    assert len(first) + len(last) <= 1050
    assert gap == gap_sentence(11_000 - len(first) - len(last), "the log")


def test_outputs_between_which_text_is_left_out_keep_their_places_known() -> None:
    pairs = [
        pair for number in range(200) for pair in (("stdout", f"out {number:5d}\n"), ("stderr", f"err {number:5d}\n"))
    ]

    outputs, removed = printed(*pairs[:300], ("plot", ""), *pairs[300:])

    text = "".join(one.get("text", "") for one in outputs)
    assert [one["name"] for one in outputs].count("plot") == 1
    assert text.startswith("out     0\nerr     0\n")
    assert text.endswith("out   199\nerr   199\n")
    assert len(text) < 1200
    assert removed
    assert len(outputs) < 110
