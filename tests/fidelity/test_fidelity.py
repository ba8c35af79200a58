"""Each family through two real kernels: each case is exact or named, or its reason stands beside it; so on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from fidelity import table
from fidelity.case import FAMILIES, load
from fidelity.lives import unexpected, verdicts


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_comes_back(name: str, tmp_path: Path) -> None:
    """One kill serves all cases; those that fail are listed one a line."""
    family = load(name)

    found = verdicts(family, tmp_path)

    assert unexpected(family, found) == []
    assert table.row(family, found) in table.PAGE.read_text(encoding="utf-8"), "run make fidelity"
