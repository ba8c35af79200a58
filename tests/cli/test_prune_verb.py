"""`ipyrescue prune`: what it frees, what it says, and when it refuses."""

import os
import re
import sys

import pytest

from ipyrescue.cli import prune as verb
from ipyrescue.cli.exits import Exit
from ipyrescue.store import filesystems, layout, lives
from ipyrescue.store.filesystems import FileSystem
from tests.cli.test_verbs import damage_manifest, run, run_json


def test_prune_frees_whole_packs_and_unfinished_work(store, make):
    _, gone = make(), make()
    store.forget(gone.id)
    (layout.temporary(store.root) / "1-abc").write_bytes(b"x" * 4096)

    dry, promised = run_json("prune", "--dry-run")
    result, document = run_json("prune")

    assert dry.exit_code == result.exit_code == Exit.OK
    assert list(document) == ["store", "dry_run", "freed_bytes", "packs_removed", "packs_repacked", "packs_left"]
    assert {**promised, "dry_run": False} == document
    assert (document["packs_removed"], document["freed_bytes"]) == (1, 2 * 4096 + 4096)
    assert run("prune").stdout == "Freed 0 B: 0 whole packs\n"


@pytest.mark.skipif(sys.platform != "linux", reason="holes are punched by fallocate(2)")
def test_prune_frees_dead_bytes_of_living_packs_that_are_mostly_dead(store, make):
    """The first pack has the stream that both snapshots share, and the dead data of one."""
    gone, kept = make(data=os.urandom(100_000)), make()
    store.forget(gone.id)

    assert run("prune", "--no-repack").stdout == "Freed 0 B: 0 whole packs\n"
    assert run("prune", "--max-unused", "99%").stdout == "Freed 0 B: 0 whole packs\n"
    dry, promised = run("prune", "--dry-run").stdout, run_json("stats")[1]["prune_frees_bytes"]
    assert re.fullmatch(r"Would free 10\d kB: 0 whole packs, dead bytes of 1 more\n", dry)
    assert run("prune", "--repack", "--dry-run").stdout == dry
    _, document = run_json("prune")
    assert (document["packs_repacked"], document["freed_bytes"]) == (1, promised)
    assert run("verify", "--read-data").exit_code == Exit.OK
    assert kept.id[:8] in run("ls").stdout


def test_prune_refuses_while_a_manifest_cannot_be_read(store, make):
    store.forget(make().id)
    broken = make()
    damage_manifest(store, broken)

    result = run("prune", "--repack")

    assert result.exit_code == Exit.FAILED
    assert f"ipyrescue forget {broken.id}" in result.stderr
    assert len(list(layout.packs(store.root).iterdir())) == 2


def test_prune_waits_for_a_writer_and_says_so_when_it_was_in_vain(store, make, monkeypatch):
    monkeypatch.setattr(verb, "PATIENCE_SECONDS", 0.05)
    with store.writing():
        result = run("prune")

    assert result.exit_code == Exit.FAILED
    assert "Nothing was freed" in result.stderr


def test_ctrl_c_ends_it_between_two_packs(store, make, monkeypatch):
    """The lock is free again, what went is gone, and the next one frees the rest."""
    make()
    for _ in range(3):
        store.forget(make().id)
    left, real = [2], os.unlink

    def interrupted(path, **options):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        real(path, **options)

    monkeypatch.setattr(os, "unlink", interrupted)
    assert run("prune").exit_code == Exit.INTERRUPTED
    monkeypatch.undo()

    assert len(list(layout.packs(store.root).iterdir())) == 3
    assert run_json("prune", "--store", store.root)[1]["packs_removed"] == 2


@pytest.mark.parametrize("text", ["much", "-1%", "101%"])
def test_max_unused_is_a_percentage(make, text):
    result = run("prune", f"--max-unused={text}")

    assert result.exit_code == Exit.USAGE
    assert "percentage" in result.stderr


def test_a_share_of_dead_bytes_is_nothing_without_repacking(make):
    result = run("prune", "--no-repack", "--max-unused=10%")

    assert result.exit_code == Exit.USAGE
    assert "--max-unused needs repacking" in result.stderr


def test_prune_says_why_a_lock_is_not_enough(store, make, monkeypatch):
    """On a file system whose locks hold on one machine only, while a kernel of another one may write."""
    first = make()
    monkeypatch.setattr(filesystems, "of", lambda *_: FileSystem("fuse.sshfs", "me@there:", "/work"))
    lives.write(store.root, lives.Life("b" * 16, "far.ipynb", "notebook", 1, 1, "boot", "ns", "there", "2026-11-21"))

    forgotten, refused, forced = run("forget", first.id[:8], "--yes"), run("prune"), run("prune", "--force")

    assert "On sshfs locks hold on one machine only" in forgotten.stderr
    assert (refused.exit_code, refused.stdout) == (Exit.FAILED, "")
    assert "On sshfs locks hold on one machine only, and a kernel of there may be writing" in refused.stderr
    assert "If nobody else writes there: ipyrescue prune --force" in refused.stderr
    assert "1 whole pack" in forced.stdout
