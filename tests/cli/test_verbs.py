"""What the verbs print and how they end."""

import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ipyrescue.cli.app import app
from ipyrescue.cli.exits import MEANINGS, Exit
from ipyrescue.manifest import Frame, Skipped, Variable
from ipyrescue.store import Store, blobs, layout, scrub
from ipyrescue.store.brief import said_of
from ipyrescue.store.index import Index, Record
from ipyrescue.store.pack import signature
from tests.cli.conftest import a_snapshot


def run(*arguments, env=None):
    return CliRunner().invoke(app, [str(a) for a in arguments], env=env, catch_exceptions=False)


def run_json(*arguments):
    result = run(*arguments, "--json")
    return result, json.loads(result.stdout)


def damage_manifest(store, snapshot):
    path = layout.snapshots(store.root) / layout.snapshot_name(snapshot.sequence, snapshot.id)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"a-host", b"b-host"))


def damage_data(store, snapshot):
    path = layout.pack_path(store.root, snapshot.blobs[1].pack)
    path.chmod(0o600)
    raw = bytearray(path.read_bytes())
    raw[snapshot.blobs[1].offset + 10] ^= 1
    path.write_bytes(raw)


def foreign(store, other_key, make, **changes):
    return make(into=Store.open(store.root, other_key), **changes)


# --- ls ---------------------------------------------------------------------------------------------------------


def test_ls_lists_every_notebook_newest_first(make):
    first, second = make(notebook="a.ipynb"), make(notebook="b.ipynb", label="warm")

    result = run("ls")

    lines = result.stdout.splitlines()
    assert result.exit_code == Exit.OK
    assert lines[0].split() == ["ID", "STATE", "MADE", "NOTEBOOK", "LABEL", "CUT", "VARS", "SIZE", "NEW"]
    assert re.match(rf"{second.id[:8]}  ok     just now  b\.ipynb +warm +cell_end +1 +5\.0 kB +5\.0 kB$", lines[1])
    assert lines[2].startswith(first.id[:8])


def test_ls_of_one_notebook(make):
    make(notebook="a.ipynb")
    wanted = make(notebook="b.ipynb")

    _, document = run_json("ls", "--notebook", "b.ipynb")

    assert [s["id"] for s in document["snapshots"]] == [wanted.id]


def test_ls_shows_the_newest_twenty_and_says_so(make):
    for _ in range(22):
        make(data=b"the same")

    result = run("ls")

    assert len(result.stdout.splitlines()) == 1 + 20
    assert result.stderr == "2 older ones are not shown: ipyrescue ls --all\n"
    assert len(run("ls", "--all").stdout.splitlines()) == 1 + 22
    assert len(run_json("ls")[1]["snapshots"]) == 22


def test_ls_marks_damaged_and_foreign_snapshots_and_hides_none(store, make, other_key):
    whole, damaged, cut_short = make(), make(), make()
    theirs = foreign(store, other_key, make, notebook="theirs.ipynb")
    damage_manifest(store, damaged)
    layout.pack_path(store.root, cut_short.blobs[1].pack).unlink()

    result, document = run_json("ls")

    assert result.exit_code == Exit.OK
    states = {s["id"]: s["state"] for s in document["snapshots"]}
    assert states == {whole.id: "ok", damaged.id: "damaged", cut_short.id: "damaged", theirs.id: "untrusted"}
    assert "theirs.ipynb" in run("ls").stdout
    assert damaged.id[:8] in run("ls", "--notebook", "train.ipynb").stdout


def test_what_a_scrub_found_is_shown_until_it_is_read_again(store, make):
    """`verify` without reading believes the record; reading every byte knows better."""
    read, wrong = make(), make()
    there = {read.id, wrong.id}
    pack = wrong.blobs[0].pack
    scrub.note(store.root, there, read.id, 1_700_000_000.0)
    scrub.note(store.root, there, wrong.id, scrub.Finding(1.0, ("x",), pack, blobs.pack_signature(store.root, pack)))

    _, document = run_json("ls")
    newest, oldest = document["snapshots"]

    assert (oldest["state"], oldest["verified_at"]) == ("ok", 1_700_000_000.0)
    assert (newest["state"], newest["verified_at"]) == ("damaged", None)
    assert newest["error"] == f"Pack {pack} was found damaged when it was read back: x cannot be read."
    assert run("verify").exit_code == Exit.DAMAGED
    assert run("verify", "--read-data").exit_code == Exit.OK
    assert run("verify", wrong.id, "--read-data").exit_code == Exit.OK


