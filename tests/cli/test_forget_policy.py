"""`ipyrescue forget --keep-...`: restic's words, under the store's own promises."""

import os
from datetime import datetime, timedelta, timezone

import pytest

from ipyrescue.cli.exits import Exit
from ipyrescue.store import layout, lives
from tests.cli.test_verbs import damage_data, foreign, run, run_json
from tests.store.test_lives import life_of

NOON = datetime(2026, 11, 20, 12, 30, tzinfo=timezone.utc)


def at(hours_ago, minute=0):
    return (NOON - timedelta(hours=hours_ago, minutes=minute)).isoformat()


def forgotten(*arguments):
    _, document = run_json("forget", *arguments)
    return [s["id"] for s in document["forgotten"]]


def reasons(*arguments):
    _, document = run_json("forget", *arguments)
    return {s["id"]: s["kept_because"] for s in document["kept"]}


def test_the_last_so_many_of_each_notebook_stay(store, make):
    ours = [make() for _ in range(5)]
    other = make(notebook="b.ipynb")

    assert forgotten("--keep-last", 3, "--dry-run") == [ours[1].id, ours[0].id]
    assert len(store.snapshots()) == 6

    result = run("forget", "--keep-last", 3)

    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ID", "NOTEBOOK", "MADE", "LABEL", "SIZE", "STAYS", "BECAUSE"]
    assert [line.split()[-1] for line in lines[-3:-1]] == ["(goes)", "(goes)"]
    assert lines[-1] == "Forgot 2 of 6, kept 4"
    assert result.stderr == "8.2 kB can be freed now: ipyrescue prune\n"
    assert {s.id for s in store.snapshots()} == {other.id, *(s.id for s in ours[2:])}
    assert len(list(layout.packs(store.root).iterdir())) == 6


def test_prune_frees_at_once(store, make):
    for _ in range(4):
        make()

    result = run("forget", "--keep-last", 2, "--prune")

    assert result.stdout.splitlines()[-2:] == ["Forgot 2 of 4, kept 2", "Freed 8.2 kB"]
    assert len(list(layout.packs(store.root).iterdir())) == 3


def test_the_newest_of_each_hour_and_day_that_have_one(make):
    """As restic counts: hours without a snapshot do not use a place up."""
    old = make(created=at(49))
    make(created=at(25, 10))
    day_before = make(created=at(25))
    make(created=at(5, 20))
    five_ago = make(created=at(5))
    make(created=at(0, 1))
    newest = make(created=at(0))

    found = reasons("--keep-hourly", 3, "--keep-daily", 3, "--dry-run")

    by_time = {s.id: found[s.id][:2] for s in (newest, five_ago, day_before, old)}
    promised = "fewer than two newer ones were verified"
    assert set(found) - set(by_time) == {key for key, why in found.items() if why == [promised]}
    assert by_time == {
        newest.id: ["hourly", "daily"],
        five_ago.id: ["hourly"],
        day_before.id: ["hourly", "daily"],
        old.id: ["daily"],
    }


def test_what_is_promised_stays_whatever_is_said(store, make):
    """Labels, pins, and the newest good one of a kernel that may still be restored."""
    labelled, pinned = make(label="warm"), make()
    store.pin(pinned.id)
    dead = make(incarnation="d" * 16)
    lives.write(store.root, life_of(2**22 + 1, incarnation="d" * 16, notebook="train.ipynb"))
    plain, two, one = make(), make(), make()

    found = reasons("--keep-label", "--dry-run")

    assert plain.id not in found
    assert found[labelled.id] == ["label"]
    assert found[pinned.id] == ["pinned"]
    assert "newest good one" in found[one.id]
    assert found[two.id] == ["fewer than two newer ones were verified"]
    assert found[dead.id] == ["newest good one of a kernel not restored yet"]
    assert list(found) == [s.id for s in (one, two, dead, pinned, labelled)]


def test_nothing_goes_unless_two_newer_ones_are_whole(store, make):
    """The newest is damaged, so it counts for nothing; the one before the last whole two may go."""
    oldest, _, second, newest = make(), make(), make(), make()
    damage_data(store, newest)

    assert forgotten("--keep-last", 1, "--dry-run") == [oldest.id]
    damage_data(store, second)
    assert forgotten("--keep-last", 1, "--dry-run") == []
    assert "fewer than two newer ones were verified" in reasons("--keep-last", 1, "--dry-run")[oldest.id]


def test_only_the_notebook_that_is_named(make):
    ours = [make(notebook="a.ipynb") for _ in range(4)]
    for _ in range(4):
        make(notebook="b.ipynb")

    assert forgotten("--keep-last", 2, "--notebook", "a.ipynb", "--dry-run") == [ours[1].id, ours[0].id]

    result = run("forget", "--keep-last", 2, "--notebook", "c.ipynb")
    assert result.exit_code == Exit.NOT_FOUND
    assert "There are snapshots of: a.ipynb, b.ipynb." in result.stderr


def test_another_keys_snapshots_are_left_alone(store, make, other_key):
    theirs = foreign(store, other_key, make)
    for _ in range(4):
        make(data=os.urandom(10))

    assert len(forgotten("--keep-last", 2)) == 2
    assert theirs.id[:8] in run("ls").stdout


@pytest.mark.parametrize("arguments", [(), ("abcd", "--keep-last", 3), ("--keep-last", -1), ("--keep-daily", "x")])
def test_either_ids_or_what_to_keep(make, arguments):
    make()

    assert run("forget", *arguments).exit_code == Exit.USAGE
