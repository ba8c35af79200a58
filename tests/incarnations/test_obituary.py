"""What is told about a dead kernel, in a few lines and in a toast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipyrescue.incarnations.deaths import Death
from ipyrescue.incarnations.obituary import (
    TOAST_CHARACTERS,
    describe,
    describe_alive,
    restore_line,
    toast,
    what_is_left,
)
from ipyrescue.incarnations.offer import Offer
from ipyrescue.manifest import Settings, Variable
from ipyrescue.store.lives import Cause
from tests.incarnations.samples import KILLED, a_death, a_life
from tests.kernel.samples import NOW, iso, snapshot

OUT_OF_MEMORY = Cause("out_of_memory", "was killed", "out of memory, 31.7 of 32 GB")
TORN = snapshot(id="d" * 16, cut="interrupted", reason="ValueError: bad\x1b[31m", created=iso(60))


def an_offer(*, death=None, cause=KILLED, **fields):
    known = {"snapshot": snapshot(created=iso(131))}
    return Offer(death or a_death(), cause, **(known | fields))


# --- a few lines -----------------------------------------------------------------------------------------------


def test_a_death_tells_what_why_when_and_where_what_is_saved_and_what_to_type():
    told = describe(an_offer(cause=OUT_OF_MEMORY), NOW).splitlines()

    assert told[0].startswith("The last kernel of train.ipynb was killed (out of memory, 31.7 of 32 GB) at about ")
    assert told[0].endswith("(20 s ago) while cell [9] had been running for 3 h 12 min (for epoch in range(100):).")
    assert told[1:] == [
        "Its newest snapshot, 3f9c12ab, was made 1 min 51 s before: model, x, 1.3 GB.",
        "Bring it back: %restore_vars    Look first: %restore_vars --dry-run",
    ]


def test_where_it_stood_is_told():
    cause = Cause(
        "segmentation_fault", "crashed", "segmentation fault", place=("conv2d (functional.py:1)", "f (a.py:2)")
    )

    assert describe(an_offer(cause=cause), NOW).splitlines()[1] == "It stood in conv2d (functional.py:1) < f (a.py:2)."


def test_a_death_that_a_server_saw_has_a_moment():
    death = a_death(died_at=iso(20))

    assert " at about " not in describe(an_offer(death=death), NOW)


def test_a_death_in_the_middle_of_a_restore_says_so():
    told = describe(an_offer(death=a_death(restoring="3" * 16, cell_running=False)), NOW)

    assert told.splitlines()[0].endswith(" while no cell was running, in the middle of a restore.")


def test_a_note_says_why_not_the_newest_is_proposed():
    told = what_is_left(an_offer(note="The kernel died in a restore."), NOW)

    assert told[0] == "The kernel died in a restore."
    assert told[1].startswith("Snapshot, 3f9c12ab, was made 1 min 51 s before")


def test_a_snapshot_from_before_the_dead_kernel_is_called_so():
    (told,) = what_is_left(an_offer(snapshot=snapshot(incarnation="c" * 16)), NOW)

    assert told.startswith("The newest snapshot from before it, 3f9c12ab, was made 3 min before")


def test_a_newer_interrupted_snapshot_is_named_with_the_line_that_takes_it():
    told = describe(an_offer(interrupted=TORN), NOW)

    assert r"A newer one, dddddddd, was cut in the middle of a step (ValueError: bad\x1b[31m) 1 min ago" in told
    assert "to take it: %restore_vars from=dddddddd" in told


def test_a_death_with_only_an_interrupted_snapshot_offers_no_plain_restore():
    told = describe(an_offer(snapshot=None, interrupted=TORN), NOW)

    assert "Its only snapshot" in told
    assert "Bring it back" not in told


def test_a_death_without_a_snapshot_says_how_to_be_safe_next_time():
    told = describe(an_offer(snapshot=None), NOW)

    assert told.endswith("It left no snapshot. So that the next one does: %checkpoint_vars every=5m")


def test_tagged_names_come_first_and_the_rest_is_counted():
    names = [*"abcdefgh", "model", "optimizer_with_a_very_long_name"]
    known = snapshot(
        variables=tuple(Variable(name, "int", 1, None, None) for name in names),
        settings=Settings(tagged=("optimizer_with_a_very_long_name", "gone", "model")),
    )

    (told,) = what_is_left(an_offer(snapshot=known), NOW)

    assert told.endswith(": optimizer_with_a_..., model and 8 more, 1.3 GB.")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "%restore_vars"),
        ({"snapshot": None}, "%restore_vars --list"),
        ({"device": "cpu"}, "%restore_vars from=3f9c12ab device=cpu"),
        ({"renamed": True}, "%restore_vars from=3f9c12ab"),
        ({"death": a_death(kind="console", notebook="console:ipython:.")}, "%restore_vars from=3f9c12ab"),
    ],
)
def test_the_line_to_type(fields, line):
    assert restore_line(an_offer(**fields)) == line


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cell_source": "x" * 200}, "x" * 57 + "..."),
        ({"cell_source": "\x1b[2Jx\ny"}, "(\\x1b[2Jx)."),
        ({"cell_started": "nonsense"}, "while cell [9] was running"),
        ({"cell": None}, "while a cell had"),
        ({"kind": "console"}, "The last kernel of this console was killed"),
        ({"notebook": "a{0}{b}\x1b[2J.ipynb"}, "The last kernel of a{0}{b}\\x1b[2J.ipynb was"),
        ({"died_at": "0001-01-01T00:00:00+14:00"}, " at an unknown time"),
        ({"died_at": "9999-12-31T23:59:59-14:00"}, "an unknown time"),
    ],
)
def test_odd_records_are_told_without_harm(fields, told):
    assert told in describe(an_offer(death=a_death(**fields), snapshot=None), NOW)


@pytest.mark.parametrize(
    ("last_seen", "told"), [(0.0, "at an unknown time"), (NOW - 200_000, "(2 d ago)"), (1e18, "an unknown time")]
)
def test_odd_moments_are_told_without_harm(last_seen, told):
    assert told in describe(an_offer(death=Death(a_life(), last_seen)), NOW)


def test_a_cause_from_a_record_cannot_write_to_the_terminal():
    cause = Cause("killed", "was\x1b[2J", "out\nof\u202e memory" * 1000, place=("\x1b[31m" * 500,) * 50)

    told = describe(an_offer(cause=cause), NOW)

    assert len(told.splitlines()) == 4
    assert all(line.isprintable() and len(line) < 1200 for line in told.splitlines())


# --- a toast ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        (
            {"cause": OUT_OF_MEMORY},
            [
                "train.ipynb: kernel was killed (out of memory, 31.7 of 32 GB) 20 s ago in cell [9].",
                "Snapshot 1 min 51 s before: model, x, 1.3 GB.",
            ],
        ),
        (
            {"snapshot": None},
            [
                "train.ipynb: kernel was killed (SIGKILL, as by kil...) 20 s ago in cell [9].",
                "No snapshot there. For the next time: %checkpoint_vars every=5m",
            ],
        ),
        (
            {"death": a_death(notebook="a" * 200 + ".ipynb", cell_running=False)},
            [
                "a" * 37 + "...: kernel was killed (SIGKILL, as by kill -9) 20 s ago.",
                "Snapshot 1 min 51 s before: model, x, 1.3 GB.",
            ],
        ),
        ({"snapshot": None, "interrupted": TORN}, [None, "Only a snapshot in mid-step is left: dddddddd."]),
        ({"snapshot": None, "note": "It died."}, [None, "No snapshot is proposed: each one killed the kernel."]),
        (
            {"death": a_death(notebook="{x}{.ipynb"), "cause": OUT_OF_MEMORY},
            ["{x}{.ipynb: kernel was killed (out of memory, 31.7 of 32 GB) 20 s ago in cell [9].", None],
        ),
    ],
)
def test_a_toast_says_what_died_and_what_is_saved(fields, lines):
    told = toast(an_offer(**fields), NOW).splitlines()

    assert len(told) == len(lines)
    for said, expected in zip(told, lines, strict=True):
        assert expected is None or said == expected


texts = st.text(max_size=300)
deaths_ = st.builds(
    Death,
    st.builds(
        lambda **fields: a_life(**fields),
        notebook=texts,
        kind=st.sampled_from(["notebook", "console"]),
        cell=st.none() | st.integers(-(1 << 63), 1 << 63),
        cell_running=st.booleans(),
        cell_source=st.none() | texts,
        died_at=st.none() | texts | st.datetimes().map(lambda moment: moment.isoformat()),
        restoring=st.none() | texts,
    ),
    st.floats(-1e18, 1e18),
)
snapshots_ = st.none() | st.builds(
    lambda names, tagged, **fields: snapshot(
        variables=tuple(Variable(name, "int", 1, None, None) for name in names),
        settings=Settings(tagged=tuple(tagged)),
        **fields,
    ),
    names=st.lists(texts, max_size=4),
    tagged=st.lists(texts, max_size=4),
    created=texts | st.datetimes().map(lambda moment: moment.isoformat()),
    reason=st.none() | texts,
)
causes = st.builds(Cause, texts, texts, texts, st.booleans(), st.lists(texts, max_size=9).map(tuple))
offers = st.builds(
    Offer, deaths_, causes, snapshots_, st.sampled_from([None, "cpu"]), snapshots_, st.none() | st.just("A note."),
    st.booleans(),
)  # fmt: skip


@given(offers)
def test_a_toast_is_never_longer_than_jupyterlab_shows(offer):
    told = toast(offer, NOW)

    assert len(told) <= TOAST_CHARACTERS
    assert told.count("\n") <= 1
    assert all(line.isprintable() for line in told.split("\n"))


@given(offers)
def test_whatever_a_record_says_is_told_in_lines_that_are_safe_to_show(offer):
    told = describe(offer, NOW)

    assert all(line.isprintable() for line in told.split("\n"))
    assert len(told.split("\n")) <= 6


# --- the old kernel lives --------------------------------------------------------------------------------------


def test_a_kernel_that_still_lives_is_named_by_its_pid():
    told = describe_alive(a_life())

    assert "Another kernel of train.ipynb is still running on lab (pid 4711, busy in cell [9])." in told
    assert told.endswith("%restore_vars --list")


def test_a_kernel_that_still_lives_can_be_gone_on_with():
    told = describe_alive(a_life(kernel_id="5f0c\x1b", cell_running=False))

    assert "(pid 4711). Nothing is lost" in told
    assert told.endswith(r"jupyter console --existing kernel-5f0c\x1b.json")


def test_what_cannot_be_read_is_not_called_missing():
    """Another key, or damage: to say that there is nothing would make people give up what is there."""
    offer = an_offer(snapshot=None, unreadable=2)

    assert "2 snapshots there cannot be read" in describe(offer, NOW)
    assert "left no snapshot" not in describe(offer, NOW)
    assert toast(offer, NOW).endswith("2 snapshots there cannot be read.")
