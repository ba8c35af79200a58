"""A kernel life over a store in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from namespaces import Life, open_store


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(open_store(tmp_path / ".ipyrescue"))
