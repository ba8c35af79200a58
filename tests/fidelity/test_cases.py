"""The cases themselves: well-formed, and each with names of its own, for a family shares one namespace."""

from __future__ import annotations

import collections

import pytest

from fidelity.case import FAMILIES, bound_names, load


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_cases_of_a_family_bind_the_same_name(family: str) -> None:
    """Imports aside, which may be repeated as in any notebook."""
    found = load(family)
    owners = collections.defaultdict(list)
    for case in found.cases:
        for name in bound_names(case.setup) - imported(case.setup) - {"_"}:
            owners[name].append(case.name)

    assert {name: cases for name, cases in owners.items() if len(cases) > 1} == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_case_has_a_name_and_says_something(family: str) -> None:
    cases = load(family).cases

    assert len({case.name for case in cases}) == len(cases)
    assert all(case.holds or case.same or case.named for case in cases)


def imported(source: str) -> set[str]:
    """The names that a cell imports."""
    import symtable

    return {s.get_name() for s in symtable.symtable(source, "<case>", "exec").get_symbols() if s.is_imported()}
