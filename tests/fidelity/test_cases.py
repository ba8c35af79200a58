"""The cases themselves: well-formed, and each with names of its own, for families share a namespace."""

from __future__ import annotations

import collections

import pytest

from fidelity.case import FAMILIES, SESSIONS, bound_names, load


@pytest.mark.parametrize("session", SESSIONS, ids="-".join)
def test_no_two_cases_of_a_session_bind_the_same_name(session: tuple[str, ...]) -> None:
    """Imports may be repeated as in any notebook, and no case takes the name of one."""
    families = [load(name) for name in session]
    cells = [*((f"{f.name}: {c.name}", c.setup) for f in families for c in f.cases)]
    imports = set().union(*(imported(source) for _, source in cells), *(imported(f.prelude) for f in families))
    owners = collections.defaultdict(list)
    for case, source in cells:
        for name in bound_names(source) - imported(source) - {"_"}:
            owners[name].append(case)

    assert {name: cases for name, cases in owners.items() if len(cases) > 1} == {}
    assert sorted(imports & owners.keys()) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_case_has_a_name_and_says_something(family: str) -> None:
    cases = load(family).cases

    assert len({case.name for case in cases}) == len(cases)
    assert all(case.holds or case.same or case.named for case in cases)


def imported(source: str) -> set[str]:
    """The names that a cell imports."""
    import symtable

    return {s.get_name() for s in symtable.symtable(source, "<case>", "exec").get_symbols() if s.is_imported()}