def test_ls_without_a_key_lists_what_there_is_as_untrusted(make, monkeypatch, tmp_path):
    make()
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(tmp_path / "nowhere"))

    result, document = run_json("ls")

    assert [s["state"] for s in document["snapshots"]] == ["untrusted"]
    assert "There is no key" in result.stderr


def test_the_shape_of_ls_is_stable(store, make):
    make()
    damage_manifest(store, make())

    _, document = run_json("ls")

    keys = [
        "id", "sequence", "state", "error", "pinned", "verified_at", "notebook", "incarnation", "created", "label",
        "trigger", "cut", "consistent", "reason", "cell", "host", "variable_count", "import_count", "skipped_count",
        "size_bytes", "new_bytes", "pause_seconds", "signed_by", "owner_uid",
    ]  # fmt: skip
    assert list(document) == ["store", "snapshots"]
    assert [list(s) for s in document["snapshots"]] == [keys, keys]


def test_an_empty_store_is_said_to_be_empty(store):
    result = run("ls")

    assert (result.exit_code, result.stdout) == (Exit.OK, "")
    assert "There are no snapshots" in result.stderr


def test_names_from_a_store_do_not_reach_the_terminal_as_commands(make):
    """A hostile name must not move the cursor, hide text or be read as markup."""
    snapshot = make(notebook="\x1b[2J\u202egnp.ipynb", label="[red]not markup[/red]", reason="two\nlines")

    for result in (run("ls"), run("show", snapshot.id)):
        assert "\x1b" not in result.stdout
        assert "\u202e" not in result.stdout
        assert "[red]not markup[/red]" in result.stdout
        assert r"\x1b[2J\u202egnp.ipynb" in result.stdout
    assert "two\\nlines" in run("show", snapshot.id).stdout


# --- show -------------------------------------------------------------------------------------------------------


def test_show_says_what_is_there_and_what_was_left_out(make):
    snapshot = make(label="warm")

    for spec in (snapshot.id[:6], "warm", "latest", "latest~0"):
        result = run("show", spec)
        assert result.exit_code == Exit.OK
        assert re.search(r"weights +bytes +5\.0 kB +\[3\]", result.stdout)
        assert "gen (a generator cannot be saved, made in cell [4])" in result.stdout


def test_show_prints_what_a_snapshot_was_made_with(make):
    """Python first, then libraries, then the rest; as text from a store, which no terminal obeys."""
    found = {"autoreload": "2", "torch": "2.13.0", "python": "3.11.7", "cuda devices": "H200\x1b[2J"}
    snapshot = make(environment=found)

    shown = run("show", snapshot.id).stdout.partition("Made with:\n")[2].splitlines()

    assert shown == [
        "  python        3.11.7",
        "  torch         2.13.0",
        "  cuda devices  H200\\x1b[2J",
        "  autoreload    2",
    ]
    assert "Made with" not in run("show", make(environment={}).id).stdout


def test_the_shape_of_show_is_that_of_ls_with_the_contents(make):
    snapshot = make()

    listed = run_json("ls")[1]["snapshots"][0]
    shown = run_json("show", snapshot.id)[1]["snapshot"]

    assert listed.items() <= shown.items()
    assert list(shown)[len(listed) :] == [
        "variables", "imports", "skipped", "warnings", "frames", "groups", "tensors", "traceback", "settings",
        "environment",
    ]  # fmt: skip
    assert shown["variables"] == [{"name": "weights", "type": "bytes", "size_bytes": 5000, "cell": 3, "source": None}]


def test_show_tells_locals_from_variables(make):
    """They stand among the rows under their pseudo-names, and are not counted."""
    frame = Frame("train", 3, 5, ("train().step",))
    rows = (Variable("weights", "bytes", 5000, 3, None), Variable("train().step", "int", 20, 3, None))
    snapshot = make(variables=rows, frames=(frame,))

    shown = run("show", snapshot.id).stdout

    assert "train().step" in shown
    assert "Ran then:\n  train(), line 5 of cell [3]\n" in shown
    assert run_json("ls")[1]["snapshots"][0]["variable_count"] == 1
    assert run_json("show", snapshot.id)[1]["snapshot"]["frames"] == [
        {"function": "train", "cell": 3, "line": 5, "names": ["train().step"]}
    ]


