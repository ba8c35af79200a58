"""The store with one mistake in it, ten times over: a test that is named must notice each.

A mutant is a line of the package changed in a copy of it. If its test passes there, either the line is of no use or the
tests do not tell; both are failures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torture.outcome import Outcome

ROOT = Path(__file__).parents[2]
_WORKERS = 2


@dataclass(frozen=True)
class Mutant:
    """*old*, which stands once in *path*, becomes *new*; *killer* is the test that fails then."""

    name: str
    path: str
    old: str
    new: str
    killer: str


_ATOMIC, _STORE, _TORTURE = "tests/store/test_atomic.py", "tests/store/test_store.py", "tests/torture/test_torture.py"

MUTANTS = (
    Mutant(
        "a file gets its name before its bytes are durable",
        "store/atomic.py",
        "        sync_file(self.fd)\n        self._close()\n        _name(self.path, final)\n",
        "        self._close()\n        _name(self.path, final)\n",
        f"{_TORTURE}::test_no_power_cut_loses_what_was_saved",
    ),
    Mutant(
        "a name is not made durable",
        "store/atomic.py",
        "        _name(self.path, final)\n        sync_folder(final.parent)\n",
        "        _name(self.path, final)\n",
        f"{_TORTURE}::test_no_power_cut_loses_what_was_saved",
    ),
    Mutant(
        "the name comes before the fsync",
        "store/atomic.py",
        "        sync_file(self.fd)\n        self._close()\n        _name(self.path, final)\n",
        "        _name(self.path, final)\n        sync_file(self.fd)\n        self._close()\n",
        f"{_TORTURE}::test_no_power_cut_loses_what_was_saved",
    ),
    Mutant(
        "nobody waits for the last writes",
        "store/pack.py",
        "        self._flusher.wait()\n        self._draft.publish(self._final)\n",
        "        self._draft.publish(self._final)\n",
        "tests/store/test_pack.py::test_a_failed_put_leaves_nothing",
    ),
    Mutant(
        "an fsync that failed is tried again",
        "store/atomic.py",
        "        os.fsync(fd)\n\n\ndef sync_folder",
        "        with contextlib.suppress(OSError):\n            os.fsync(fd)\n"
        "        os.fsync(fd)\n\n\ndef sync_folder",
        f"{_ATOMIC}::test_a_failed_call_leaves_nothing_and_is_not_repeated",
    ),
    Mutant(
        "an error of close is not heard",
        "store/atomic.py",
        "            os.close(self.fd)\n",
        "            close_read(self.fd)\n",
        f"{_ATOMIC}::test_a_failed_call_leaves_nothing_and_is_not_repeated",
    ),
    Mutant(
        "the draft of a snapshot that failed stays",
        "store/atomic.py",
        "        with contextlib.suppress(OSError):\n            os.unlink(self.path)\n",
        "",
        f"{_TORTURE}::test_errors_of_the_system_cost_one_snapshot",
    ),
    Mutant(
        "a short write counts as a whole one",
        "store/atomic.py",
        "        view = view[written:]\n",
        "        view = view[len(view) :]\n",
        f"{_ATOMIC}::test_publish_writes_all_and_leaves_no_draft",
    ),
    Mutant(
        "a file that is there is overwritten",
        "store/atomic.py",
        "        os.link(path, final)\n",
        "        os.rename(path, final)\n        return\n",
        f"{_ATOMIC}::test_publish_never_overwrites",
    ),
    Mutant(
        "a signature is not checked",
        "store/signing.py",
        "    return fits and signed.fingerprint == key.fingerprint\n",
        "    return signed.fingerprint == key.fingerprint\n",
        f"{_TORTURE}::test_damage_is_found_before_anything_is_unpickled",
    ),
    Mutant(
        "the name is not signed",
        "store/signing.py",
        'file_name.encode("ascii"), body))',
        "body))",
        "tests/store/test_signing.py::test_a_signature_fits_one_message_only",
    ),
    Mutant(
        "a blob's hash is not checked",
        "store/blobs.py",
        "    if blake3(view).hexdigest() != blob.hash:\n",
        "    if False:\n",
        f"{_TORTURE}::test_damage_is_found_before_anything_is_unpickled",
    ),
    Mutant(
        "rotten bytes are used again",
        "store/blobs.py",
        "and _good(blob, self._reader, self._proofs)",
        "",
        f"{_STORE}::test_rotten_bytes_are_not_used_again",
    ),
    Mutant(
        "a writer takes no lock",
        "store/lock.py",
        "        if fcntl is None or not _acquire_behind_gate(fd, fcntl.LOCK_SH, root, timeout_seconds):\n",
        "        if True:\n",
        "tests/store/test_prune.py::test_prune_keeps_out_of_a_writers_way",
    ),
    Mutant(
        "prune goes on without a manifest that it cannot read",
        "store/prune.py",
        "    return [*ours, *(_foreign(store, item.name, item.error) for item in others)]\n",
        "    return ours\n",
        "tests/store/test_prune.py::test_one_unreadable_manifest_stops_it",
    ),
    Mutant(
        "a link is followed",
        "store/atomic.py",
        'getattr(os, "O_NOFOLLOW", 0)',
        "0",
        f"{_ATOMIC}::test_only_plain_files_are_read",
    ),
)


def run(cases: int) -> Outcome:
    """The first *cases* mutants; each test is first seen to pass where nothing is changed."""
    outcome = Outcome()
    chosen = MUTANTS[:cases]
    with tempfile.TemporaryDirectory(prefix="ipyrescue-mutants-") as folder, ThreadPoolExecutor(_WORKERS) as pool:
        healthy = pool.submit(_pytest, _copy(Path(folder), "healthy"), sorted({mutant.killer for mutant in chosen}))
        verdicts = list(pool.map(lambda mutant: _survives(Path(folder), mutant), chosen))
        if healthy.result():
            outcome.failures.append("the control: a test fails where nothing was changed")
    for mutant, survived in zip(chosen, verdicts, strict=True):
        outcome.count(mutant.name, [f"{mutant.killer} does not notice"] * survived)
    outcome.note = "each killed by a test that is named in `tests/torture/mutants.py`"
    return outcome


def mutated(mutant: Mutant, source: str) -> str:
    """The text of its file with the mistake in it. Raises ValueError where the place is not found just once."""
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.path} has its place {source.count(mutant.old)} times")
    return source.replace(mutant.old, mutant.new)


def _survives(folder: Path, mutant: Mutant) -> bool:
    copy = _copy(folder, str(MUTANTS.index(mutant)))
    path = copy / "ipyrescue" / mutant.path
    path.write_text(mutated(mutant, path.read_text()))
    return _pytest(copy, [mutant.killer]) == 0


def _copy(folder: Path, name: str) -> Path:
    """What the tests of the store need of the checkout."""
    copy = folder / name
    for part in ("ipyrescue", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "old_snapshots"))
    for file in ("pyproject.toml", "FORMAT.md"):
        shutil.copy(ROOT / file, copy)
    return copy


def _pytest(copy: Path, tests: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode
