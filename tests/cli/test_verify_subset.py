"""`ipyrescue verify --read-data=1/7`: a part of the packs, and all of them after as many turns."""

import random

import pytest

from ipyrescue.cli.exits import Exit
from ipyrescue.cli.subsets import PackSubset, parse
from tests.cli.test_verbs import damage_data, run, run_json


def test_turns_read_every_pack_once():
    packs = {f"{number * 2654435761 % 2**64:016x}": 7 for number in range(100)}
    parts = [parse(f"{turn}/7").of(packs) for turn in range(1, 8)]

    assert frozenset.union(*parts) == packs.keys()
    assert sum(map(len, parts)) == len(packs)


@pytest.mark.parametrize("lengths", [[1000] * 25, [10**6, *range(1, 40)]], ids=["alike", "one large"])
def test_a_percentage_draws_so_many_bytes_anew_each_time(lengths):
    random.seed(8)
    packs = {f"{number:016x}": length for number, length in enumerate(lengths)}
    draws = [parse("10%").of(packs) for _ in range(500)]

    assert sum(packs[pack] for drawn in draws for pack in drawn) / 500 == pytest.approx(sum(lengths) / 10, rel=0.25)
    assert frozenset.union(*draws) == packs.keys()
    assert len(set(draws)) > 20


def test_a_percentage_is_never_nothing_and_a_hundred_is_all():
    packs = {f"{number:016x}": 7 for number in range(25)}

    assert [len(parse("0.0001%").of(packs)) for _ in range(9)] == [1] * 9
    assert parse("0.1%").of({"a" * 16: 10**9}) == {"a" * 16}
    assert parse("100%").of(packs) == packs.keys()
    assert parse("10%").of({}) == set()
    assert parse("12.5%") == PackSubset(share=0.125)


@pytest.mark.parametrize("text", ["0%", "101%", "0/7", "8/7", "1/0", "x", "", "10"])
def test_what_is_no_part_is_a_wrong_command_line(make, text):
    result = run("verify", f"--read-data={text}")

    assert result.exit_code == Exit.USAGE
    assert "write 10% or 1/7" in result.stderr


def test_damage_is_found_in_the_turn_of_its_pack(store, make):
    make(data=b"whole" * 1000)
    damaged = make()
    turn = int(damaged.blobs[1].pack, 16) % 7 + 1
    damage_data(store, damaged)

    codes = {number: run("verify", f"--read-data={number}/7").exit_code for number in range(1, 8)}
    result, document = run_json("verify", f"--read-data={turn}/7")

    assert codes == {number: Exit.DAMAGED if number == turn else Exit.OK for number in range(1, 8)}
    assert (document["read_data"], document["read_data_subset"]) == (False, f"{turn}/7")
    assert [s["damage"][0]["names"] for s in document["snapshots"] if s["state"] == "damaged"] == [["weights"]]
    assert result.exit_code == Exit.DAMAGED
    assert run("verify", damaged.id, "--read-data=100%").exit_code == Exit.DAMAGED
    assert document["read_bytes"] >= 5000
    assert run("verify", "--read-data", damaged.id).exit_code == Exit.DAMAGED


def test_what_was_read_in_part_is_not_called_whole(make):
    pack, turns = make().blobs[1].pack, 999_999_999
    make()

    told = run("verify", f"--read-data={int(pack, 16) % turns + 1}/{turns}").stderr

    assert told == "2 snapshots: no damage found in what was read; 1 of 2 packs read (5.0 kB).\n"
    assert run("verify", "--read-data=100%").stderr == "2 snapshots are whole; 2 of 2 packs read (10 kB).\n"