def test_show_code_prints_cells_and_obeys_none_of_them(store, make):
    """As text, by their hashes; what a terminal would obey is an escape."""
    cells = b'{"cell":3,"source":"x = 1\\n\\tif x:\\u001b[2J"}\n'
    with store.writing():
        put = store.put([memoryview(b"a stream"), memoryview(b"data"), memoryview(cells)])
        snapshot = a_snapshot(store.next_sequence(), put.refs, put.new_bytes, cells=(2,))
        store.commit(snapshot)

    assert run("show", snapshot.id, "--code").stdout == "# In [3]\nx = 1\n    if x:\\x1b[2J\n\n"
    shown = run_json("show", snapshot.id, "--code")[1]
    assert shown["cells"] == [{"number": 3, "source": "x = 1\n\tif x:\x1b[2J"}]


def test_show_code_of_a_snapshot_without_cells_says_so(make):
    snapshot = make()

    result = run("show", snapshot.id, "--code")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "holds no cells" in result.stderr


def test_show_of_another_keys_snapshot_is_shown_and_says_so(store, make, other_key):
    theirs = foreign(store, other_key, make)

    result = run("show", theirs.id)

    assert result.exit_code == Exit.UNTRUSTED
    assert "UNTRUSTED" in result.stdout
    assert "signed with another key" in result.stderr


def test_show_of_a_damaged_manifest_shows_nothing_of_it(store, make):
    snapshot = make()
    damage_manifest(store, snapshot)

    result = run("show", snapshot.id[:8])

    assert (result.exit_code, result.stdout) == (Exit.DAMAGED, "")
    assert "does not fit its signature" in result.stderr


def test_no_such_snapshot(make):
    make()

    result = run("show", "ffff0000", "--json")

    assert (result.exit_code, result.stdout) == (Exit.NOT_FOUND, "")
    error = json.loads(result.stderr)["error"]
    assert (error["type"], error["exit_code"]) == ("SnapshotNotFoundError", 4)


# --- verify -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--read-data",)])
def test_verify_of_a_whole_store(make, arguments):
    make()
    make()

    result = run("verify", *arguments)

    assert (result.exit_code, result.stdout) == (Exit.OK, "")
    assert "2 snapshots are whole" in result.stderr


def test_verify_names_the_variables_that_are_lost(store, make):
    make()
    snapshot = make()
    damage_data(store, snapshot)

    assert run("verify").exit_code == Exit.OK  # it says that it read no data
    result, document = run_json("verify", "--read-data")

    assert result.exit_code == Exit.DAMAGED
    assert document["whole"] is False
    bad = document["snapshots"][0]
    assert (bad["id"], bad["state"], bad["damage"][0]["names"]) == (snapshot.id, "damaged", ["weights"])
    assert document["snapshots"][1]["state"] == "ok"
    assert "lost: weights" in run("verify", snapshot.id[:8], "--read-data").stdout


def test_verify_counts_shared_bytes_once(make):
    for _ in range(3):
        make(data=b"w" * 10_000)

    assert "every byte read (10 kB)" in run("verify", "--read-data").stderr
    assert run_json("verify", "--read-data")[1]["read_bytes"] == 10_008
    assert run_json("verify")[1]["read_bytes"] == 0


def test_verify_finds_a_missing_pack_without_reading(store, make):
    snapshot = make()
    layout.pack_path(store.root, snapshot.blobs[1].pack).unlink()

    result = run("verify")

    assert result.exit_code == Exit.DAMAGED
    assert "is missing" in result.stdout


def test_verify_tells_another_key_from_damage(store, make, other_key):
    foreign(store, other_key, make)
    assert run("verify").exit_code == Exit.UNTRUSTED

    damage_manifest(store, make())
    assert run("verify").exit_code == Exit.DAMAGED


def test_verify_counts_no_pack_that_only_another_keys_snapshot_needs(store, make, other_key):
    make()
    foreign(store, other_key, make)

    _, document = run_json("verify", "--read-data")

    assert (document["packs_read"], document["packs"], document["read_bytes"]) == (1, 1, 5008)


def test_verify_needs_a_key(make, monkeypatch, tmp_path):
    make()
    monkeypatch.setenv("IPYRESCUE_KEY_FILE", str(tmp_path / "nowhere"))

    assert run("verify").exit_code == Exit.UNTRUSTED


