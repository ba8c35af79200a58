"""What is kept of an exception with the snapshot after it."""

import pytest

from ipyrescue.kernel.occasions import occasion_of


class Mute(Exception):  # noqa: N818 - not an error of ours
    def __str__(self):
        raise RuntimeError("not even that")


def raised(error):
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("first\nlast"), "last"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RuntimeError("api_key=sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD"), "RuntimeError"),
        (Mute(), "Mute: <exception str() failed>"),
    ],
)
def test_the_reason_is_the_last_line_and_shows_no_secret(error, reason):
    occasion = occasion_of("exception", raised(error))

    assert occasion.reason.endswith(reason)
    assert (occasion.cut, occasion.trigger) == ("interrupted", "exception")
    assert "sk-proj" not in occasion.traceback
    assert occasion.traceback.splitlines()[1].endswith("in raised")


def test_a_cell_that_raised_nothing_is_consistent():
    assert occasion_of("every", None).cut == "cell_end"
