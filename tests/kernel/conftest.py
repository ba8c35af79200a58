"""Real kernels over a notebook in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernels import Kernel, kernels


@pytest.fixture
def make_kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    """Start a kernel of `train.ipynb`, or of the notebook that is named."""
    with kernels(tmp_path) as make:
        yield make