# --- forget -----------------------------------------------------------------------------------------------------


def test_forget_frees_what_nobody_else_needs(store, make):
    shared = bytes(5000)
    old, new = make(data=shared), make(data=shared)
    alone = make()
    pack = layout.pack_path(store.root, alone.blobs[1].pack)
    size = pack.stat().st_size

    result, document = run_json("forget", old.id[:8], alone.id[:8])

    assert result.exit_code == Exit.OK
    assert document["freed_bytes"] == size
    assert {s["id"] for s in document["forgotten"]} == {old.id, alone.id}
    assert [s["id"] for s in run_json("ls")[1]["snapshots"]] == [new.id]
    assert not pack.exists()
    assert run("verify", "--read-data").exit_code == Exit.OK


def test_a_dry_run_changes_nothing_and_is_right(store, make):
    make()
    snapshot = make()

    _, dry = run_json("forget", snapshot.id, "--dry-run")
    assert len(run_json("ls")[1]["snapshots"]) == 2
    _, real = run_json("forget", snapshot.id)

    assert dry["freed_bytes"] == real["freed_bytes"] > 0
    assert (dry["dry_run"], real["dry_run"]) == (True, False)


def test_the_last_good_snapshot_of_a_notebook_needs_yes(make):
    make(cut="interrupted")
    last = make()
    make(notebook="other.ipynb")

    refused = run("forget", last.id)
    assert refused.exit_code == Exit.FAILED
    assert "no good snapshot of train.ipynb would be left" in refused.stderr
    assert len(run_json("ls")[1]["snapshots"]) == 3

    assert run("forget", last.id, "--yes").exit_code == Exit.OK


def test_one_unknown_id_and_nothing_is_forgotten(make):
    make()
    snapshot = make()

    assert run("forget", snapshot.id, "ffffffff").exit_code == Exit.NOT_FOUND
    assert len(run_json("ls")[1]["snapshots"]) == 2


def test_a_damaged_or_foreign_snapshot_can_be_forgotten(store, make, other_key):
    damaged, theirs = make(), foreign(store, other_key, make)
    damage_manifest(store, damaged)

    result = run("forget", damaged.id[:8], theirs.id[:8])

    assert result.exit_code == Exit.OK, result.stderr
    assert run_json("ls")[1]["snapshots"] == []


def test_forgotten_but_not_freed_is_said(store, make):
    make()
    damaged, snapshot = make(), make()
    damage_manifest(store, damaged)

    result, document = run_json("forget", snapshot.id)

    assert result.exit_code == Exit.DAMAGED
    assert document["freed_bytes"] == 0
    assert damaged.id in document["not_freed_because"]


# --- pin --------------------------------------------------------------------------------------------------------


def test_pin_is_shown_and_can_be_taken_back(store, make):
    old, new = make(label="warm"), make()

    pinned = run("pin", "warm")

    assert (pinned.exit_code, pinned.stdout) == (Exit.OK, f"Pinned {old.id[:8]} of train.ipynb\n")
    assert store.pins() == {old.id}
    head, *rows = run("ls").stdout.splitlines()
    assert head.endswith("NOTE")
    assert [row.endswith("pinned") for row in rows] == [False, True]
    assert f"until ipyrescue pin {old.id[:8]} --off" in run("show", old.id).stdout

    off, document = run_json("pin", old.id, new.id, "--off")

    assert off.exit_code == Exit.OK
    assert [(s["id"], s["pinned"]) for s in document["snapshots"]] == [(old.id, False), (new.id, False)]
    assert run("ls").stdout.splitlines()[0].endswith("NEW")


def test_unpin_is_what_pin_off_is(store, make):
    old, new = make(label="warm"), make()
    run("pin", old.id, new.id)

    unpinned = run("unpin", "warm")
    _, document = run_json("unpin", new.id)

    assert (unpinned.exit_code, unpinned.stdout) == (Exit.OK, f"Unpinned {old.id[:8]} of train.ipynb\n")
    assert [(s["id"], s["pinned"]) for s in document["snapshots"]] == [(new.id, False)]
    assert store.pins() == frozenset()
    assert run("unpin", old.id, "ffffffff").exit_code == Exit.NOT_FOUND


