"""Every attack, one by one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from attacks import files, manifests, races, stores, table, visits
from attacks.nest import Nest, build, copied
from attacks.visits import Case

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes, sockets, SIGALRM")


def some_of(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """All of them; two of three are left to the slow tests, and to `make torture`."""
    marked = [
        pytest.param(c, id=c.name.replace(" ", "-"), marks=[pytest.mark.slow] * (n % 3 > 0))
        for n, c in enumerate(cases)
    ]
    return pytest.mark.parametrize("case", marked)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Nest:
    return build(tmp_path_factory.mktemp("template"))


@pytest.fixture
def nest(template: Nest, tmp_path: Path) -> Iterator[Nest]:
    with copied(template, tmp_path / "attacked") as nest:
        yield nest


def test_a_store_in_peace(nest: Nest) -> None:
    """The control: what follows is due to the attacks; and the canary can sing."""
    assert visits.problems(Case("none", lambda nest: None), nest) == []
    assert nest.song.exists()


@some_of(files.REPLACED)
def test_what_is_no_plain_file_does_no_harm(case: Case, nest: Nest) -> None:
    assert visits.problems(case, nest) == []


@some_of(stores.STORES)
def test_a_store_that_others_reach_is_read_and_never_written(case: Case, nest: Nest) -> None:
    assert visits.problems(case, nest) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
@some_of(stores.STORES_OF_OTHERS)
def test_a_store_of_another_user_is_read_and_never_written(case: Case, nest: Nest) -> None:
    assert visits.problems(case, nest) == []


@some_of(manifests.MANIFESTS)
def test_a_manifest_is_believed_only_as_it_was_signed(case: Case, nest: Nest) -> None:
    assert visits.problems(case, nest) == []


def test_links_that_come_and_go_lead_nowhere(nest: Nest) -> None:
    """`make torture` has more rounds."""
    assert races.race(nest, 60) == []


def test_there_are_many() -> None:
    assert len(table.CASES) >= 40
