"""`ipyrescue verify --read-data=1/7`: a part of the packs, and all of them after as many turns."""

import pytest

from ipyrescue.cli.exits import Exit
from ipyrescue.cli.subsets import PackSubset, parse
from tests.cli.test_verbs import damage_data, run, run_json


def test_turns_read_every_pack_once():
    packs = {f"{number * 2654435761 % 2**64:016x}" for number in range(100)}
    parts = [parse(f"{turn}/7").of(packs) for turn in range(1, 8)]

    assert frozenset.union(*parts) == packs
    assert sum(map(len, parts)) == len(packs)


def test_a_percentage_is_the_same_part_each_time_and_never_nothing():
    packs = {f"{number:016x}" for number in range(25)}

    assert parse("10%").of(packs) == parse("10%").of(packs) == set(sorted(packs)[:3])
    assert len(parse("0.1%").of(packs)) == 1
    assert parse("100%").of(packs) == packs
    assert parse("100%").of(set()) == set()
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
    assert "1 of 2 packs read" in run("verify", "--read-data=50%").stderr
    assert run("verify", "--read-data", damaged.id).exit_code == Exit.DAMAGED