def test_one_unknown_id_and_nothing_is_pinned(store, make):
    snapshot = make()

    assert run("pin", snapshot.id, "ffffffff").exit_code == Exit.NOT_FOUND
    assert store.pins() == frozenset()


def test_a_pinned_snapshot_is_forgotten_after_it_was_unpinned(make):
    make()
    other, pinned = make(), make()
    run("pin", pinned.id)

    refused = run("forget", other.id, pinned.id, "--yes")

    assert refused.exit_code == Exit.FAILED
    assert f"ipyrescue pin {pinned.id[:8]} --off" in refused.stderr
    assert len(run_json("ls")[1]["snapshots"]) == 3
    assert run("pin", pinned.id, "--off").exit_code == Exit.OK
    assert run("forget", other.id, pinned.id).exit_code == Exit.OK


def test_a_damaged_or_foreign_snapshot_can_be_pinned(store, make, other_key):
    """Somebody may mend it, or find the key."""
    damaged, theirs = make(), foreign(store, other_key, make)
    damage_manifest(store, damaged)

    result, document = run_json("pin", damaged.id, theirs.id)

    assert result.exit_code == Exit.OK
    assert [(s["state"], s["pinned"]) for s in document["snapshots"]] == [("damaged", True), ("untrusted", True)]


# --- diff -------------------------------------------------------------------------------------------------------


def test_diff_of_the_latest_two_of_a_notebook(make):
    """Another notebook's, made in between, is none of them."""
    older = make(data=b"a" * 5000)
    make(notebook="other.ipynb")
    newer = make(data=b"b" * 6000, skipped=())

    result, document = run_json("diff")

    assert result.exit_code == Exit.OK
    assert (document.pop("older"), document.pop("newer")) == (older.id, newer.id)
    assert document == {
        "store": document["store"],
        "added": [],
        "removed": [],
        "changed": [
            {"name": "weights", "type": "bytes", "size_bytes": 6000, "size_bytes_before": 5000, "changed_bytes": 6000}
        ],
        "same": 0,
    }
    shown = run("diff")
    assert re.search(r"^changed +weights +bytes +5\.0 kB +6\.0 kB +6\.0 kB$", shown.stdout, re.MULTILINE)
    assert f"From {older.id[:8]} of train.ipynb (made just now) to {newer.id[:8]}" in shown.stderr


def test_diff_of_two_in_whichever_order(make):
    older, newer = make(data=b"same"), make(data=b"same")

    for pair in ((older.id, newer.id), (newer.id, older.id), (older.id,)):
        document = run_json("diff", *pair)[1]
        assert (document["older"], document["newer"], document["same"]) == (older.id, newer.id, 1)
    assert run("diff").stdout == ""
    assert "1 the same." in run("diff").stderr


def test_diff_tells_what_could_not_be_saved_from_what_is_gone(make):
    make()
    make(variables=(), groups=(), skipped=(Skipped("weights", "Lock", "a lock"),))

    assert re.search(r"^removed +weights .*left out: a lock$", run("diff").stdout, re.MULTILINE)


def test_diff_with_what_cannot_be_read(store, make, other_key):
    make()
    assert run("diff").exit_code == Exit.NOT_FOUND
    theirs, damaged = foreign(store, other_key, make), make()
    damage_manifest(store, damaged)

    assert run("diff", theirs.id).exit_code == Exit.UNTRUSTED
    assert run("diff", damaged.id).exit_code == Exit.DAMAGED


# --- the whole --------------------------------------------------------------------------------------------------


def test_help_documents_every_exit_code():
    for code, meaning in MEANINGS.items():
        assert f"{code:>3}  {meaning}" in run("--help").stdout
    assert set(MEANINGS) == set(Exit)


