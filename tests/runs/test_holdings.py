"""What a run is told of its snapshots: those that are there, or why that cannot be told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaces import Life, open_store
from notebook_runs import Run

from ipyrescue.errors import StoreError, UntrustedError
from ipyrescue.runs import record as records
from ipyrescue.runs import runner
from ipyrescue.runs.holdings import Holdings
from ipyrescue.runs.record import Done, Options, Record
from ipyrescue.store import signing


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys" / "key"
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(path))
    signing.load_key(create=True)
    return path


def record_of(life: Life, *snapshots: Any) -> Record:
    done = tuple(Done(n, "c", one.id, one.sequence, records.now()) for n, one in enumerate(snapshots, 1))
    lives = (life.incarnation,)
    return Record("train", "notebook", "", "", "", Options(), records.now(), incarnations=lives, done=done)


def test_a_store_that_cannot_be_read_is_never_taken_for_one_that_holds_nothing(
    store_root: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(open_store(store_root))
    life.run("x = 1")
    snapshot = life.checkpoint()
    record, holdings = record_of(life, snapshot), Holdings(store_root, life.notebook)
    assert [one.id for one in holdings.saved(record)] == [snapshot.id]
    assert holdings.newest_sequence() == snapshot.sequence

    monkeypatch.setenv("IPYRESCUE_KEY_FILE", "elsewhere")
    with pytest.raises(UntrustedError, match=r"There is no key at .*elsewhere"):
        holdings.saved(record)
    assert holdings.saved(record_of(life)) == []  # a new run in a store that came with the notebook
    assert holdings.newest_sequence() == snapshot.sequence

    key.write_bytes(os.urandom(32))
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(key))
    with pytest.raises(UntrustedError, match="signed with another key"):
        holdings.saved(record)
    assert holdings.saved(record_of(life)) == []

    (store_root / "format.json").write_text("{")
    for ask in (lambda: holdings.saved(record), holdings.newest_sequence):
        with pytest.raises(StoreError):
            ask()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def begin(*sources: str) -> Run:
        made.append(Run(tmp_path, sources))
        return made[-1]

    yield begin
    for one in made:
        one.clean_up()


@pytest.mark.slow
def test_a_key_that_is_lost_while_a_run_goes_on_fails_it_and_no_cell_runs_twice(
    run: Callable[..., Run], tmp_path: Path, key: Path
) -> None:
    one = run(
        "print('one', file=open('ran', 'a'))",
        f"import os\nos.rename({str(key)!r}, 'mine')\nos.kill(os.getpid(), 9)",
    )

    assert one.here() == runner.FAILED

    assert "key" in (one.record.reason or "")
    assert (tmp_path / "ran").read_text() == "one\n"
    assert "runs again" not in one.log
