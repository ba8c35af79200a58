"""Families through two real kernels: each case is exact or named, or its reason stands beside it; so on the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from fidelity import table
from fidelity.case import SESSIONS, load
from fidelity.lives import unexpected, verdicts


@pytest.mark.slow
@pytest.mark.parametrize("session", SESSIONS, ids="-".join)
def test_families_come_back(session: tuple[str, ...], tmp_path: Path) -> None:
    """One kill serves all cases; those that fail are listed one a line."""
    families = [load(name) for name in session]

    found = verdicts(families, tmp_path)

    assert [line for family in families for line in unexpected(family, found[family.name])] == []
    page, readme = (path.read_text(encoding="utf-8") for path in (table.PAGE, table.README))
    for family in families:
        assert table.row(family, found[family.name]) in page, "run make fidelity"
        assert table.short_row(family, found[family.name]) in readme, "run make fidelity"