def test_version(monkeypatch):
    """`--version` needs the installed metadata only; a tree that was never installed has none."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"1.2.3 of {name}")

    result = run("--version")

    assert (result.exit_code, result.stdout) == (Exit.OK, "ipyrescue 1.2.3 of ipyrescue\n")


@pytest.mark.parametrize("verb", ["ls", "show", "diff", "verify", "pin", "forget"])
def test_every_verb_has_help_a_store_and_json(verb):
    text = run(verb, "--help").stdout

    assert "--store" in text
    assert "--json" in text


def test_a_store_is_found_by_option_environment_and_folder(store, make, tmp_path, monkeypatch):
    make()
    assert len(run("ls").stdout.splitlines()) == 2
    monkeypatch.chdir("/")
    assert run("ls").exit_code == Exit.NOT_FOUND
    assert run("ls", "--store", store.root).exit_code == Exit.OK
    assert run("ls", env={"IPYRESCUE_STORE": str(store.root)}).exit_code == Exit.OK
    assert f"--store {store.root}" in run("ls", "--store", tmp_path).stderr


def test_a_store_without_its_format_is_damaged_not_absent(store):
    (store.root / "format.json").unlink()

    assert run("ls").exit_code == Exit.DAMAGED


def test_reading_changes_nothing(store, make):
    snapshot = make()
    before = {p: p.lstat().st_mtime_ns for p in store.root.rglob("*")}

    for arguments in (["ls"], ["show", snapshot.id], ["verify", "--read-data"], ["forget", snapshot.id, "--dry-run"]):
        run(*arguments)

    assert {p: p.lstat().st_mtime_ns for p in store.root.rglob("*")} == before


# --- as a process -----------------------------------------------------------------------------------------------


def process(*arguments, code="from ipyrescue.cli import main; main()", **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.slow
def test_the_process_ends_with_the_documented_codes(store, make):
    snapshot = make()

    assert process("ls").returncode == 0
    assert process("ls", "--no-such-option").returncode == 2
    assert process("show", "ffff").returncode == 4
    assert json.loads(process("show", snapshot.id, "--json").stdout)["snapshot"]["id"] == snapshot.id
    damage_manifest(store, snapshot)
    result = process("verify", "--json")
    assert (result.returncode, json.loads(result.stdout)["whole"]) == (3, False)
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_no_verb_loads_what_unpickles(make):
    """`sys.modules` after every verb, and an audit hook: nothing looked a class up to unpickle it."""
    make()
    snapshot = make()
    code = """
import sys
found = []
sys.addaudithook(lambda event, args: found.append(args) if event == "pickle.find_class" else None)
from ipyrescue.cli.app import app
try:
    app()
finally:
    heavy = {"torch", "numpy", "dill", "cloudpickle", "zstandard", "IPython"} & set(sys.modules)
    ours = [m for m in sys.modules if m.startswith(("ipyrescue.pickling", "ipyrescue.checkpointing",
            "ipyrescue.restoring", "ipyrescue.kernel", "ipyrescue.capture"))]
    assert not heavy and not ours and not found, (heavy, ours, found)
"""
    for arguments in (
        ["ls"], ["show", snapshot.id], ["diff"], ["pin", snapshot.id], ["pin", snapshot.id, "--off"],
        ["verify", "--read-data"], ["stats"], ["forget", snapshot.id], ["forget", "--keep-last", "1"],
        ["prune", "--repack"],
    ):  # fmt: skip
        result = process(*arguments, code=code)
        assert result.returncode == 0, result.stderr


def test_ctrl_c_ends_quietly_with_130(make):
    make()
    code = """
import ipyrescue.cli.ls as ls
def interrupted(*_, **__): raise KeyboardInterrupt
ls.entries = interrupted
from ipyrescue.cli import main; main()
"""
    result = process("ls", code=code)

    assert result.returncode == Exit.INTERRUPTED
    assert "Traceback" not in result.stderr


def test_a_closed_pipe_is_no_error_message(make):
    make()
    command = f"{sys.executable} -c 'from ipyrescue.cli import main; main()' ls --json | head -c 0"

    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)

    assert result.stderr == ""


def test_piped_output_is_plain_whatever_the_terminal(make):
    make(notebook="a" * 300 + ".ipynb")

    result = process("ls")

    assert "a" * 300 + ".ipynb" in result.stdout
    assert "\x1b" not in result.stdout
    assert len(result.stdout.splitlines()) == 2


def test_verify_believes_nothing_that_is_remembered(store, make):
    """Rot leaves no time behind: a list may call a damaged manifest good, verify reads it."""
    snapshots = [make() for _ in range(6)]
    path = store.catalog.path(layout.snapshot_name(snapshots[0].sequence, snapshots[0].id))
    damage_manifest(store, snapshots[0])
    Index(store.root, store.id, store.key).add({path.name: Record(signature(path.lstat())[1:], said_of(snapshots[0]))})

    assert run("ls").exit_code == Exit.OK
    assert "damaged" not in run("ls").stdout
    assert run("verify").exit_code == Exit.DAMAGED
