import pytest

from ipyrescue.training import progress


@pytest.fixture(autouse=True)
def _nothing_to_resume():
    """What a test leaves in progress is nothing to the next."""
    progress.resume({})
    yield
    progress.resume({})
